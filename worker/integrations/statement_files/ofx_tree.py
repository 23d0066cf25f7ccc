"""Builds the tree of an OFX file, whatever its version, with the parser of ofxtools."""

from __future__ import annotations

import logging
from html import escape, unescape
from xml.etree.ElementTree import Element

from ofxtools.Parser import TreeBuilder

from worker.errors import Refused

logging.getLogger("ofxtools").setLevel(logging.CRITICAL + 1)  # it logs what it reads

_DEEPEST = 100
_SECTION = "<![CDATA["
_TEXTS = frozenset(
    {
        *("ACCTID", "ACCTKEY", "ACCTTYPE", "BALAMT", "BANKID", "BRANCHID", "CHECKNUM", "CURDEF", "DTASOF", "DTEND"),
        *("DTPOSTED", "DTSTART", "DTUSER", "FID", "FITID", "LANGUAGE", "MEMO", "NAME", "ORG", "PAYEEID", "REFNUM"),
        *("SERVERTID", "SIC", "TRNAMT", "TRNTYPE", "TRNUID"),
    }
)
"""Elements that have only a text. In OFX 1 they need no close tag, so an empty one would hold all that follows it."""


class _Builder(TreeBuilder):
    """Closes empty elements, and raises an error where elements are closed in another order than they were opened."""

    def __init__(self) -> None:
        super().__init__()
        self._open: list[str] = []

    def start(self, tag: str, attrs: dict[str, str]) -> Element:
        if self._open and (self._open[-1] in _TEXTS or (self._open[-1] == "BANKTRANLIST" and tag == "LEDGERBAL")):
            self.end(self._open[-1])  # Nubank leaves out the end of the list
        if len(self._open) == _DEEPEST:
            raise SyntaxError
        self._open.append(tag)
        return super().start(tag, attrs)

    def end(self, tag: str) -> Element:
        if self._open and self._open[-1] in _TEXTS and tag != self._open[-1]:
            self.end(self._open[-1])
        if not self._open or self._open.pop() != tag:
            raise SyntaxError
        return super().end(tag)


def _without_sections(text: str) -> str:
    """The text with what is in CDATA sections escaped. The parser's search for their end takes time without limit."""
    parts, at = [], 0
    while (begin := text.find(_SECTION, at)) >= 0:
        end = text.find("]]>", begin)
        if end < 0:
            raise SyntaxError
        parts += [text[at:begin], escape(text[begin + len(_SECTION) : end], quote=False)]
        at = end + 3
    return "".join([*parts, text[at:]])


def tree(text: str) -> Element:
    """The tree of a file without its header.

    Raises:
        Refused: it is not well formed.
    """
    builder = _Builder()
    try:
        builder.feed(_without_sections(text))
        root = builder.close()
    except (SyntaxError, AssertionError):  # their texts show the file
        raise Refused("the OFX file has an element that is not closed as it should be; nothing was stored") from None
    for element in root.iter():
        element.text = unescape(element.text or "")
    return root

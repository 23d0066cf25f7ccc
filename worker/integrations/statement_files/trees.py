"""Builds trees of files in XML and SGML, and reads what their elements say.

XML is read by defusedxml, without document types and entities. SGML, in which an element that has only a text needs no
close tag, is read by the parser of ofxtools.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from html import escape, unescape
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring
from ofxtools.Parser import TreeBuilder

from worker.errors import Refused
from worker.integrations.kit import money
from worker.integrations.statement_files import values

logging.getLogger("ofxtools").setLevel(logging.CRITICAL + 1)  # it logs what it reads

_DECLARATION = re.compile(r"\s*<\?xml\b[^>]*>", re.IGNORECASE)
_ENCODING = re.compile(r"\bencoding\s*=\s*[\"']([\w-]+)[\"']", re.IGNORECASE)
_DEEPEST = 100
_SECTION = "<![CDATA["


def of_xml(content: bytes, name: str) -> Element:
    """The tree of an XML file; its tags have no namespaces.

    Args:
        content: the file.
        name: of its format, for the errors.

    Raises:
        Refused: it is not well formed, or it has a document type or entities.
    """
    head = _DECLARATION.match(content[:200].decode("latin-1"))
    declared = _ENCODING.search(head[0]) if head else None
    text = values.decoded(content, declared[1] if declared else "")
    begin = _DECLARATION.match(text)
    try:
        root: Element = fromstring(text[begin.end() :] if begin else text, forbid_dtd=True)
    except DefusedXmlException:
        raise Refused("the file has a document type or entities, which no bank needs; nothing was stored") from None
    except (ParseError, ValueError):
        raise Refused(f"the {name} file is cut off or is no XML: download it again; nothing was stored") from None
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    return root


class _Builder(TreeBuilder):
    """Closes empty elements, and raises an error where elements are closed in another order than they were opened."""

    def __init__(self, texts: frozenset[str], ended_by: Mapping[str, str]) -> None:
        super().__init__()
        self._texts, self._ended_by = texts, ended_by
        self._open: list[str] = []

    def start(self, tag: str, attrs: dict[str, str]) -> Element:
        if self._open and (self._open[-1] in self._texts or self._ended_by.get(self._open[-1]) == tag):
            self.end(self._open[-1])
        if len(self._open) == _DEEPEST:
            raise SyntaxError
        self._open.append(tag)
        return super().start(tag, attrs)

    def end(self, tag: str) -> Element:
        if self._open and self._open[-1] in self._texts and tag != self._open[-1]:
            self.end(self._open[-1])
        if not self._open or self._open.pop() != tag:
            raise SyntaxError
        return super().end(tag)


def of_sgml(text: str, name: str, texts: frozenset[str], ended_by: Mapping[str, str]) -> Element:
    """The tree of an SGML file without its header; one in XML is read, too, if its elements have no attributes.

    Args:
        text: the file.
        name: of its format, for the errors.
        texts: elements that have only a text. Without a close tag, an empty one would hold all that follows it.
        ended_by: elements whose close tag may be missing, each with the element before which it ends then.

    Raises:
        Refused: it is not well formed.
    """
    builder = _Builder(texts, ended_by)
    try:
        builder.feed(_without_sections(text))
        root: Element | None = builder.close()
        if root is None:
            raise SyntaxError
    except (SyntaxError, AssertionError):  # their texts show the file
        told = f"the {name} file has an element that is not closed as it should be; nothing was stored"
        raise Refused(told) from None
    for element in root.iter():
        element.text = unescape(element.text or "")
    return root


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


def text_of(element: Element, *paths: str) -> str | None:
    """The first text that an element has below it at one of these paths; None if it has none."""
    return next((found for path in paths if (found := values.text(element.findtext(path))) is not None), None)


def amount_of(element: Element, path: str) -> Decimal:
    """The exact amount at a path. Raises `BadRecord`: see `values.amount` and `money.checked`."""
    return money.checked(values.amount(text_of(element, path) or ""), "amount")


def amount_or_none(element: Element, path: str) -> Decimal | None:
    """The same; None if there is no such element."""
    return None if element.find(path) is None else amount_of(element, path)


def day_of(element: Element, *paths: str) -> date:
    """The day at the first of these paths that has a text. Raises `BadRecord`: see `values.leading_day`."""
    return values.leading_day(text_of(element, *paths))


def day_or_none(element: Element, *paths: str) -> date | None:
    """The same; None if there is no text."""
    found = text_of(element, *paths)
    return None if found is None else values.leading_day(found)

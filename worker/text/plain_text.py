"""Aliases, and what providers write, shown so that they cannot steer a terminal or change how a line reads."""

from __future__ import annotations

import re

HARMFUL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # ESC and its like: colours, titles, the cursor's place, the clipboard
    "\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"  # these change in which order a line is read
    "\u00ad\u200b\u2060-\u2065\u206a-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e0fff"  # nobody sees these
    "\ud800-\udfff]"  # no terminal can be sent these
)
"""Characters that are never shown as they are. Line feeds and tabs are not among them, nor what joins emoji."""

_LINES = re.compile(f"{HARMFUL.pattern}|[\t\n]")


def visible(text: str, *, lines: bool = False) -> str:
    r"""The text with harmful characters spelt out: `\x1b`, `\u202e`.

    `lines` leaves line feeds and tabs as they are.
    """
    return (HARMFUL if lines else _LINES).sub(_spelt_out, text)


def _spelt_out(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()

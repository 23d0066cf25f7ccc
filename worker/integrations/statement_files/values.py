"""Texts, amounts and days of files, read without guessing."""

from __future__ import annotations

import re
from datetime import date
from decimal import Decimal

from worker.errors import BadRecord, Refused

_AMOUNT = re.compile(r"[+-]?(?:\d+(?:[.,]\d*)?|[.,]\d+)")
_LONGEST = 4000


def decoded(content: bytes, declared: str = "") -> str:
    """The text of a file. UTF-8 is tried first, because many files declare something else; then cp1252, which most are.

    Raises:
        Refused: it is UTF-16 or UTF-32, or has NUL characters: it is no text file.
    """
    if content.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\x00" in content[:4096]:
        raise Refused("the file is no text in UTF-8 or in a Western encoding: save it as UTF-8; nothing was stored")
    for encoding in ("utf-8-sig", declared or "cp1252", "cp1252", "latin-1"):
        try:
            return content.decode(encoding)
        except (UnicodeDecodeError, LookupError):
            continue
    raise AssertionError("unreachable")  # pragma: no cover


def amount(text: str, field: str = "amount") -> Decimal:
    """An exact amount, with a point or a comma before the decimals, and no other separators.

    Raises:
        BadRecord: `<field>_missing`, `<field>_unreadable`, or `<field>_ambiguous`: a comma and exactly three digits may
            be thousands.
    """
    text = text.strip().replace("\u2212", "-")
    if not text:
        raise BadRecord(f"{field}_missing")
    if not _AMOUNT.fullmatch(text):
        raise BadRecord(f"{field}_unreadable")
    whole, comma, decimals = text.partition(",")
    if comma and len(decimals) == 3 and whole.lstrip("+-").strip("0"):
        raise BadRecord(f"{field}_ambiguous")
    return Decimal(text.replace(",", "."))


def day(year: str | int, month: str | int, of_month: str | int, field: str = "date") -> date:
    """A day. Raises `BadRecord` (`<field>_unreadable`) for 30 February and the like."""
    try:
        return date(int(year), int(month), int(of_month))
    except ValueError:
        raise BadRecord(f"{field}_unreadable") from None


def text(value: str | None) -> str | None:
    """A text with single spaces and without NUL characters; None if it is empty."""
    return " ".join((value or "").replace("\x00", "").split())[:_LONGEST] or None


def currency(code: str | None) -> str:
    """An ISO code. Raises `BadRecord` (`currency_missing`): the currency of a file is never guessed."""
    if not code or not re.fullmatch(r"[A-Z]{3}", code.strip()):
        raise BadRecord("currency_missing")
    return code.strip()

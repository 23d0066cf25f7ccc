"""Texts, amounts and days of files, read without guessing."""

from __future__ import annotations

import codecs
import re
from collections.abc import Sequence
from datetime import date
from decimal import Decimal

from worker.errors import BadRecord, Refused
from worker.integrations.kit import money

_AMOUNT = re.compile(r"[+-]?(?:\d+(?:[.,]\d*)?|[.,]\d+)")
_LONGEST = 4000
_CODECS = re.compile(r"iso8859-(?!1$)\d+|cp\d+|koi8-\w")
_ISO_DAY = re.compile(r"\s*(\d{4})-?(\d\d)-?(\d\d)")
DAY = re.compile(r"\s*(\d{1,4})[./-](\d{1,2})[./-](\d{2,4})\b")
_GROUPED = {sign: re.compile(rf"[+-]?\d{{1,3}}(?:[{other} ']\d{{3}})+(?:\{sign}\d*)?") for sign, other in (".,", ",.")}


def decoded(content: bytes, declared: str = "") -> str:
    """The text of a file. UTF-8 is tried first, because many files declare something else; then what it declares.

    Otherwise it is read as cp1252, which most are; so is one that declares ISO 8859-1, of which cp1252 has more signs.

    Raises:
        Refused: it is UTF-16 or UTF-32, or has NUL characters: it is no text file.
    """
    if content.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\x00" in content[:4096]:
        raise Refused("the file is no text in UTF-8 or in a Western encoding: save it as UTF-8; nothing was stored")
    for encoding in ("utf-8-sig", *_codec(declared), "cp1252", "latin-1"):
        try:
            return content.decode(encoding)
        except UnicodeError:
            continue
    raise AssertionError("unreachable")  # pragma: no cover


def _codec(declared: str) -> list[str]:
    """Python's codec of this name, if documents may have it: others take too long, or change the text."""
    try:
        name = codecs.lookup(declared).name
    except LookupError:
        return []
    return [name] if _CODECS.fullmatch(name) else []


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


def leading_day(text: str | None) -> date:
    """The day at the beginning of a text, as ISO 8601 writes it: with hyphens or without.

    Raises:
        BadRecord: `date_missing`, `date_unreadable`.
    """
    found = _ISO_DAY.match(text or "")
    if found is None:
        raise BadRecord("date_missing")
    return day(*found.groups())


def text(value: str | None) -> str | None:
    """A text with single spaces and without NUL characters; None if it is empty."""
    return " ".join((value or "").replace("\x00", "").split())[:_LONGEST] or None


def currency(code: str | None) -> str:
    """An ISO code. Raises `BadRecord` (`currency_missing`): the currency of a file is never guessed."""
    if not code or not re.fullmatch(r"[A-Z]{3}", code.strip()):
        raise BadRecord("currency_missing")
    return code.strip()


def order_of(cells: Sequence[str]) -> str:
    """The order of day and month; empty if all days can be read in two ways."""
    parts = [found.groups() for found in map(DAY.match, cells) if found]
    if parts and all(len(first) == 4 for first, *_ in parts):
        return "ymd"
    can_be = {"dmy": all(int(p[1]) <= 12 for p in parts), "mdy": all(int(p[0]) <= 12 for p in parts)}
    fitting = [order for order, can in can_be.items() if can]
    return fitting[0] if parts and len(fitting) == 1 else ""


def decimal_of(cells: Sequence[str]) -> str:
    """The sign before the decimals; empty if all amounts can be read in two ways."""
    votes = {cell[at] for cell in cells if (at := max(cell.rfind("."), cell.rfind(","))) >= 0 and len(cell) - at != 4}
    votes |= {max(".,", key=cell.rfind) for cell in cells if "." in cell and "," in cell}
    return votes.pop() if len(votes) == 1 else "" if votes or any(set(cell) & {".", ","} for cell in cells) else "."


def grouped_amount(text: str, decimal: str, field: str) -> Decimal:
    """An exact amount of which the sign before the decimals is known, with thousands in groups or not.

    Raises:
        BadRecord: `<field>_ambiguous`: it has another sign than that; `<field>_unreadable`, `<field>_missing`.
    """
    text = re.sub(r"[\s\u00a0\u202f]+", "", text.replace("\u2212", "-"))
    if _GROUPED[decimal].fullmatch(text):
        text = re.sub(rf"[^\d+\-{decimal}]", "", text)
    elif {".": ",", ",": "."}[decimal] in text:
        raise BadRecord(f"{field}_ambiguous")
    return money.checked(amount(text.replace(",", "."), field), field)


def ordered_day(text: str, order: str) -> date:
    """A day whose parts are in this order. Raises `BadRecord`: `date_missing`, `date_unreadable`."""
    found = DAY.match(text)
    if found is None:
        raise BadRecord("date_missing")
    parts = dict(zip(order, found.groups(), strict=True))
    if len(parts["y"]) not in (2, 4):
        raise BadRecord("date_unreadable")
    return day(parts["y"] if len(parts["y"]) == 4 else f"20{parts['y']}", parts["m"], parts["d"])

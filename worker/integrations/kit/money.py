"""Exact arithmetic with a provider's numbers, and checks of their currencies.

The default decimal context rounds to 28 digits, even for a unary minus. The functions here never round.
"""

from __future__ import annotations

import hashlib
import re
from decimal import Context, Decimal, Inexact, InvalidOperation, Overflow
from functools import lru_cache

from worker.errors import BadRecord

MAX_DIGITS = 40
_LIMIT = Decimal(10) ** 24
_MAX_PLACES = 30
_USUAL_LENGTH = 24  # a number whose text is this short is within all limits
EXACT = Context(prec=200, traps=[Inexact, InvalidOperation, Overflow])

ZERO = Decimal(0)
NO_CURRENCY = "XXX"
"""The code of ISO 4217 for "no currency"."""

_ISO_CODE = re.compile(r"[A-Z]{3}")
_UNOFFICIAL_CODE = re.compile(r"[A-Za-z0-9]{3,12}")  # `BTC`, `USDT`: there is no complete list of them


def checked(value: Decimal, field: str) -> Decimal:
    """`value`, if it is a possible amount of money or units.

    Raises:
        BadRecord: `<field>_not_finite`, `<field>_out_of_range` or `<field>_too_long`.
    """
    if len(text := str(value)) < _USUAL_LENGTH and "E" not in text and value.is_finite():
        return value
    if not value.is_finite():
        raise BadRecord(f"{field}_not_finite")
    if not -_LIMIT < value < _LIMIT:
        raise BadRecord(f"{field}_out_of_range")
    _, digits, exponent = value.as_tuple()
    if len(digits) > MAX_DIGITS or exponent < -_MAX_PLACES:  # type: ignore[operator]
        raise BadRecord(f"{field}_too_long")
    return value


def checked_or_none(value: Decimal | None, field: str) -> Decimal | None:
    """Like `checked`; None is returned unchanged."""
    return None if value is None else checked(value, field)


def positive(value: Decimal, field: str) -> Decimal:
    """Like `checked`, for numbers that must be above zero. Raises `BadRecord` (`<field>_not_positive`)."""
    if checked(value, field) <= 0:
        raise BadRecord(f"{field}_not_positive")
    return value


def negated(value: Decimal) -> Decimal:
    """The amount with the opposite sign, without rounding; zero stays without a sign."""
    return value.copy_negate() if value else ZERO


def product(*factors: Decimal) -> Decimal:
    """The product of all factors, without rounding."""
    total = Decimal(1)
    for factor in factors:
        total = EXACT.multiply(total, factor)
    return total


def total(values: list[Decimal]) -> Decimal:
    """The sum, without rounding."""
    result = ZERO
    for value in values:
        result = EXACT.add(result, value)
    return result


@lru_cache(maxsize=256)
def currency(iso: str | None, unofficial: str | None = None) -> str | None:
    """The currency's code; None if the record states none.

    Args:
        iso: three capital letters (ISO 4217).
        unofficial: three to twelve letters and digits, for currencies without an ISO code.

    Raises:
        BadRecord: `currency_malformed`.
    """
    code, pattern = (iso, _ISO_CODE) if iso else (unofficial, _UNOFFICIAL_CODE)
    if code and not pattern.fullmatch(code):
        raise BadRecord("currency_malformed")
    return code or None


def currency_or_address(given: str) -> str:
    """The code of a currency that must be stated, as an ISO code or as the address of a custom one.

    An address gets a code that is always the same for it and equals no other currency: `X` and ten hexadecimal digits.

    Raises:
        BadRecord: `currency_missing`, `currency_malformed`.
    """
    if "://" in given:
        return f"X{hashlib.blake2b(given.encode(errors='replace'), digest_size=5).hexdigest().upper()}"
    if code := currency(given):
        return code
    raise BadRecord("currency_missing")

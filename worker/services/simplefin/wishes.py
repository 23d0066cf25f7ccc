"""What an app asks for: the parameters of `/accounts`, read as leniently as existing apps need."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import ROUND_CEILING, Decimal

from worker.crud.simplefin.rows import Days
from worker.errors import BadArgument

NOON = 12 * 3600
"""The second of a day at which its rows are placed: noon in UTC is the same day in almost every time zone."""

_EPOCH = date(1970, 1, 1)
_DAY = 24 * 3600
_NUMBER = re.compile(r"-?[0-9]{1,18}(\.[0-9]{0,18})?")
_EARLIEST = -62_135_596_800  # the year 1
_LATEST = 253_402_300_799  # the end of the year 9999
_VERSIONS = {"": 1, "1": 1, "1.0": 1, "2": 2, "2.0": 2}
_MOST_ACCOUNTS = 500
_LONGEST_ID = 100


@dataclass(frozen=True, slots=True)
class Wish:
    """What an app asks for.

    Attributes:
        version: of the protocol, 1 or 2.
        days: days whose transactions are wanted.
        accounts: ids of the only accounts that are wanted; empty: all.
        pending: pending transactions, too.
        balances_only: no transactions.
        is_reversed: the app named an end before the start.
    """

    version: int = 1
    days: Days = Days()  # noqa: RUF009 - it is frozen
    accounts: tuple[str, ...] = ()
    pending: bool = False
    balances_only: bool = False
    is_reversed: bool = False


def read(
    *, version: str, start_date: str, end_date: str, pending: str, balances_only: str, accounts: Sequence[str]
) -> Wish:
    """Reads the parameters; each is "" if it was not given.

    Raises:
        BadArgument: a date or the version cannot be understood.
    """
    if version.strip() not in _VERSIONS:
        raise BadArgument("version must be 1 or 2; nothing was read")
    if len(accounts) > _MOST_ACCOUNTS or any(len(one) > _LONGEST_ID for one in accounts):
        raise BadArgument(
            f"account may be given {_MOST_ACCOUNTS} times, with {_LONGEST_ID} characters; nothing was read"
        )
    start, end = _seconds("start-date", start_date), _seconds("end-date", end_date)
    first = date.min if start is None else _day_from(start)
    last = date.max if end is None else _day_before(end)
    return Wish(
        version=_VERSIONS[version.strip()],
        days=Days(first, last),
        accounts=tuple(dict.fromkeys(accounts)),
        pending=pending == "1",
        balances_only=balances_only == "1",
        is_reversed=start is not None and end is not None and end < start,
    )


def seconds(day: date) -> int:
    """Seconds since 1970 at which a row of this day is placed."""
    return (day - _EPOCH).days * _DAY + NOON


def _seconds(name: str, given: str) -> Decimal | None:
    if not given.strip():
        return None
    if not _NUMBER.fullmatch(given.strip()):
        raise BadArgument(f"{name} must be seconds since 1970, for example 1741132800; nothing was read")
    found = Decimal(given.strip())
    if not _EARLIEST <= found <= _LATEST:
        raise BadArgument(f"{name} must be seconds since 1970 (are these milliseconds?); nothing was read")
    return found


def _day_from(start: Decimal) -> date:
    """The first day whose rows are not before `start`."""
    return _day(_days_up_to(start))


def _day_before(end: Decimal) -> date:
    """The last day whose rows are before `end`."""
    return _day(_days_up_to(end) - 1)


def _days_up_to(moment: Decimal) -> int:
    return int(((moment - NOON) / _DAY).to_integral_value(ROUND_CEILING))


def _day(days: int) -> date:
    try:
        return _EPOCH + timedelta(days=days)
    except OverflowError:
        return date.min if days < 0 else date.max

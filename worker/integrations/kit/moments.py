"""Checks of a provider's dates and times: Postgres must be able to store and return them in every time zone."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

from worker.errors import BadRecord

_DAY_HAS_BEGUN = time(0, 5)
_FIRST_YEAR, _LAST_YEAR = 2, 9998
"""Python supports the years 1 to 9999. In another time zone, a time near these limits may fall into 1 BC or the year
10000, which Postgres can store but psycopg cannot read."""


def day(value: date, field: str) -> date:
    """`value`, if its year is not at the limits of the calendar.

    Raises:
        BadRecord: `<field>_out_of_range`.
    """
    if _FIRST_YEAR <= value.year <= _LAST_YEAR:
        return value
    raise BadRecord(f"{field}_out_of_range")


def flagged(moment: datetime | None, field: str, flags: tuple[str, ...]) -> tuple[datetime | None, tuple[str, ...]]:
    """A time in UTC, and the record's flags, with one more if the time had no offset.

    Raises:
        BadRecord: `<field>_out_of_range`.
    """
    if moment is None:
        return None, flags
    if moment.tzinfo is None and "time_without_zone" not in flags:
        flags = (*flags, "time_without_zone")
    return in_utc(moment, field), flags


def of_text(text: str | None, field: str) -> datetime | None:
    """A time, or the beginning of a day, as ISO 8601 writes it, in UTC; None for None and for an empty text.

    Raises:
        BadRecord: `<field>_unreadable`, `<field>_out_of_range`.
    """
    if not text:
        return None
    try:
        return in_utc(datetime.fromisoformat(text), field)
    except ValueError:
        raise BadRecord(f"{field}_unreadable") from None


def of_text_or_none(text: str | None) -> datetime | None:
    """Like `of_text`, for a time that need not be known: None also for one that cannot be read."""
    try:
        return of_text(text, "time")
    except BadRecord:
        return None


def in_utc(moment: datetime, field: str) -> datetime:
    """The same moment in UTC; one without an offset is taken as UTC.

    Raises:
        BadRecord: `<field>_out_of_range`.
    """
    if not _FIRST_YEAR <= moment.year <= _LAST_YEAR:
        raise BadRecord(f"{field}_out_of_range")
    if moment.tzinfo is UTC:
        return moment
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def until_next_day(now: datetime, zone: str) -> timedelta:
    """How long it takes until the next day has begun in a time zone, for limits that are counted by its day."""
    there = ZoneInfo(zone)
    tomorrow = now.astimezone(there).date() + timedelta(days=1)
    return datetime.combine(tomorrow, _DAY_HAS_BEGUN, there) - now


def of_seconds(seconds: Decimal | None, field: str) -> datetime | None:
    """The moment so many seconds after 1970 in UTC; None for None and for zero, which stands for "not known".

    Raises:
        BadRecord: `<field>_out_of_range`.
    """
    if not seconds:
        return None
    try:
        return in_utc(datetime.fromtimestamp(float(seconds), UTC), field)
    except (ValueError, OverflowError, OSError):
        raise BadRecord(f"{field}_out_of_range") from None

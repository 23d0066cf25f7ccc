"""Feeds that are read by date: the next days to ask for, and the cursor that says how far a feed was read."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta

import msgspec

from worker.integrations.kit.base import SyncRequest, Window


class DateCursor(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The cursor of a feed that is read by date.

    Attributes:
        through: every day up to this one was read at least once.
        since: first day of a requested re-read that is not finished; with it, an interrupted re-read can resume.
        window: first and last day of an unfinished window that is read by offset.
        offset: number of rows of that window that were read.
        total: number of rows that the window had.
        tail: identity of the last row that was read.
    """

    through: date | None = None
    since: date | None = None
    window: tuple[date, date] | None = None
    offset: int = 0
    total: int = 0
    tail: str = ""

    @classmethod
    def parse(cls, text: str | None) -> DateCursor:
        """Reads a stored cursor. If it cannot be read, the feed starts again, which takes time but loses nothing."""
        try:
            return msgspec.json.decode(text or "{}", type=cls)
        except msgspec.DecodeError:
            return cls()

    def __str__(self) -> str:
        """The text in which the cursor is stored."""
        return msgspec.json.encode(self).decode()


def first_day(cursor: DateCursor, request: SyncRequest) -> date:
    """The day at which reading continues: the last day read minus the overlap for late changes; never after `since`."""
    goes_on = _first_unread(cursor, request)
    if request.since is not None and cursor.since != request.since:
        return min(request.since, goes_on)
    return goes_on


def _first_unread(cursor: DateCursor, request: SyncRequest) -> date:
    today = request.now.date()
    if cursor.window is not None:
        return cursor.window[0]
    if cursor.through is None:
        return today - request.backfill
    if cursor.since is not None:  # in a re-read, no overlap is needed: the day before was just read
        return min(cursor.through + timedelta(days=1), today)
    return min(cursor.through, today) - request.overlap


def after(day: date, request: SyncRequest) -> DateCursor:
    """The cursor after everything up to `day` was read."""
    finished = day >= request.now.date()
    return DateCursor(through=day, since=None if finished else request.since)


def at_offset(
    cursor: DateCursor, request: SyncRequest, window: tuple[date, date], offset: int = 0, total: int = 0, tail: str = ""
) -> DateCursor:
    """The cursor for a position in a window that is read by offset."""
    return DateCursor(
        through=cursor.through,
        since=request.since or cursor.since,
        window=window,
        offset=offset,
        total=total,
        tail=tail,
    )


def window_from(first: date, request: SyncRequest, longest: timedelta) -> tuple[date, date]:
    """The window that begins on `first`. It is as long as the request allows and ends today at the latest."""
    days = max(min(request.window, longest).days, 1)
    return first, min(first + timedelta(days=days - 1), request.now.date())


def in_seconds(window: tuple[date, date]) -> tuple[str, str]:
    """The seconds after 1970 at which a window begins, and at which the day after it begins, in UTC."""
    first, end = (datetime.combine(day, time(), UTC) for day in (window[0], window[1] + timedelta(days=1)))
    return str(int(first.timestamp())), str(int(end.timestamp()))


def remaining(feed: str, request: SyncRequest, longest: timedelta) -> Iterator[tuple[date, date]]:
    """The windows of a feed that are still to be read, oldest first; none if an earlier run read the feed to its end.

    Args:
        feed: the feed's name in `request.cursors`.
        request: the request of the sync.
        longest: the longest time span that the provider allows in one request.
    """
    if feed in request.done:
        return
    first = first_day(DateCursor.parse(request.cursors.get(feed)), request)
    while first <= request.now.date():
        window = window_from(first, request, longest)
        yield window
        first = window[1] + timedelta(days=1)


def surely_listed(
    account_key: str, window: tuple[date, date], request: SyncRequest, *, posted: bool = False
) -> tuple[Window, ...]:
    """The days for which an answer certainly lists every row, if it is unknown in which zone the provider's days begin.

    So the first and the last day are not included; only today is included as the last day, because no row is later.

    Args:
        account_key: the account.
        window: the first and the last day that were asked for.
        request: the request of the sync.
        posted: stored posted rows that are not listed are withdrawn, too.
    """
    first, last = window[0] + timedelta(days=1), window[1]
    if last < request.now.date():
        last -= timedelta(days=1)
    return (Window(account_key, first, last, posted),) if first <= last else ()

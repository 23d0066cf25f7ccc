"""Feeds by date: which days to ask for next, and the cursor that says how far they were read."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta

import msgspec

from worker.integrations.kit.base import SyncRequest


class DateCursor(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How far a feed by date was read.

    Attributes:
        through: every day up to this one was read at least once.
        since: set while a re-read that somebody asked for is under way, so that it resumes where it broke off.
        window: days of a window that is read by offset and not finished.
        offset: rows of that window that were read.
        total: rows that the window had.
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
        """A stored cursor; one that cannot be read starts the feed again, which only costs time."""
        try:
            return msgspec.json.decode(text or "{}", type=cls)
        except msgspec.DecodeError:
            return cls()

    def __str__(self) -> str:
        """The cursor as stored."""
        return msgspec.json.encode(self).decode()


def first_day(cursor: DateCursor, request: SyncRequest) -> date:
    """Where reading goes on: after what was read, less the overlap that catches late changes; never after `since`."""
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
    if cursor.since is not None:  # within a re-read: the day before was read a moment ago
        return min(cursor.through + timedelta(days=1), today)
    return min(cursor.through, today) - request.overlap


def after(day: date, request: SyncRequest) -> DateCursor:
    """The cursor once everything up to `day` was read."""
    finished = day >= request.now.date()
    return DateCursor(through=day, since=None if finished else request.since)


def at_offset(
    cursor: DateCursor, request: SyncRequest, window: tuple[date, date], offset: int = 0, total: int = 0, tail: str = ""
) -> DateCursor:
    """The cursor within a window that is read by offset."""
    return DateCursor(
        through=cursor.through,
        since=request.since or cursor.since,
        window=window,
        offset=offset,
        total=total,
        tail=tail,
    )


def window_from(first: date, request: SyncRequest, longest: timedelta) -> tuple[date, date]:
    """The window that begins on `first`: as long as the request allows, not beyond today."""
    days = max(min(request.window, longest).days, 1)
    return first, min(first + timedelta(days=days - 1), request.now.date())


def remaining(feed: str, request: SyncRequest, longest: timedelta) -> Iterator[tuple[date, date]]:
    """The windows that a feed by date has still to read, oldest first; none if an earlier run has read it to its end.

    Args:
        feed: its name among the cursors.
        request: the sync.
        longest: most days that the provider answers at once.
    """
    if feed in request.done:
        return
    first = first_day(DateCursor.parse(request.cursors.get(feed)), request)
    while first <= request.now.date():
        window = window_from(first, request, longest)
        yield window
        first = window[1] + timedelta(days=1)

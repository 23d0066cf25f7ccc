"""Reads lists by offset that may change while they are read, in windows of days.

A row that is added at the front of such a list moves all others: the next page begins with a row of the page before it.
A row that goes makes the next page leave one out. So the pages of a list are put together only if they have as many
rows as the provider states, and none of them twice.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from datetime import date, timedelta

import msgspec

from worker.errors import BadPayload

Window = tuple[date, date]
Ask = Callable[[Window, int], Awaitable[tuple[list[msgspec.Raw], int]]]
"""Asks for the rows of a window from an offset on; returns them, and how many rows the window has."""
IdOf = Callable[[msgspec.Raw], Hashable]
"""The identity of a row; None for a row that has none."""

_TRIES = 3
_MOST_CALLS = 200
_MOST_ROWS = 5000
_ONE_DAY = timedelta(days=1)


async def windows(ask: Ask, id_of: IdOf, first: date, last: date) -> AsyncIterator[tuple[Window, list[msgspec.Raw]]]:
    """The windows from `first` to `last`, oldest first, each with all of its rows.

    A window is as long as possible: only one with more than 5,000 rows is read in halves. So there are few calls, where
    a provider limits calls rather than days.

    Raises:
        BadPayload: `total_does_not_fit`: a window changed at each of three attempts, or its total is not that of its
            rows. No row of it may be used.
    """
    span = last - first + _ONE_DAY
    while first <= last:
        window = first, min(first + span - _ONE_DAY, last)
        rows = await _whole(ask, id_of, window)
        if rows is None:
            span = (window[1] - window[0] + _ONE_DAY) // 2
            continue
        yield window, rows
        first = window[1] + _ONE_DAY


async def _whole(ask: Ask, id_of: IdOf, window: Window) -> list[msgspec.Raw] | None:
    """All rows of a window; None if there are too many. A single day is always read."""
    for _ in range(_TRIES):
        rows, total = await ask(window, 0)
        if total > _MOST_ROWS and window[0] < window[1]:
            return None
        if await _completed(ask, window, rows, total) and _are_distinct(rows, id_of):
            return rows
    raise BadPayload("total_does_not_fit")


async def _completed(ask: Ask, window: Window, rows: list[msgspec.Raw], total: int) -> bool:
    """Adds the rows of the other pages. Returns whether they are as many as stated."""
    for _ in range(_MOST_CALLS):
        if len(rows) >= total:
            break
        more, now = await ask(window, len(rows))
        if now != total or not more:
            return False
        rows += more
    return len(rows) == total


def _are_distinct(rows: list[msgspec.Raw], id_of: IdOf) -> bool:
    ids = [id_ for id_ in map(id_of, rows) if id_ is not None]
    return len(ids) == len(set(ids))

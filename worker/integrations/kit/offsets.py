"""Reads lists by offset that may change while they are read.

A row that is added at the front of such a list moves all others: the next page begins with a row of the page before it.
A row that goes makes the next page leave one out. So the pages of a list are put together only if they have as many
rows as the provider states, and none of them twice.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable

import msgspec

from worker.errors import BadPayload

Ask = Callable[[int], Awaitable[tuple[list[msgspec.Raw], int]]]
"""Asks for the rows from an offset on; returns them, and how many rows the whole list has."""

_TRIES = 3
_MOST_CALLS = 200


async def whole(ask: Ask, id_of: Callable[[msgspec.Raw], Hashable], *, most: int | None = None) -> list[msgspec.Raw]:
    """All rows of a list.

    Args:
        ask: asks for one page.
        id_of: the identity of a row; None for a row that has none.
        most: a list with more rows is not read.

    Raises:
        TooLongError: the list has more rows than `most`.
        BadPayload: `total_does_not_fit`: the list changed at each of three attempts, or its total is not that of its
            rows. No row of it may be used.
    """
    for _ in range(_TRIES):
        rows = await _once(ask, most)
        if rows is not None and _are_distinct(rows, id_of):
            return rows
    raise BadPayload("total_does_not_fit")


class TooLongError(Exception):
    """The list has more rows than are wanted at once."""


async def _once(ask: Ask, most: int | None) -> list[msgspec.Raw] | None:
    """The rows of all pages; None if they are not as many as stated."""
    rows, total = await ask(0)
    if most is not None and total > most:
        raise TooLongError
    for _ in range(_MOST_CALLS):
        if len(rows) >= total:
            break
        more, now = await ask(len(rows))
        if now != total or not more:
            return None
        rows = [*rows, *more]
    return rows if len(rows) == total else None


def _are_distinct(rows: list[msgspec.Raw], id_of: Callable[[msgspec.Raw], Hashable]) -> bool:
    ids = [id_ for id_ in map(id_of, rows) if id_ is not None]
    return len(ids) == len(set(ids))

"""The change feed: every change of accounts, balances, positions and transactions, for programs that keep a copy.

A reader that stores the cursor after the rows misses nothing. Each state of a row is told at least once; a state that
was overwritten before it was read is told as the newer one. `docs/feed.md` says more.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID

import msgspec

from worker.crud.database import OpenTransaction
from worker.crud.feed import log, positions, rows
from worker.crud.feed.positions import Here
from worker.errors import BadArgument
from worker.models.feed import STATES, Change, Changes, Items, Page, State
from worker.models.feed_cursor import Cursor, Loading
from worker.services.context import Context

_LONGEST_QUIET_SECONDS = 3600.0
"""So long the cursor of a reader for whom nothing is new stays the same; then a newer one keeps it from expiring."""

_decoders = {noun: msgspec.json.Decoder(list[Change[state]]) for noun, state in STATES.items()}  # type: ignore[valid-type]


async def changes(
    runtime: Context, *, user_id: UUID | None = None, cursor: str | None = None, limit: int = 5000
) -> AsyncIterator[Changes]:
    """All changes up to now, some at a time. Store the rows of each slice and then its cursor.

    The last slice may be empty; its cursor is the one to begin with the next time.

    Args:
        runtime: the process's context.
        user_id: whose changes; None for those of all users.
        cursor: `Changes.cursor` of the last slice that was stored; None to begin with all rows.
        limit: the most changes in one slice.

    Raises:
        BadArgument: the cursor is damaged, or `limit` is not positive.
        NotPermitted: it is a cursor of another user's feed.
        CursorLost: the changes after it cannot be told any more; begin without a cursor.
        Unavailable: Postgres is out of reach; go on with the last cursor.
    """
    reading = _begin(runtime, user_id, cursor, limit)
    try:
        has_more = True
        while has_more:
            found = await reading
            has_more = found.has_more
            if has_more:  # is read while this slice is decoded and stored
                reading = _begin(runtime, user_id, found.cursor, limit)
            yield Changes([change for items in found.items for change in _decoded(items)], found.cursor, has_more)
    finally:
        reading.cancel()


def _begin(runtime: Context, user_id: UUID | None, cursor: str | None, limit: int) -> asyncio.Task[Page]:
    return asyncio.create_task(page(runtime, user_id=user_id, cursor=cursor, limit=limit))


def _decoded(items: Items) -> list[Change[State]]:
    found: list[Change[State]] = _decoders[items.noun].decode(b"[%b]" % items.json)
    return found


async def page(runtime: Context, *, user_id: UUID | None, cursor: str | None, limit: int) -> Page:
    """One slice with rows as JSON. Takes and raises what `changes` does."""
    if limit < 1:
        raise BadArgument(f"limit is {limit}; it must be 1 or more. Nothing was read")
    given = None if cursor is None else Cursor.parse(cursor)

    def read(session: OpenTransaction) -> Page:
        now = positions.here(session, read=None if given is None else given.read)
        if given is None:
            start = Loading()
            begun = Cursor(now.origin, now.place, user_id, now.origin, now.now.timestamp(), now.ended, loading=start)
        else:
            positions.check(given, now, user_id=user_id)
            begun = given
        items, after = _read(session, begun, now, limit)
        is_at_end = after.loading is None and after.xid == now.ended
        is_quiet = is_at_end and not any(one.count for one in items)
        if cursor is not None and is_quiet and after.at - begun.at < _LONGEST_QUIET_SECONDS:
            return Page([], cursor, has_more=False)
        positions.check_again(session, begun)
        noted = msgspec.structs.replace(after, read=positions.note_reading(session))
        return Page(items, str(noted), has_more=not is_at_end)

    return await runtime.db(read)


def _read(session: OpenTransaction, begun: Cursor, now: Here, limit: int) -> tuple[list[Items], Cursor]:
    """The changes after a cursor, and the cursor after them."""
    items: list[Items] = []
    count = 0
    if begun.loading is not None:
        loaded = rows.load(session, begun.loading, user_id=begun.user_id, limit=limit)
        items, count = loaded.items, loaded.count
        begun = msgspec.structs.replace(begun, loading=loaded.following)
        if loaded.following is not None or count == limit:
            return items, begun
    found = log.read(session, begun, ended=now.ended, limit=limit - count)
    at = now.now if found.at is None else found.at
    after = msgspec.structs.replace(
        begun, xid=found.xid, sequence=found.sequence, offset=found.offset, at=at.timestamp()
    )
    return items + found.items, after


__all__ = ["Change", "Changes", "changes", "page"]

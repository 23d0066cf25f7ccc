"""Positions in the log of changes: what has surely ended, whether a cursor is still good, and cursors for others.

A transaction takes its number when it first writes, and may commit long after later ones. So the log is read only up to
the oldest transaction that has not ended (`pg_snapshot_xmin`): below it nothing can be added any more.

A cursor also stands for everything that its reader has seen. This may be lost: a crash can undo commits that did not
wait for the disk, a standby may lack the last ones, and a backup is of an earlier time. Each reading therefore stores a
row at its end and waits for the disk. Postgres loses only what was committed last. As long as that row is there, all
that was committed before it is there, too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from worker.errors import NotPermitted
from worker.models.base import new_id
from worker.models.feed_cursor import Cursor, CursorAhead, CursorElsewhere, CursorExpired, CursorRestored

_HERE = text(
    """
    SELECT o.id, o.epoch, o.kept_from, clock_timestamp(),
        pg_snapshot_xmin(s.here)::text::bigint, pg_snapshot_xmax(s.here)::text::bigint,
        (SELECT system_identifier FROM pg_control_system()),
        (SELECT oid::bigint FROM pg_database WHERE datname = current_database()),
        'public.change_log'::regclass::oid::bigint,
        EXISTS (SELECT FROM change_reads WHERE id = :read)
    FROM (SELECT pg_current_snapshot() AS here) AS s LEFT JOIN change_origin o ON true
    """
)
_IDENTIFY = text("INSERT INTO change_origin DEFAULT VALUES ON CONFLICT DO NOTHING")
_KEPT_FROM = text("SELECT max(kept_from) FROM change_origin")
_NOTE = text("INSERT INTO change_reads (id) VALUES (:id)")


_FIRST = text("SELECT min(xid) FROM change_log WHERE user_id = :user_id AND at >= :since")
_CLOCKS_DIFFER = timedelta(seconds=1)
"""By at most so much a worker's reading of the database's clock differs from that clock."""


class Here(NamedTuple):
    """The log as it is now.

    Attributes:
        ended: all transactions with a lower number have ended.
        following: no transaction with this number or a higher one has begun.
        place: digest of what tells this database from its copies: the server's identifier, which each `initdb` makes;
            the number of the database and of the log's table, which each restored dump makes anew; and the epoch.
        has_read: whether the reading is stored that was asked for.
    """

    origin: UUID
    kept_from: datetime | None
    now: datetime
    ended: int
    following: int
    place: bytes
    has_read: bool


def here(session: Session, *, read: UUID | None = None) -> Here:
    """The log as it is now. With `read`, whether this reading is stored."""
    found = session.execute(_HERE, {"read": read}).one()
    if found[0] is None:  # somebody has deleted the row: then all cursors are those of another log
        session.execute(_IDENTIFY)
        found = session.execute(_HERE, {"read": read}).one()
    origin, epoch, kept_from, now, ended, following, system, database, table, has_read = found
    place = hashlib.blake2b(f"{system} {database} {table} {epoch}".encode(), digest_size=8).digest()
    return Here(origin, kept_from, now, ended, following, place, has_read)


def check(cursor: Cursor, now: Here, *, user_id: UUID | None) -> None:
    """Raises an error unless all changes after the cursor can be told.

    Args:
        cursor: what the reader kept.
        now: with `has_read` for `cursor.read`.
        user_id: whose feed is read; None for that of all.

    Raises:
        NotPermitted: it is a cursor of another user's feed.
        CursorElsewhere, CursorRestored, CursorAhead, CursorExpired: see there.
    """
    if cursor.user_id != user_id:
        raise NotPermitted("this cursor was given for another user's rows; use it with a key of the same user")
    if cursor.origin != now.origin:
        raise CursorElsewhere("this cursor was given by another database")
    if cursor.place != now.place:
        raise CursorRestored("this cursor was given before this database was restored from a dump or emptied")
    if cursor.xid > now.following:
        raise CursorAhead(
            "this cursor is ahead of this database, which was probably restored to an earlier state after the cursor"
            " was given"
        )
    _require_kept(cursor, now.kept_from)
    if not now.has_read:
        raise CursorRestored("this cursor was given before this database went back to an earlier state")


def check_again(session: Session, cursor: Cursor) -> None:
    """Raises `CursorExpired` if upkeep has deleted a part of the log while it was read."""
    _require_kept(cursor, session.execute(_KEPT_FROM).scalar_one())


def _require_kept(cursor: Cursor, kept_from: datetime | None) -> None:
    if kept_from is not None and cursor.at < kept_from.timestamp():
        raise CursorExpired("this cursor is too old: a part of the changes after it is no longer kept")


def note_reading(session: Session) -> UUID:
    """Stores that a reading has taken place; it must be the last statement before the commit. Returns its id."""
    id_ = new_id()
    session.execute(_NOTE, {"id": id_})
    return id_


def cursors_before(session: Session, *, since: datetime, user_id: UUID) -> Callable[[UUID | None], str]:
    """Cursors of a position before all that was logged of a user since a time, and before all that has not ended.

    They are good when this transaction has committed with `synchronous_commit` on.

    Returns:
        Gives the cursor for the feed of one user, or for that of all.
    """
    now = here(session)
    first = session.execute(_FIRST, {"user_id": user_id, "since": since - _CLOCKS_DIFFER}).scalar_one()
    read, xid = note_reading(session), min(now.ended, now.ended if first is None else first)
    return lambda whose: str(Cursor(now.origin, now.place, whose, read, since.timestamp(), xid))

"""Cursors: the position of each feed of a provider, and undoing a loop."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from worker.crud.sync.apply import driver
from worker.models import SyncCursor, SyncUndo, Transaction


def read_cursors(session: Session, *, provider_id: UUID) -> dict[str, str]:
    """The committed cursor of each feed."""
    rows = session.execute(select(SyncCursor.feed, SyncCursor.cursor).where(SyncCursor.provider_id == provider_id))
    return {feed: cursor for feed, cursor in rows if cursor}


def feeds_read_since(session: Session, *, provider_id: UUID, since: datetime) -> frozenset[str]:
    """Feeds that were read to the end after `since`."""
    found = select(SyncCursor.feed).where(
        SyncCursor.provider_id == provider_id, SyncCursor.updated_at >= since, SyncCursor.loop_id.is_(None)
    )
    return frozenset(session.scalars(found))


def forget_cursors(session: Session, *, provider_id: UUID, keep: frozenset[str]) -> None:
    """Sets all feeds except `keep` back to their beginning. Rows are kept; they are unchanged when listed again.

    Open loops end without being undone.
    """
    session.execute(delete(SyncUndo).where(SyncUndo.provider_id == provider_id))
    session.execute(delete(SyncCursor).where(SyncCursor.provider_id == provider_id, SyncCursor.feed.not_in(keep)))


def restart_loop(session: Session, *, provider_id: UUID, feed: str, reading_id: UUID | None) -> bool:
    """Undoes all that the open loop of a feed did, and sets the feed back to where the loop began.

    The caller must hold the run's fence; `reading_id` is that of a full sync. False when no loop was open, so
    that there was nothing to undo.
    """
    cursor = session.get(SyncCursor, (provider_id, feed))
    if cursor is None or cursor.loop_id is None:
        return False
    loop_id = cursor.loop_id
    connection = driver(session)
    connection.execute(
        "DELETE FROM transactions t USING accounts a"
        " WHERE a.provider_id = %s AND t.account_id = a.id AND t.loop_id = %s",
        (provider_id, loop_id),
    )
    connection.execute(_PUT_BACK, (loop_id,))
    connection.execute("DELETE FROM sync_undo WHERE loop_id = %s", (loop_id,))
    connection.execute("DELETE FROM sync_seen WHERE generation = %s AND loop_id = %s", (reading_id, loop_id))
    if cursor.loop_cursor:
        cursor.cursor, cursor.loop_cursor, cursor.loop_id = cursor.loop_cursor, None, None
    else:
        session.delete(cursor)
    session.flush()
    return True


_COLUMNS = [column.name for column in Transaction.__table__.columns if column.name != "id"]
_PUT_BACK = (  # every row to restore still exists: the statement above deleted only rows that the loop had inserted
    "UPDATE transactions t SET "  # noqa: S608 - names of our own columns
    + ", ".join(f"{name} = b.{name}" for name in _COLUMNS)
    + " FROM sync_undo u, jsonb_populate_record(NULL::transactions, u.before) b"
    " WHERE u.loop_id = %s AND t.id = u.transaction_id"
)

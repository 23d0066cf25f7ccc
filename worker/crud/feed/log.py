"""The log of changes: reading it after a position, up to the oldest transaction that has not ended, and pruning it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import text
from sqlalchemy.orm import Session

from worker.crud.feed import rows
from worker.crud.feed.rows import Part
from worker.models.feed import Items, Noun
from worker.models.feed_cursor import Cursor

_AFTER = "(xid, sequence) >= (:xid, :sequence) AND xid < :ended"
_COLUMNS = "xid, sequence, noun, cardinality(ids) AS size, at"
_OF_ALL = text(f"SELECT {_COLUMNS} FROM change_log WHERE {_AFTER} ORDER BY xid, sequence LIMIT :most")  # noqa: S608
# Securities belong to nobody. Two conditions joined by OR could not be read in the order of the index.
_OF_USER = text(
    f"""
    SELECT * FROM (
        (SELECT {_COLUMNS} FROM change_log WHERE user_id = :user_id AND {_AFTER} ORDER BY xid, sequence LIMIT :most)
        UNION ALL
        (SELECT {_COLUMNS} FROM change_log WHERE user_id IS NULL AND {_AFTER} ORDER BY xid, sequence LIMIT :most)
    ) AS found ORDER BY xid, sequence LIMIT :most
    """  # noqa: S608 - made of the constants above
)
_FEWEST, _MOST = 16, 1024
SLACK = timedelta(days=1)
"""Longer than any transaction lasts: a row can be logged this long before its transaction ends."""


class Logged(NamedTuple):
    """Changes after a position.

    Attributes:
        xid, sequence, offset: the position after them.
        at: everything that was logged before this time was told; None if everything was.
    """

    items: list[Items]
    xid: int
    sequence: int = 0
    offset: int = 0
    at: datetime | None = None


def read(session: Session, cursor: Cursor, *, ended: int, limit: int) -> Logged:
    """At most `limit` changes after the cursor, each row once, as it is now."""
    parts: dict[str, list[Part]] = {}
    xid, sequence, offset = cursor.xid, cursor.sequence, cursor.offset
    query = _OF_ALL if cursor.user_id is None else _OF_USER
    at: datetime | None = None
    is_full, most, room = False, _FEWEST, limit
    while not is_full:
        values = {"xid": xid, "sequence": sequence, "ended": ended, "user_id": cursor.user_id, "most": most}
        entries: Sequence[Any] = session.execute(query, values).all()
        for entry in entries:
            begun = offset if (entry.xid, entry.sequence) == (xid, sequence) else 0
            left = max(entry.size - begun, 0)
            taken = min(left, room)
            if taken:
                parts.setdefault(entry.noun, []).append(Part(entry.xid, entry.sequence, begun + 1, begun + taken))
            if left > room:
                xid, sequence, offset, at, is_full = entry.xid, entry.sequence, begun + room, entry.at, True
                break
            room -= taken
            xid, sequence, offset = entry.xid, entry.sequence + 1, 0
        if len(entries) < most:
            break
        most = min(2 * most, _MOST)
    items = [rows.changed(session, noun, parts[noun], user_id=cursor.user_id) for noun in Noun if noun in parts]
    return Logged(items, xid, sequence, offset, at) if is_full else Logged(items, ended)


TABLES = ("change_log", "change_reads")
"""Tables whose old rows `remove_old` deletes."""
_IS_OLD, _DELETE = (
    {table: text(statement.format(table=table)) for table in TABLES}
    for statement in (
        "SELECT EXISTS (SELECT FROM {table} WHERE at < :before)",
        "DELETE FROM {table} WHERE ctid = ANY(ARRAY("
        "SELECT ctid FROM {table} WHERE at < :before ORDER BY at LIMIT :limit FOR UPDATE SKIP LOCKED))",
    )
)
_KEPT_FROM = text("UPDATE change_origin SET kept_from = :kept_from WHERE kept_from IS NULL OR kept_from < :kept_from")


def remove_old(session: Session, *, table: str, before: datetime, limit: int) -> int:
    """Deletes at most `limit` rows of `TABLES` that are a day older than `before`. Returns how many.

    If there are such rows, cursors of before `before` are refused from now on.
    """
    oldest = before - SLACK
    if not session.execute(_IS_OLD[table], {"before": oldest}).scalar_one():
        return 0
    session.execute(_KEPT_FROM, {"kept_from": before})
    return int(getattr(session.execute(_DELETE[table], {"before": oldest, "limit": limit}), "rowcount", 0))

"""Reads what changed since a position, from the tables themselves: whoever writes them need not write more.

Each row version has the number of the transaction that wrote it (`xmin`). A change is new to a reader when the reader's
snapshot has not seen this transaction. Indexes limit the search to recent rows. No writer uses savepoints, whose
numbers a snapshot does not list.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from worker.models.changes import Change, Position

_EPOCH = 4_294_967_296

# xmin has the lower 32 bits of the number; the reader's own snapshot has the others.
_NUMBER = f"""(x.before_epoch + {{row}}.xmin::text::bigint
    - CASE WHEN x.before_epoch + {{row}}.xmin::text::bigint >= x.next_number THEN {_EPOCH} ELSE 0 END)"""
_NEW = "NOT pg_visible_in_snapshot(({number})::text::xid8, CAST(:seen AS pg_snapshot))"


def _branch(kind: str, row: str, source: str, data: dict[str, str], recent: str, moment: str) -> str:
    number = _NUMBER.format(row=row)
    pairs = ", ".join(f"'{name}', {value}" for name, value in data.items())
    return f"""
        SELECT '{kind}' AS kind, p.user_id, {number} AS number, {moment} AS at, {row}.id,
            jsonb_build_object('id', {row}.id, 'provider_id', {row}.provider_id, 'provider_key', p.provider_key,
                'alias', p.alias, {pairs}) AS data
        FROM {source} WHERE {recent} AND {_NEW.format(number=number)}
    """  # noqa: S608 - made of the constants below


_RUNS = _branch(
    "run",
    "r",
    "sync_runs r JOIN providers p ON p.id = r.provider_id",
    {name: f"r.{name}" for name in ("status", "trigger", "mode", "started_at", "finished_at")}
    | {name: f"r.{name}" for name in ("pages", "added", "changed", "removed", "unchanged", "quarantined")}
    | {"error": "r.error", "reason": "r.error_reason"},
    "(r.started_at >= :runs_since OR r.status = 'running')",
    "coalesce(r.finished_at, r.heartbeat_at)",
)
_UNSETTLED = _branch(
    "run",
    "u",
    "unsettled_runs u JOIN providers p ON p.id = u.provider_id",
    {"status": "'running'", "trigger": "'schedule'", "mode": "'incremental'", "started_at": "u.started_at"}
    | dict.fromkeys(("pages", "added", "changed", "removed", "unchanged", "quarantined"), "0")
    | dict.fromkeys(("finished_at", "error", "reason"), "NULL"),
    "true",
    "u.heartbeat_at",
)
_REFRESHES = _branch(
    "refresh",
    "t",
    "token_refreshes t JOIN providers p ON p.id = t.provider_id",
    {name: f"t.{name}" for name in ("status", "trigger", "started_at", "finished_at", "error", "reason")},
    "t.started_at >= :refreshes_since",
    "coalesce(t.finished_at, t.started_at)",
)
_LOGINS = _branch(
    "login",
    "a",
    "provider_audit_logs a LEFT JOIN providers p ON p.id = a.provider_id",
    {"action": "a.action", "status": "p.status", "reason": "a.reason", "at": "a.created_at"},
    "a.id >= CAST(:entries_since AS uuid) AND a.action NOT LIKE 'api!_key!_%' ESCAPE '!'",
    "a.created_at",
)
_HERE = """
    SELECT pg_current_snapshot()::text AS snapshot, clock_timestamp() AS now,
        pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS next_number
"""
_CHANGES = text(
    f"""
    SELECT s.snapshot, s.now, c.kind, c.user_id, c.number, c.data
    FROM ({_HERE}) AS s
    CROSS JOIN LATERAL (SELECT s.next_number, s.next_number / {_EPOCH} * {_EPOCH} AS before_epoch) AS x
    LEFT JOIN LATERAL (
        SELECT * FROM ({_RUNS} UNION ALL {_UNSETTLED} UNION ALL {_REFRESHES} UNION ALL {_LOGINS}) AS found
        ORDER BY at, id LIMIT :most
    ) AS c ON true
    """  # noqa: S608 - made of the constants above
)
_NOW = text(_HERE)


@dataclass(frozen=True, slots=True)
class Reach:
    """How long before a change its row may have been begun.

    Attributes:
        run: the longest time of a run, until another worker takes it over.
        refresh: the longest time of a refresh.
        transaction: the longest time of a transaction.
    """

    run: timedelta
    refresh: timedelta
    transaction: timedelta


def here(session: Session) -> Position:
    """The present position: everything that is committed has been seen."""
    snapshot, now, _ = session.execute(_NOW).one()
    return Position.of(now, snapshot)


def since(session: Session, *, position: Position, reach: Reach, most: int) -> tuple[list[Change], Position]:
    """What changed after a position, in order of time, and the position after it.

    A row that changed twice is told once, as it is now. At most `most` changes are returned; if there are so many, some
    may be missing.
    """
    parameters = {
        "seen": position.snapshot,
        "runs_since": position.at - reach.run,
        "refreshes_since": position.at - reach.refresh,
        "entries_since": _first_id(position.at - reach.transaction),
        "most": most,
    }
    rows = session.execute(_CHANGES, parameters).all()
    found = [_change(row) for row in rows if row.kind is not None]
    return found, Position.of(rows[0].now, rows[0].snapshot)


def _change(row: Any) -> Change:
    return Change(row.kind, row.user_id, row.number, {"type": row.kind, **row.data})


def _first_id(moment: datetime) -> UUID:
    """The lowest id of version 7 that can be made at this time or later."""
    return UUID(int=int(moment.timestamp() * 1000) << 80)

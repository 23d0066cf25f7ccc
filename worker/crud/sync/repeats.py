"""Runs that may turn out to repeat the last one: many begin in one transaction, and many end in one.

If the provider gives the answers of the last run again, and that run found every row as it was stored, then there is
nothing to store. Such a run writes only its own row, once, and when its provider is next due.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from psycopg import Connection
from sqlalchemy.orm import Session

from worker.crud.refresh import tokens
from worker.crud.refresh.records import TokenState
from worker.crud.sync.apply import driver, new_ids
from worker.crud.sync.pace import DUE_AGAIN, Pace, pace_of
from worker.crud.sync.runs import RunBegun
from worker.crud.sync.unsettled import GOES_ON
from worker.crud.sync.work import RunKey
from worker.models.vocabulary import RunStatus, Trigger

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True, kw_only=True)
class LastRun:
    """What a run that may repeat the last one was told when it began.

    Attributes:
        id: the last run.
        heard: the run that has its answers: the last run itself, or the one that it repeats.
        answers: what the last run has heard.
        pace: how often this provider is synced.
        pages: number of pages of the last run.
        unchanged: number of its rows, none of which had changed.
    """

    id: UUID
    heard: UUID
    answers: bytes
    pace: Pace
    pages: int
    unchanged: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RepeatEnd:
    """The end of a run that repeats the last one."""

    begun: RunBegun
    last: LastRun
    due_at: datetime


# A login that is being linked, synced or cancelled is left out, like all others about which more must be known before
# their run begins: `beginning.begin_run` begins those, one by one.
_TAKE_TURNS = (
    "SELECT id FROM unnest(%s::uuid[]) AS asked(id) WHERE pg_try_advisory_xact_lock(hashtextextended('link ' || id, 0))"
)
_READ = """
    SELECT p.id, p.provider_key, p.sync_failures, coalesce(p.hooked_at >= last.started_at, false),
        p.sync_interval, p.hooked_at, p.hook_gap,
        last.id, heard.id, heard.answers, last.pages, last.unchanged, coalesce(
            (SELECT jsonb_object_agg(feed, cursor) FROM sync_cursors WHERE provider_id = p.id AND cursor <> ''), '{}'
        )
    FROM unnest(%s::uuid[]) AS asked(id) JOIN providers p ON p.id = asked.id CROSS JOIN LATERAL (
        SELECT id, status, repeats, pages, unchanged, started_at FROM sync_runs
        WHERE provider_id = p.id ORDER BY started_at DESC LIMIT 1
    ) AS last JOIN sync_runs AS heard ON heard.id = coalesce(last.repeats, last.id)
    WHERE p.status = 'active' AND p.provider_key = ANY(%s) AND last.status = 'completed' AND heard.answers IS NOT NULL
        AND NOT EXISTS (SELECT FROM quarantine q WHERE q.provider_id = p.id AND q.resolved_at IS NULL)
"""
_INSERT = """
    INSERT INTO unsettled_runs (provider_id, id, owner, started_at, heartbeat_at)
    SELECT provider_id, id, %(owner)s, %(now)s, clock_timestamp()
    FROM unnest(%(providers)s::uuid[], %(ids)s::uuid[]) AS r (provider_id, id)
    WHERE NOT EXISTS (SELECT FROM sync_runs WHERE provider_id = r.provider_id AND status = 'running')
    ON CONFLICT DO NOTHING RETURNING id
"""


def begin_repeats(
    session: Session, *, ids: Sequence[UUID], owner: UUID, now: datetime, integrations: Iterable[str]
) -> list[tuple[RunBegun, LastRun]]:
    """Begins runs of those providers whose last run found every row as it was stored. The others are left out.

    The schedule must have asked for these runs. They are unsettled (`worker.crud.sync.unsettled`).

    Args:
        session: the transaction.
        ids: the providers.
        owner: the process that runs them.
        now: the time.
        integrations: the enabled integrations.
    """
    connection = driver(session)
    free = _take_turns(connection, ids)
    found = connection.execute(_READ, (free, list(integrations))).fetchall() if free else []
    if not found:
        return []
    states = tokens.read(session, ids=[row[0] for row in found])
    begun = [
        _begun(UUID(bytes=run_id), owner, now, row, states[row[0]])
        for run_id, row in zip(new_ids(len(found)), found, strict=True)
    ]
    keys = [run.key for run, _ in begun]
    given = {"providers": [key.provider_id for key in keys], "ids": [key.id for key in keys]}
    inserted = {id_ for (id_,) in connection.execute(_INSERT, given | {"owner": owner, "now": now})}
    return [one for one in begun if one[0].key.id in inserted]


def _take_turns(connection: Connection, ids: Iterable[UUID]) -> list[UUID]:
    """Takes the lock of `take_turns_in_linking` of those providers whose lock nobody else has; these are returned."""
    return [id_ for (id_,) in connection.execute(_TAKE_TURNS, (sorted(ids),))]


def _begun(
    run_id: UUID, owner: UUID, now: datetime, row: tuple[Any, ...], token: TokenState
) -> tuple[RunBegun, LastRun]:
    provider_id, provider_key, failures, hooked, *chosen = row
    own_interval, hooked_at, gap, last_id, heard, answers, pages, unchanged, cursors = chosen
    run = RunBegun(
        key=RunKey(run_id, owner, provider_id, provider_key),
        open_quarantine=False,
        is_first=False,
        sync_failures=failures,
        renews=False,
        reading_since=now,
        cursors=cursors,
        token=token,
        hooked=hooked,
    )
    last = LastRun(
        id=last_id,
        heard=heard,
        answers=bytes(answers),
        pace=pace_of(own_interval, hooked_at, gap),
        pages=pages,
        unchanged=unchanged,
    )
    return run, last


# Whatever another transaction holds is left out, so this one never waits while it holds rows of other logins. A run
# whose row is gone because Postgres has emptied the table ends like the others.
_MAY_END = f"""
    WITH given AS MATERIALIZED (
        SELECT * FROM jsonb_to_recordset(%(runs)s::jsonb) AS r (id uuid, provider_id uuid, last uuid, heard uuid)
    ), held AS MATERIALIZED (
        SELECT id FROM unsettled_runs WHERE provider_id IN (SELECT provider_id FROM given) AND NOT cancel_requested
        FOR UPDATE SKIP LOCKED
    )
    SELECT given.id FROM given JOIN providers p ON p.id = given.provider_id
    WHERE {GOES_ON.format(given="given")} AND (
        given.id IN (SELECT id FROM held)
        OR NOT EXISTS (SELECT FROM unsettled_runs u WHERE u.provider_id = given.provider_id)
    )
    FOR NO KEY UPDATE OF p SKIP LOCKED
"""  # noqa: S608 - constants
# COPY writes one record to WAL for all rows that it adds to a page.
_ADD = """
    COPY sync_runs (id, provider_id, status, trigger, started_at, finished_at, pages, unchanged, repeats) FROM STDIN
"""
_DUE = f"""
    WITH settled AS (
        DELETE FROM unsettled_runs WHERE provider_id = ANY(%(providers)s)
    )
    UPDATE providers p SET sync_due_at = {DUE_AGAIN}, sync_failures = 0, synced_at = %(now)s
    FROM unnest(%(providers)s::uuid[], %(began)s::timestamptz[], %(due)s::timestamptz[])
        AS ended (provider_id, began, due_at)
    WHERE p.id = ended.provider_id
"""  # noqa: S608 - constants


def end_repeats(session: Session, *, ends: Sequence[RepeatEnd], now: datetime) -> set[UUID]:
    """Ends runs that repeat the last one, as completed.

    Returns:
        The ids of the runs that ended. The others were taken over, a person asked them to stop, or another transaction
        is at work on them; of these nothing was written.
    """
    connection = driver(session)
    free = set(_take_turns(connection, (end.begun.key.provider_id for end in ends)))
    asked = [_as_asked(end) for end in ends if end.begun.key.provider_id in free]
    may_end = {id_ for (id_,) in connection.execute(_MAY_END, {"runs": _encode(asked).decode()})}
    ended = [end for end in ends if end.begun.key.id in may_end]
    if ended:
        with connection.cursor() as cursor, cursor.copy(_ADD) as copy:
            for end in ended:
                copy.write_row(_as_stored(end, now))
        keys = {"providers": [end.begun.key.provider_id for end in ended], "due": [end.due_at for end in ended]}
        connection.execute(_DUE, keys | {"began": [end.begun.reading_since for end in ended], "now": now})
    return may_end


def _as_asked(end: RepeatEnd) -> dict[str, UUID]:
    key, last = end.begun.key, end.last
    return {"id": key.id, "provider_id": key.provider_id, "last": last.id, "heard": last.heard}


def _as_stored(end: RepeatEnd, now: datetime) -> tuple[Any, ...]:
    key, began, last = end.begun.key, end.begun.reading_since, end.last
    return (
        *(key.id, key.provider_id, str(RunStatus.COMPLETED), str(Trigger.SCHEDULE)),
        *(began, now, last.pages, last.unchanged, last.heard),
    )

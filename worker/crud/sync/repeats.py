"""Runs that may turn out to repeat the last one: many begin in one transaction, and many end in one.

If the provider gives the answers of the last run again, and that run found every row as it was stored, then there is
nothing to store. Such a run writes only its own row, twice, and when its provider is next due.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy.orm import Session

from worker.crud.refresh import tokens
from worker.crud.refresh.records import TokenState
from worker.crud.sync.apply import driver, new_ids
from worker.crud.sync.pace import Pace, pace_of
from worker.crud.sync.runs import RunBegun
from worker.crud.sync.work import RunKey
from worker.models.vocabulary import RunStatus, Trigger

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True, kw_only=True)
class LastRun:
    """What a run that may repeat the last one was told when it began.

    Attributes:
        answers: what the last run has heard.
        pace: how often this provider is synced.
        pages: number of pages of the last run.
        counts: its rows by noun and outcome; all of them are unchanged.
        unchanged: number of these rows.
    """

    answers: bytes
    pace: Pace
    pages: int
    counts: Mapping[str, Mapping[str, int]]
    unchanged: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RepeatEnd:
    """The end of a run that repeats the last one."""

    begun: RunBegun
    last: LastRun
    due_at: datetime


# A login that is being linked, synced or cancelled is left out, like all others about which more must be known before
# their run begins: `runs.begin_run` begins those, one by one.
_TAKE_TURNS = (
    "SELECT id FROM unnest(%s::uuid[]) AS asked(id) WHERE pg_try_advisory_xact_lock(hashtextextended('link ' || id, 0))"
)
_READ = """
    SELECT p.id, p.provider_key, p.sync_failures, p.sync_interval, p.hooked_at, p.hook_gap,
        last.answers, last.pages, last.counts, last.unchanged, coalesce(
            (SELECT jsonb_object_agg(feed, cursor) FROM sync_cursors WHERE provider_id = p.id AND cursor <> ''), '{}'
        )
    FROM unnest(%s::uuid[]) AS asked(id) JOIN providers p ON p.id = asked.id CROSS JOIN LATERAL (
        SELECT status, answers, pages, counts, unchanged FROM sync_runs
        WHERE provider_id = p.id ORDER BY started_at DESC LIMIT 1
    ) AS last
    WHERE p.status = 'active' AND p.provider_key = ANY(%s) AND last.status = 'completed' AND last.answers IS NOT NULL
        AND NOT EXISTS (SELECT FROM quarantine q WHERE q.provider_id = p.id AND q.resolved_at IS NULL)
"""
_INSERT = """
    INSERT INTO sync_runs
        (id, provider_id, status, trigger, mode, owner, started_at, heartbeat_at, cursor_before, answers)
    SELECT id, provider_id, 'running', %(trigger)s, 'incremental', %(owner)s, %(now)s, clock_timestamp(), cursors,
        decode(answers, 'hex')
    FROM jsonb_to_recordset(%(rows)s::jsonb) AS r (id uuid, provider_id uuid, cursors jsonb, answers text)
    WHERE NOT EXISTS (SELECT FROM sync_runs WHERE provider_id = r.provider_id AND status = 'running')
    RETURNING id
"""


def begin_repeats(
    session: Session, *, ids: Sequence[UUID], owner: UUID, trigger: Trigger, now: datetime, integrations: Iterable[str]
) -> list[tuple[RunBegun, LastRun]]:
    """Begins runs of those providers whose last run found every row as it was stored. The others are left out.

    Args:
        session: the transaction.
        ids: the providers.
        owner: the process that runs them.
        trigger: who asks.
        now: the time.
        integrations: the enabled integrations.
    """
    connection = driver(session)
    free = [id_ for (id_,) in connection.execute(_TAKE_TURNS, (sorted(ids),))]
    found = connection.execute(_READ, (free, list(integrations))).fetchall() if free else []
    if not found:
        return []
    states = tokens.read(session, ids=[row[0] for row in found])
    begun = [
        _begun(UUID(bytes=run_id), owner, now, row, states[row[0]])
        for run_id, row in zip(new_ids(len(found)), found, strict=True)
    ]
    rows = [
        {
            "id": run.key.id,
            "provider_id": run.key.provider_id,
            "cursors": run.cursors,
            "answers": last.answers.hex(),
        }
        for run, last in begun
    ]
    given = {"rows": _encode(rows).decode(), "trigger": trigger, "owner": owner, "now": now}
    inserted = {id_ for (id_,) in connection.execute(_INSERT, given)}
    return [one for one in begun if one[0].key.id in inserted]


def _begun(
    run_id: UUID, owner: UUID, now: datetime, row: tuple[Any, ...], token: TokenState
) -> tuple[RunBegun, LastRun]:
    provider_id, provider_key, failures, *chosen = row
    own_interval, hooked_at, gap, answers, pages, counts, unchanged, cursors = chosen
    run = RunBegun(
        key=RunKey(run_id, owner, provider_id, provider_key),
        open_quarantine=False,
        is_first=False,
        sync_failures=failures,
        renews=False,
        reading_since=now,
        cursors=cursors,
        token=token,
    )
    last = LastRun(
        answers=bytes(answers),
        pace=pace_of(own_interval, hooked_at, gap),
        pages=pages,
        counts=counts,
        unchanged=unchanged,
    )
    return run, last


# `cursor_before` and `answers`, which are long, have been right since the beginning. Postgres writes to WAL only what
# differs between the two versions of a row, so they are not written again, nor to `cursor_after`.
# Whatever another transaction holds is left out, so this one never waits while it holds rows of other logins.
_END = f"""
    WITH given AS (
        SELECT * FROM jsonb_to_recordset(%(rows)s::jsonb)
        AS r (id uuid, due_at timestamptz, pages int, unchanged int, counts jsonb)
    ), mine AS MATERIALIZED (
        SELECT r.id, r.provider_id FROM sync_runs r JOIN providers p ON p.id = r.provider_id
        WHERE r.id IN (SELECT id FROM given)
            AND r.status = '{RunStatus.RUNNING}' AND r.owner = %(owner)s AND NOT r.cancel_requested
        FOR NO KEY UPDATE OF r, p SKIP LOCKED
    ), ended AS (
        UPDATE sync_runs r SET status = '{RunStatus.COMPLETED}', finished_at = %(now)s,
            heartbeat_at = clock_timestamp(), pages = given.pages, unchanged = given.unchanged, counts = given.counts
        FROM mine JOIN given USING (id)
        WHERE r.id = mine.id AND r.status = '{RunStatus.RUNNING}' AND NOT r.cancel_requested
        RETURNING r.id, r.provider_id, r.started_at, given.due_at
    )
    UPDATE providers p SET sync_due_at = CASE
            WHEN p.hook_sync_at > ended.started_at THEN least(ended.due_at, greatest(p.hook_sync_at, %(now)s))
            ELSE ended.due_at END, sync_failures = 0, synced_at = %(now)s
    FROM ended WHERE p.id = ended.provider_id RETURNING ended.id
"""  # noqa: S608 - constants


def end_repeats(session: Session, *, owner: UUID, ends: Sequence[RepeatEnd], now: datetime) -> set[UUID]:
    """Ends runs that repeat the last one, as completed.

    Returns:
        The ids of the runs that ended. The others were taken over, a person asked them to stop, or another transaction
        is at work on them; of these nothing was written.
    """
    rows: list[dict[str, Any]] = [
        {
            "id": end.begun.key.id,
            "due_at": end.due_at,
            "pages": end.last.pages,
            "unchanged": end.last.unchanged,
            "counts": end.last.counts,
        }
        for end in ends
    ]
    given = {"rows": _encode(rows).decode(), "owner": owner, "now": now}
    return {id_ for (id_,) in driver(session).execute(_END, given)}

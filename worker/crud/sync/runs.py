"""Runs: at most one running run per provider; its fence, heartbeat and end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import delete, func, update
from sqlalchemy.orm import Session

from worker.crud.outbox import events
from worker.crud.refresh.records import TokenState
from worker.crud.sync import unsettled
from worker.crud.sync.apply import driver
from worker.crud.sync.pace import DUE_AGAIN
from worker.crud.sync.work import RunKey, Tally
from worker.errors import DashtamError, Fenced, ProviderError
from worker.models import SyncRun, sync_seen
from worker.models.vocabulary import ROW_OUTCOMES, RunStatus

UNEXPECTED = "unexpected: the worker's log has where it happened"
"""Reason of a run that an unexpected exception has ended."""

DEAD = "abandoned"
"""Error of a run whose heartbeat stopped. The provider's next run or the tick `reap` finds it."""

WORKER_STOPPED = "its worker stopped; the next run goes on from the committed cursors"
"""Reason of such a run."""

Problems = dict[str, list[ProviderError]]
"""Problems by feed; "" has those of the first pages, which every run reads again and so meets again."""


@dataclass(frozen=True, slots=True)
class RunBegun:
    """A run that has begun, and what it starts from. `is_first`: no transaction of its provider is stored yet.

    Attributes:
        renews: a person asked for this full sync, so the books check starts again, too.
        reading_since: when the reading began, perhaps by an earlier run that did not have time for all feeds.
        since: the day to which feeds by date go back, if this run or such an earlier one was asked to do so.
        done: feeds that those runs have read to their end.
        problems: problems of earlier runs of the full sync that this run continues.
        cursors: committed cursor of each feed when the run began.
        token: the login's token when the run began.
        hooked: a hook has asked for a sync since the last complete run began.
    """

    key: RunKey
    open_quarantine: bool
    is_first: bool
    sync_failures: int
    renews: bool
    reading_since: datetime
    cursors: Mapping[str, str]
    token: TokenState
    since: date | None = None
    done: frozenset[str] = frozenset()
    problems: Problems = field(default_factory=dict)
    hooked: bool = False


def end_dead_run(session: Session, provider_id: UUID, dead_after: timedelta) -> None:
    """Ends the provider's running or unsettled run as failed, if its last heartbeat is older than `dead_after`."""
    ended = session.scalars(
        update(SyncRun)
        .where(
            SyncRun.provider_id == provider_id,
            SyncRun.status == RunStatus.RUNNING,
            SyncRun.heartbeat_at < func.clock_timestamp() - dead_after,
        )
        .values(status=RunStatus.FAILED, finished_at=func.clock_timestamp(), error=DEAD, error_reason=WORKER_STOPPED)
        .returning(SyncRun.id)
    )
    events.of_runs(session, run_ids=ended.all())
    unsettled.end_one(session, provider_id=provider_id, silent_for=dead_after, error=DEAD, reason=WORKER_STOPPED)


def end_running(session: Session, *, provider_id: UUID, error: str, reason: str, keep_full_sync: bool = True) -> None:
    """Ends the provider's run: from now on it can write nothing. The next run compares all rows.

    The caller must hold the lock of `take_turns_in_linking`, so that no other run begins meanwhile.

    Args:
        session: the transaction of the change that makes the run useless.
        provider_id: the provider.
        error: stable word, stored with the run.
        reason: what happened, for people.
        keep_full_sync: the next run continues a full sync that was not finished.
    """
    ended = session.scalars(
        update(SyncRun)
        .where(SyncRun.provider_id == provider_id, SyncRun.status == RunStatus.RUNNING)
        .values(status=RunStatus.FAILED, finished_at=func.clock_timestamp(), error=error, error_reason=reason)
        .returning(SyncRun.id)
    )
    events.of_runs(session, run_ids=ended.all())
    unsettled.end_one(session, provider_id=provider_id, error=error, reason=reason)
    session.execute(
        update(SyncRun).where(SyncRun.provider_id == provider_id, SyncRun.answers.is_not(None)).values(answers=None)
    )
    if not keep_full_sync:
        session.execute(delete(sync_seen).where(sync_seen.c.provider_id == provider_id))
        session.execute(
            update(SyncRun)
            .where(SyncRun.provider_id == provider_id, SyncRun.reading_id.is_not(None))
            .values(reading_id=None)
        )


_HOLD = "SELECT id FROM sync_runs WHERE id = %s AND status = 'running' AND owner = %s FOR UPDATE"


def hold(session: Session, *, run: RunKey) -> None:
    """Locks the run for this transaction.

    Raises:
        Fenced: this worker no longer owns the run.
    """
    if driver(session).execute(_HOLD, (run.id, run.owner)).fetchone() is None:
        raise Fenced(f"run {run.id} was taken over or ended; nothing was written")


def beat(session: Session, *, run: RunKey) -> bool:
    """Stores a heartbeat; returns whether a person asked the run to stop.

    Raises:
        Fenced: this worker no longer owns the run.
    """
    mine = SyncRun.id == run.id, SyncRun.status == RunStatus.RUNNING, SyncRun.owner == run.owner
    beaten = update(SyncRun).where(*mine).values(heartbeat_at=func.clock_timestamp())
    stored: bool | None = session.scalar(beaten.returning(SyncRun.cancel_requested))
    cancel = unsettled.beat(session, run=run) if stored is None else stored
    if cancel is None:
        raise Fenced(f"run {run.id} was taken over or ended")
    return cancel


# `began` is unknown where no hook may make the login due earlier: after an error, and if it is never due.
_FINISH = f"""
    WITH ended AS (
        UPDATE sync_runs SET status = %(status)s, finished_at = %(now)s, heartbeat_at = clock_timestamp(),
            error = %(error)s, error_scope = %(error_scope)s, error_reason = %(error_reason)s,
            problems = %(problems)s::jsonb, reading_since = %(reading_since)s, since = %(since)s,
            answers = %(answers)s, counts = %(counts)s::jsonb, added = %(added)s, changed = %(changed)s,
            unchanged = %(unchanged)s, removed = %(removed)s, quarantined = %(quarantined)s, cursor_after = coalesce(
                (SELECT jsonb_object_agg(feed, cursor) FROM sync_cursors
                WHERE provider_id = %(provider_id)s AND cursor <> ''), '{{}}'
            )
        WHERE id = %(id)s AND status = 'running' AND owner = %(owner)s
        RETURNING provider_id, CASE WHEN %(heeds_hooks)s THEN started_at END AS began,
            %(due_at)s::timestamptz AS due_at
    )
    UPDATE providers p SET sync_due_at = {DUE_AGAIN}, sync_failures = %(sync_failures)s,
        synced_at = CASE WHEN %(done)s THEN %(now)s ELSE p.synced_at END
    FROM ended WHERE p.id = ended.provider_id
"""  # noqa: S608 - constants


def finish_run(
    session: Session,
    *,
    run: RunKey,
    status: RunStatus,
    now: datetime,
    tally: Tally,
    error: Exception | None,
    problems: Problems,
    due_at: datetime | None,
    sync_failures: int,
    reading_since: datetime | None = None,
    since: date | None = None,
    answers: bytes | None = None,
) -> None:
    """Ends the run and sets when the provider is next due, in one transaction.

    Raises:
        Fenced: another worker took over.
    """
    provider_error = error if isinstance(error, ProviderError) else None
    reason = provider_error.reason if provider_error else None
    if error is not None and provider_error is None:
        # The message of a foreign exception may quote a record, so it is not stored.
        reason = str(error)[:300] if isinstance(error, DashtamError) else UNEXPECTED
    kept = as_kept(problems)
    values = {
        "id": run.id,
        "owner": run.owner,
        "provider_id": run.provider_id,
        "status": str(status),
        "now": now,
        "error": None if error is None else provider_error.kind if provider_error else type(error).__name__,
        "error_scope": str(provider_error.scope) if provider_error else None,
        "error_reason": reason,
        "problems": msgspec.json.encode({"problems": kept}).decode() if kept else None,
        "reading_since": reading_since,
        "since": since,
        "answers": answers,
        "heeds_hooks": error is None and due_at is not None,
        "due_at": due_at,
        "sync_failures": sync_failures,
        "done": status in (RunStatus.COMPLETED, RunStatus.PARTIAL),
        **tally_columns(tally),
    }
    if driver(session).execute(_FINISH, values).rowcount != 1:
        raise Fenced(f"run {run.id} was taken over; its end was not recorded")
    if any(tally.total(outcome) for outcome in ("added", "changed", "removed")):
        events.of_runs(session, run_ids=[run.id])


def tally_columns(tally: Tally) -> dict[str, Any]:
    """The tally as values for the run's columns; `counts` is JSON."""
    counts = msgspec.json.encode(tally.nested()).decode()
    return {"counts": counts, **{outcome: tally.total(outcome) for outcome in ROW_OUTCOMES}}


def as_kept(problems: Problems) -> list[dict[str, str]]:
    """The problems in the form in which a run stores them, without repeats."""
    kept = [
        {"kind": problem.kind, "scope": str(problem.scope), "reason": problem.reason}
        | {name: value for name, value in (("account", problem.account_key), ("feed", feed)) if value}
        for feed, found in problems.items()
        for problem in found
    ]
    return [problem for index, problem in enumerate(kept) if problem not in kept[:index]]


def read_progress(session: Session, *, run: RunKey) -> tuple[int, Tally]:
    """The number of committed pages of the run, and their counts."""
    hold(session, run=run)
    stored = session.get_one(SyncRun, run.id)
    tally = Tally({(noun, outcome): count for noun, by in stored.counts.items() for outcome, count in by.items()})
    return stored.pages, tally


def request_cancel(session: Session, *, provider_id: UUID) -> UUID | None:
    """Asks the provider's running run to stop after its present page; returns its id, None when there is none."""
    running = SyncRun.provider_id == provider_id, SyncRun.status == RunStatus.RUNNING
    asked = update(SyncRun).where(*running).values(cancel_requested=True).returning(SyncRun.id)
    return unsettled.ask_to_stop(session, provider_id=provider_id) or session.scalar(asked)

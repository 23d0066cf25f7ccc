"""Runs: at most one running run per provider; its fence, heartbeat and end."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from worker.crud.outbox import events
from worker.crud.providers import get_provider, take_turns_in_linking
from worker.crud.refresh import tokens
from worker.crud.refresh.records import TokenState
from worker.crud.sync import accounts, cursors, pace, quarantine, unsettled
from worker.crud.sync.work import RunKey, Tally
from worker.errors import BadPayload, DashtamError, Fenced, ProviderError, Refused, Scope
from worker.models import Provider, SyncRun, new_id, sync_seen
from worker.models.vocabulary import ROW_OUTCOMES, ProviderStatus, RunStatus, Trigger

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


def begin_run(
    session: Session,
    *,
    provider_id: UUID,
    owner: UUID,
    trigger: Trigger,
    mode: str,
    since: date | None = None,
    now: datetime,
    dead_after: timedelta,
    min_interval: timedelta | None,
    memory_feeds: Mapping[str, frozenset[str]],
) -> RunBegun:
    """Begins a run. If there is a running one whose heartbeat has stopped, that one is ended first.

    If a full sync broke off, the next run continues it, so that rows it has not met are still withdrawn; the same holds
    for a run that goes back to a day (`since`). A run is also a full sync if transactions were refused because their
    account was unknown, and the account is stored now. `min_interval` is the shortest time since the last run began;
    None means no such limit. `memory_feeds` has the memory feeds of each enabled integration.

    Raises:
        NotFound: no such provider.
        Refused: it is not active, is being synced already, or was synced a moment ago.
    """
    take_turns_in_linking(session, provider_id)
    provider = get_provider(session, provider_id)
    _check_active(provider, memory_feeds)
    _end_dead_run(session, provider_id, dead_after)
    unsettled.refuse_second(session, provider_id=provider_id)
    last = _last_run(session, provider_id, now, min_interval)
    unfinished = last.reading_id if last is not None and last.status != RunStatus.CANCELLED else None
    asked_for = mode == "full"
    reading_id = _full_reading(session, provider_id, now, unfinished=unfinished, asked_for=asked_for)
    renews = asked_for or (unfinished is not None and last is not None and last.renews)
    mode = mode if reading_id is None else "full"
    run = {"owner": owner, "trigger": trigger, "mode": mode, "reading_id": reading_id, "renews": renews}
    run_id = _insert(session, provider_id=provider_id, started_at=now, **run)
    if reading_id is not None and reading_id != unfinished:
        cursors.forget_cursors(session, provider_id=provider_id, keep=memory_feeds[provider.provider_key])
    if last is not None and last.reading_id not in (None, reading_id):  # cancelled, or a new full sync begins
        session.execute(delete(sync_seen).where(sync_seen.c.reading_id == last.reading_id))
    before = cursors.read_cursors(session, provider_id=provider_id)
    session.execute(update(SyncRun).where(SyncRun.id == run_id).values(cursor_before=before))
    begun = None if asked_for or since is not None or last is None else last.reading_since
    return RunBegun(
        key=RunKey(run_id, owner, provider_id, provider.provider_key, reading_id),
        open_quarantine=quarantine.has_open(session, provider_id=provider_id),
        is_first=not accounts.has_transactions(session, provider_id=provider_id),
        sync_failures=provider.sync_failures,
        renews=renews,
        reading_since=begun or now,
        cursors=before,
        token=tokens.read(session, ids=[provider_id])[provider_id],
        since=last.since if begun and last else since,
        done=cursors.feeds_read_since(session, provider_id=provider_id, since=begun) if begun else frozenset(),
        problems=_problems_of(session, reading_id),
    )


def _last_run(session: Session, provider_id: UUID, now: datetime, min_interval: timedelta | None) -> SyncRun | None:
    """The run before this one.

    Raises:
        Refused: it began less than `min_interval` ago.
    """
    newest_first = select(SyncRun).where(SyncRun.provider_id == provider_id).order_by(SyncRun.started_at.desc())
    last = session.scalars(newest_first.limit(1)).first()
    if last is not None and min_interval is not None and now - last.started_at < min_interval:
        wait = int((last.started_at + min_interval - now).total_seconds()) + 1
        raise Refused(f"provider {provider_id} was synced a moment ago; wait {wait} s")
    return last


def _full_reading(
    session: Session, provider_id: UUID, now: datetime, *, unfinished: UUID | None, asked_for: bool
) -> UUID | None:
    """Id of the full sync that the run begins or continues; None if the run is not a full sync."""
    if quarantine.settle_before_reading(session, provider_id=provider_id, now=now) or asked_for:
        return new_id()
    return unfinished


def _insert(session: Session, **values: Any) -> UUID:
    """Inserts the running run.

    Raises:
        Refused: the provider has another running run.
    """
    values |= {"id": new_id(), "status": RunStatus.RUNNING, "heartbeat_at": func.clock_timestamp()}
    begun = insert(SyncRun).values(**values).on_conflict_do_nothing()
    run_id: UUID | None = session.scalar(begun.returning(SyncRun.id))
    if run_id is None:
        raise Refused(unsettled.BEING_SYNCED.format(values["provider_id"]))
    return run_id


def _check_active(provider: Provider, integrations: Container[str]) -> None:
    if provider.status != ProviderStatus.ACTIVE:
        what = ProviderStatus(provider.status).what_to_do(provider.id)
        raise Refused(f"provider {provider.id} is {provider.status}, so nothing was synced; {what}")
    if provider.provider_key not in integrations:
        raise Refused(f"provider {provider.id} needs the integration {provider.provider_key}; add it to INTEGRATIONS")


def _end_dead_run(session: Session, provider_id: UUID, dead_after: timedelta) -> None:
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


def hold(session: Session, *, run: RunKey) -> None:
    """Locks the run for this transaction.

    Raises:
        Fenced: this worker no longer owns the run.
    """
    held = session.scalar(select(SyncRun.id).where(*_mine(run)).with_for_update())
    if held is None:
        raise Fenced(f"run {run.id} was taken over or ended; nothing was written")


def _mine(run: RunKey) -> tuple[Any, ...]:
    return SyncRun.id == run.id, SyncRun.status == RunStatus.RUNNING, SyncRun.owner == run.owner


def beat(session: Session, *, run: RunKey) -> bool:
    """Stores a heartbeat; returns whether a person asked the run to stop.

    Raises:
        Fenced: this worker no longer owns the run.
    """
    beaten = update(SyncRun).where(*_mine(run)).values(heartbeat_at=func.clock_timestamp())
    stored: bool | None = session.scalar(beaten.returning(SyncRun.cancel_requested))
    cancel = unsettled.beat(session, run=run) if stored is None else stored
    if cancel is None:
        raise Fenced(f"run {run.id} was taken over or ended")
    return cancel


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
    ended = session.execute(
        update(SyncRun)
        .where(*_mine(run))
        .values(
            status=status,
            finished_at=now,
            heartbeat_at=func.clock_timestamp(),
            error=None if error is None else provider_error.kind if provider_error else type(error).__name__,
            error_scope=provider_error.scope if provider_error else None,
            error_reason=reason,
            problems={"problems": found} if (found := as_kept(problems)) else None,
            reading_since=reading_since,
            since=since,
            answers=answers,
            cursor_after=cursors.read_cursors(session, provider_id=run.provider_id),
            **tally_columns(tally),
        )
        .returning(SyncRun.id)
    ).scalar()
    if ended is None:
        raise Fenced(f"run {run.id} was taken over; its end was not recorded")
    if any(tally.total(outcome) for outcome in ("added", "changed", "removed")):
        events.of_runs(session, run_ids=[ended])
    done = status in (RunStatus.COMPLETED, RunStatus.PARTIAL)
    if error is None and due_at is not None:
        due_at = pace.due_again(run, due_at, now)
    session.execute(
        update(Provider)
        .where(Provider.id == run.provider_id)
        .values(
            sync_due_at=due_at,
            sync_failures=sync_failures,
            **({"synced_at": now} if done else {}),
        )
    )


def tally_columns(tally: Tally) -> dict[str, Any]:
    """The tally as values for the run's columns."""
    return {"counts": tally.nested(), **{outcome: tally.total(outcome) for outcome in ROW_OUTCOMES}}


def as_kept(problems: Problems) -> list[dict[str, str]]:
    """The problems in the form in which a run stores them, without repeats."""
    kept = [
        {"kind": problem.kind, "scope": str(problem.scope), "reason": problem.reason}
        | {name: value for name, value in (("account", problem.account_key), ("feed", feed)) if value}
        for feed, found in problems.items()
        for problem in found
    ]
    return [problem for index, problem in enumerate(kept) if problem not in kept[:index]]


def _problems_of(session: Session, reading_id: UUID | None) -> Problems:
    """Problems that earlier runs of a full sync met on pages behind their cursors, which no run will read again."""
    problems: Problems = {}
    if reading_id is not None:
        found = session.scalars(select(SyncRun.problems).where(SyncRun.reading_id == reading_id))
        for kept in (problem for run in found if run for problem in run["problems"] if "feed" in problem):
            again = BadPayload(kept["reason"], scope=Scope(kept["scope"]), account_key=kept.get("account"))
            problems.setdefault(kept["feed"], []).append(again)
    return problems


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

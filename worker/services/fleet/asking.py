"""Refreshes and syncs that a person asks for: sends the schedule's tasks, and finds out what became of them.

A login is made due before its message is sent. So if the message is lost, the schedule still does the work.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any, Protocol
from uuid import UUID

from worker.crud import steering
from worker.crud.database import OpenTransaction
from worker.crud.fleet import history, overview
from worker.crud.sync import runs as run_queries
from worker.errors import Refused, Unavailable
from worker.models.fleet import Attempt, ProviderRow, Run
from worker.models.vocabulary import AttemptStatus, ProviderStatus, RunStatus
from worker.services.context import Context
from worker.services.fleet import held, lookup, past

REFRESH_TASK = "worker.tasks.tokens.refresh_providers"
SYNC_TASK = "worker.tasks.accounts.sync_providers"

# If this machine's clock is ahead of the workers' clocks, their answers must still be found.
_CLOCK_SLACK = timedelta(seconds=5)


class Send(Protocol):
    """Sends one task and returns the message's id; raises `Unavailable` when the broker is out of reach."""

    def __call__(self, task: str, *args: Any, **kwargs: Any) -> str:
        """Sends `task` with these arguments."""
        ...


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked for, and how to find the answers.

    Attributes:
        rows: the logins by name, when they were named; otherwise empty.
        at: when it was asked for, by this machine's clock.
        known: attempts or runs that existed before, so they are not answers.
        force: whether a worker syncs also what was synced a moment ago.
    """

    ids: list[UUID]
    task_ids: list[str]
    at: datetime
    rows: list[ProviderRow] = field(default_factory=list)
    known: frozenset[UUID] = frozenset()
    force: bool = False


@dataclass(frozen=True, slots=True)
class SyncWish:
    """Options of a sync.

    Attributes:
        full: read from the beginning; rows that the provider no longer lists are withdrawn.
        since: go back to this day.
        force: sync even if the last sync was only a moment ago.
    """

    full: bool = False
    since: date | None = None
    force: bool = False

    @property
    def anew(self) -> bool:
        """Whether rows that were read before are read again."""
        return self.full or self.since is not None

    def options(self) -> dict[str, Any]:
        """The options as arguments of the task."""
        options: dict[str, Any] = {"trigger": "manual"}
        if self.full:
            options["mode"] = "full"
        if self.since:
            options["since"] = self.since.isoformat()
        if self.force:
            options["force"] = True
        return options


async def refresh(runtime: Context, given: str, *, send: Send) -> Asked:
    """Asks for a refresh of one login.

    Raises:
        BadArgument: `given` names no login, or more than one.
        Refused: it is not active, its tokens are not refreshed, or its integration is paused.
        Unavailable: Postgres or the broker is out of reach. If it is the broker, the refresh is already due.
    """
    now = datetime.now(UTC)

    def make_due(session: OpenTransaction) -> Asked:
        row = lookup.provider(session, given)
        known = frozenset(attempt.id for attempt in history.attempts(session, provider_ids=[row.id], limit=5))
        held.refuse_paused(session, row.provider_key)
        steering.make_due(session, provider_id=row.id, what="refresh", at=_claimed(runtime, now))
        return Asked([row.id], [], now, [row], known)

    asked = await runtime.db(make_due)
    try:
        id_ = await asyncio.to_thread(send, REFRESH_TASK, [str(asked.ids[0])], trigger="manual", force=True)
    except Unavailable:
        await runtime.db(steering.make_due, provider_id=asked.ids[0], what="refresh", at=now)
        raise
    asked.task_ids.append(id_)
    return asked


async def sync(runtime: Context, given: str | None, wish: SyncWish, *, send: Send) -> Asked:
    """Asks for a sync of one login, or of every active login when `given` is None.

    Raises:
        BadArgument: `given` names no login, or more than one.
        Refused: it is not active; it was synced a moment ago; it is being synced and `wish` reads rows again; or its
            integration is paused.
        Unavailable: Postgres or the broker is out of reach. If it is the broker, the syncs are already due.
    """
    now = datetime.now(UTC)

    def make_due(session: OpenTransaction) -> Asked:
        if given is None:
            ids, rows = list(steering.make_all_syncs_due(session, at=_claimed(runtime, now))), []
        else:
            rows = [lookup.provider(session, given)]
            ids = [rows[0].id]
            held.refuse_paused(session, rows[0].provider_key)
            if wish.anew:
                _refuse_beside_another(runtime, session, rows[0])
            if not wish.force:
                _refuse_haste(runtime, session, rows[0], now)
            steering.make_due(session, provider_id=ids[0], what="sync", at=_claimed(runtime, now))
        runs = history.runs(session, provider_ids=ids, limit=2 * len(ids) + 10)
        # A run that is already running counts as the answer, unless `wish` asks for more than that run does.
        known = frozenset(run.id for run in runs if wish.anew or run.status != RunStatus.RUNNING)
        return Asked(ids, [], now, rows, known, force=wish.force)

    asked = await runtime.db(make_due)
    size = runtime.settings.sync_batch_size
    try:
        for start in range(0, len(asked.ids), size):
            batch = [str(id_) for id_ in asked.ids[start : start + size]]
            asked.task_ids.append(await asyncio.to_thread(send, SYNC_TASK, batch, **wish.options()))
    except Unavailable:
        if given is None:
            await runtime.db(steering.make_all_syncs_due, at=now)
        else:
            await runtime.db(steering.make_due, provider_id=asked.ids[0], what="sync", at=now)
        raise
    return asked


async def cancel_sync(runtime: Context, given: str) -> tuple[ProviderRow, UUID]:
    """Asks the running sync of a login to stop after its present page. Returns the login and the run's id.

    Raises:
        BadArgument: `given` names no login, or more than one.
        Refused: it is not being synced.
    """

    def cancel(session: OpenTransaction) -> tuple[ProviderRow, UUID]:
        row = lookup.provider(session, given)
        run_id = run_queries.request_cancel(session, provider_id=row.id)
        if run_id is None:
            raise Refused(f"{row.alias} is not being synced; there is nothing to cancel")
        return row, run_id

    return await runtime.db(cancel)


async def replay_entry(runtime: Context, given: str, *, send: Send) -> tuple[UUID, Asked]:
    """Asks for a full sync of the login that a quarantined record belongs to. Returns the entry's id and the request.

    Raises:
        BadArgument, NotFound: `given` names no entry, or more than one.
        Refused: the entry is resolved, or the login is being synced or not active, or its integration is paused.
        Unavailable: the broker is out of reach; the login is due, but for an ordinary sync.
    """
    now = datetime.now(UTC)

    def make_due(session: OpenTransaction) -> tuple[UUID, ProviderRow]:
        entry = past.entry(session, given)
        if entry.resolved_at is not None:
            raise Refused(f"it was settled before ({entry.resolution}); nothing was sent")
        row = lookup.provider(session, str(entry.provider_id))
        held.refuse_paused(session, row.provider_key)
        _refuse_beside_another(runtime, session, row)
        steering.make_due(session, provider_id=row.id, what="sync", at=now)
        return entry.id, row

    entry_id, row = await runtime.db(make_due)
    options = SyncWish(full=True, force=True).options()
    task_id = await asyncio.to_thread(send, SYNC_TASK, [str(row.id)], **options)
    return entry_id, Asked([row.id], [task_id], now, [row], force=True)


async def attempt_of(runtime: Context, asked: Asked) -> Attempt | None:
    """The finished refresh attempt that answers the request; None while there is none."""
    attempts = await runtime.db(history.attempts, provider_ids=asked.ids, since=asked.at - _CLOCK_SLACK, limit=5)
    ended = (a for a in attempts if a.id not in asked.known and a.status != AttemptStatus.SENT)
    return next(ended, None)


async def runs_of(runtime: Context, asked: Asked) -> dict[UUID, Run]:
    """For each login, the newest run that answers the request, running ones included."""
    found = await runtime.db(
        history.runs, provider_ids=asked.ids, running_or_since=asked.at - _CLOCK_SLACK, limit=2 * len(asked.ids) + 10
    )
    runs: dict[UUID, Run] = {}
    for run in found:
        if run.id not in asked.known:
            runs.setdefault(run.provider_id, run)
    return runs


async def refused(runtime: Context, asked: Asked, ids: Sequence[UUID]) -> dict[UUID, Refused]:
    """Why workers refuse the requested sync of some of these logins; a refusal leaves no run to wait for."""
    least = timedelta(0) if asked.force else timedelta(seconds=runtime.settings.sync_min_interval)

    def read(session: OpenTransaction) -> dict[UUID, Refused]:
        found = {}
        for row in overview.list_providers(session, limit=len(ids), ids=ids):
            if row.status != ProviderStatus.ACTIVE:
                found[row.id] = steering.not_active(row, kept="nothing was synced")
        earlier = history.runs(session, provider_ids=ids, since=asked.at - least, limit=2 * len(ids))
        for run in earlier:
            if run.id in asked.known and run.started_at <= asked.at:
                what = "is being synced already" if run.status == RunStatus.RUNNING else "was synced a moment ago"
                found.setdefault(run.provider_id, Refused(f"{run.alias} {what}"))
        return found

    return await runtime.db(read)


def _claimed(runtime: Context, now: datetime) -> datetime:
    return now + timedelta(seconds=runtime.settings.claim_seconds)


def _refuse_beside_another(runtime: Context, session: OpenTransaction, row: ProviderRow) -> None:
    """Raises `Refused` during a run: a running sync cannot take over these options, and there is only one at a time."""
    dead_after = timedelta(seconds=runtime.settings.run_dead_seconds)
    if history.is_running(session, provider_id=row.id, dead_after=dead_after):
        raise Refused(
            f"{row.alias} is being synced; wait for that run",
            for_operators=f"or stop it: dashtam sync {row.id} --cancel",
        )


def _refuse_haste(runtime: Context, session: OpenTransaction, row: ProviderRow, now: datetime) -> None:
    """Raises `Refused` if the worker would refuse the sync as too early, so that the person learns it now."""
    least = timedelta(seconds=runtime.settings.sync_min_interval)
    last = history.runs(session, provider_ids=[row.id], limit=1)
    if last and last[0].status != RunStatus.RUNNING and now - last[0].started_at < least:
        wait = int((last[0].started_at + least - now).total_seconds()) + 1
        raise Refused(
            f"{row.alias} was synced a moment ago; wait {wait} s",
            for_operators=f"or sync it all the same: dashtam sync {row.id} --force",
            for_clients='or send {"force": true}',
        )

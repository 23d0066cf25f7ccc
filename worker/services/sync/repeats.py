"""Runs in which the provider says nothing new: many begin together, and many end together.

A run is a repeat if the provider gives the answers of the last run again, byte for byte, and that run read everything
and found every row as it was stored. Applying these answers once more would write nothing, so they are not taken apart.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from uuid import UUID

from worker.crud.sync import repeats
from worker.crud.sync.repeats import LastRun, RepeatEnd
from worker.crud.sync.runs import RunBegun
from worker.errors import Unavailable
from worker.models.vocabulary import RunStatus, Trigger
from worker.process.logger import Logger
from worker.services.availability import breaker
from worker.services.context import Context
from worker.services.sync.next_due import judge, not_before
from worker.services.sync.reading import shortest_interval, usual_interval
from worker.telemetry import metrics

log = Logger(__name__)

_LINGER_S = 0.25
"""How long the first repeat of a group waits for others, so that many end in one transaction."""


async def begin(runtime: Context, ids: Sequence[UUID]) -> dict[UUID, tuple[RunBegun, LastRun]]:
    """Begins the runs that may be repeats, in one transaction. The others are left out.

    Raises:
        Unavailable: Postgres is out of reach.
    """
    begun = await runtime.db(
        repeats.begin_repeats,
        ids=ids,
        owner=runtime.owner,
        now=await runtime.now(),
        integrations=list(runtime.integrations),
    )
    return {run.key.provider_id: (run, last) for run, last in begun}


def may_repeat(*, trigger: str, mode: str, since: date | None) -> bool:
    """Whether a run that is asked for in this way may be ended without comparing rows: only if no person asked."""
    return trigger == Trigger.SCHEDULE and mode == "incremental" and since is None


@dataclass(slots=True)
class _Ending:
    """A repeat that waits for its end.

    Attributes:
        done: whether it was ended.
    """

    begun: RunBegun
    last: LastRun
    seconds: float
    done: asyncio.Future[bool] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class RepeatEnds:
    """Ends the repeats of a batch.

    Args:
        runtime: the process's context.
        looking: number of runs that are finding out whether they are repeats.
    """

    def __init__(self, runtime: Context, looking: int) -> None:
        self._runtime = runtime
        self._looking = looking
        self._waiting: list[_Ending] = []
        self._timer: asyncio.TimerHandle | None = None
        self._writing: set[asyncio.Task[None]] = set()
        self._context = contextvars.copy_context()  # so that no log line of many runs has the ids of one of them

    def expect_no_more_of(self) -> None:
        """One of the runs is no repeat."""
        self._looking -= 1
        self._end_if_all_are_here()

    async def end(self, begun: RunBegun, last: LastRun, *, seconds: float) -> bool:
        """Ends a repeat, together with others. False if it could not be ended this way; then nothing was written.

        Raises:
            Unavailable: Postgres is out of reach.
        """
        self._looking -= 1
        ending = _Ending(begun, last, seconds)
        self._waiting.append(ending)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_LINGER_S, self._write, context=self._context)
        self._end_if_all_are_here()
        return await ending.done

    def _end_if_all_are_here(self) -> None:
        if self._looking <= 0 and self._waiting:
            self._write()

    def _write(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        together, self._waiting = self._waiting, []
        if together:
            task = asyncio.create_task(self._end_together(together), context=self._context)
            self._writing.add(task)
            task.add_done_callback(self._writing.discard)

    async def _end_together(self, together: Sequence[_Ending]) -> None:
        try:
            now = await self._runtime.now()
            ends = [self._end_of(one, now) for one in together]
            ended = await self._runtime.db(repeats.end_repeats, ends=ends, now=now)
            await _report(self._runtime, [end for end in ends if end.begun.key.id in ended])
        except Exception as error:
            for one in together:
                if not one.done.done():
                    one.done.set_exception(error)
            return
        for one, end in zip(together, ends, strict=True):
            if end.begun.key.id in ended:
                _tell(one, end)
            if not one.done.done():
                one.done.set_result(end.begun.key.id in ended)

    def _end_of(self, one: _Ending, now: datetime) -> RepeatEnd:
        integration = self._runtime.integrations[one.begun.key.provider_key]
        verdict = judge(
            provider_id=one.begun.key.provider_id,
            now=now,
            interval=usual_interval(integration, self._runtime.settings, one.last.pace.own_interval),
            failures=one.begun.sync_failures,
            error=None,
            problems=(),
            landed=True,
            hooked_until=one.last.pace.hooked_until,
            longest=timedelta(seconds=self._runtime.settings.sync_interval_hooked),
        )
        verdict = not_before(verdict, now, shortest_interval(integration, self._runtime.settings))
        assert verdict.due_at is not None, "a completed run is always due again"  # noqa: S101
        return RepeatEnd(begun=one.begun, last=one.last, due_at=verdict.due_at)


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What the runs of a batch share.

    Attributes:
        ends: ends those that are repeats.
        in_flight: limits how many are finding out at the same time whether they are.
        places: limits how many read and store at the same time.
        begin_before: the latest time, by the event loop's clock, at which a run begins to read and store.
    """

    ends: RepeatEnds
    in_flight: asyncio.Semaphore
    places: asyncio.Semaphore
    begin_before: float

    @classmethod
    def of(cls, runtime: Context, *, looking: int) -> Batch:
        """A batch that begins now, with `looking` runs that may be repeats."""
        settings = runtime.settings
        return cls(
            ends=RepeatEnds(runtime, looking),
            in_flight=asyncio.Semaphore(settings.sync_in_flight),
            places=asyncio.Semaphore(settings.sync_concurrency),
            begin_before=asyncio.get_running_loop().time() + settings.task_soft_time_limit / 2,
        )

    async def look(self, repeats: Callable[[LastRun], Awaitable[bool]], last: LastRun) -> bool:
        """Calls `repeats` when a place in flight is free."""
        async with self.in_flight:
            return await repeats(last)


def _tell(one: _Ending, end: RepeatEnd) -> None:
    """Writes the log line and the metrics, as for any other run."""
    key = end.begun.key
    rows = {"added": 0, "changed": 0, "unchanged": end.last.unchanged, "removed": 0, "quarantined": 0}
    log.info(
        "sync_ended",
        provider_id=str(key.provider_id),
        run_id=str(key.id),
        status=RunStatus.COMPLETED,
        error=None,
        problems=0,
        drifts=0,
        pages=end.last.pages,
        due_at=str(end.due_at),
        **rows,
    )
    metrics.observe_sync(key.provider_key, RunStatus.COMPLETED, seconds=one.seconds, rows=rows)


async def _report(runtime: Context, ended: Sequence[RepeatEnd]) -> None:
    """Reports the successes to the breaker of each integration."""
    by_key: dict[str, list[UUID]] = {}
    for end in ended:
        by_key.setdefault(end.begun.key.provider_key, []).append(end.begun.key.provider_id)
    for provider_key, ids in by_key.items():
        try:
            await breaker.report(runtime, provider_key, [None] * len(ids), provider_ids=ids, call="sync")
        except Unavailable:
            log.warning("availability_unreported", provider_key=provider_key)

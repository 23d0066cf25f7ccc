"""Claims due syncs, and syncs a batch of providers: afterwards the tables hold what each provider holds.

1. Begin a run: one per provider; a dead run is taken over.
2. Get a token, then ask for pages from the committed cursors on. No transaction is open during a call.
3. Apply each page in one transaction with its cursor, fenced by the run (`worker.crud.sync.pages`).
4. If the access token is refused, refresh it and continue from the committed cursors. If the provider wants a loop to
   be restarted, undo the loop first.
5. At its end a full sync withdraws the rows that it has not met. Then the books are checked, and the run ends and sets
   when the next one is due.

A worker may die between any two of these steps: the next run continues from the committed cursors.

If the provider gives the answers of the last run again, the run ends without steps 3 to 5. Such runs begin and end many
together (`worker.services.sync.repeats`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from uuid import UUID

import structlog

from worker.crud import providers
from worker.crud.sync import beginning
from worker.crud.sync.repeats import LastRun
from worker.crud.sync.runs import RunBegun
from worker.errors import DashtamError, Unavailable
from worker.models.vocabulary import Trigger
from worker.process.logger import Logger
from worker.services.availability import breaker
from worker.services.context import Context
from worker.services.sync import repeats
from worker.services.sync.repeats import Batch
from worker.services.sync.run import RunUnderWay

log = Logger(__name__)

_WAITING_SHARE = 0.9
"""Share of the task's time limit. After it the claims soon end: they last at least `TASK_TIME_LIMIT`."""
_HAND_BACK_PAUSE_S = 1.0
_OLD_AFTER = timedelta(seconds=30)
"""A message that waited longer may be one of two for the same login."""
_LONGEST_PAUSE_S = 8.0


@dataclass(slots=True)
class SyncSummary:
    """Result of a batch.

    Attributes:
        runs: the run's id for each provider that was synced.
        refused: the reason for each of the others.
    """

    runs: dict[UUID, UUID] = field(default_factory=dict)
    refused: dict[UUID, str] = field(default_factory=dict)


async def claim_sync_due(runtime: Context, now: datetime) -> list[list[UUID]]:
    """Claims what is due per integration, earliest first, and divides it into batches.

    Raises:
        Unavailable: Postgres is out of reach; all work is kept.
    """
    settings = runtime.settings
    batches: list[list[UUID]] = []
    allowed = await breaker.claimable(runtime, now, endpoint=None, at_most=settings.claim_limit)
    probing = await breaker.probing(runtime)
    for provider_key, limit in allowed.items():
        if limit < 1:
            continue
        ids = await runtime.db(
            providers.claim_sync_due,
            provider_key=provider_key,
            now=now,
            limit=limit,
            # If a claim ends while its run still works, the provider is sent once more and that sync is refused.
            claim=timedelta(seconds=max(settings.claim_seconds, settings.task_time_limit)),
            probe=provider_key in probing,
        )
        size = settings.sync_batch_size
        batches += [list(ids[start : start + size]) for start in range(0, len(ids), size)]
    return batches


async def sync_providers(
    runtime: Context,
    ids: Iterable[UUID],
    *,
    trigger: str = Trigger.SCHEDULE,
    mode: str = "incremental",
    since: date | None = None,
    force: bool = False,
    hand_back: bool = False,
    asked_at: datetime | None = None,
) -> SyncSummary:
    """Syncs several providers, a few at a time. An error with one does not affect the others.

    Those that have not begun when half of the task's time is over stay due. With `hand_back`, used for providers that a
    tick has claimed, they are due at once instead of at the end of the claim. If Postgres is out of reach, it waits.
    With `asked_at`, the time at which a tick sent them, those are left out that were synced since then.

    Raises:
        Unavailable: Postgres is out of reach; what has not been synced is done later.
    """
    begun_at = asyncio.get_running_loop().time()
    summary = SyncSummary()
    unavailable, left = list[Unavailable](), list[UUID]()
    asked = await _still_wanted(runtime, list(dict.fromkeys(ids)), asked_at, summary)
    begun = await _begin_repeats(runtime, asked, trigger=trigger, mode=mode, since=since)
    batch = Batch.of(runtime, looking=len(begun))

    async def begin_and_run(provider_id: UUID) -> None:
        async with batch.places:
            if asyncio.get_running_loop().time() > batch.begin_before:
                summary.refused[provider_id] = "no time left in this batch; done later"
                left.append(provider_id)
            else:
                summary.runs[provider_id] = await _begin_and_run(
                    runtime, provider_id, trigger=trigger, mode=mode, since=since, force=force
                )

    async def sync(provider_id: UUID) -> None:
        try:
            if provider_id in begun:
                summary.runs[provider_id] = await _run(runtime, *begun[provider_id], trigger=trigger, batch=batch)
            else:
                await begin_and_run(provider_id)
        except Unavailable as error:
            unavailable.append(error)
            left.append(provider_id)
            summary.refused[provider_id] = str(error)
        except DashtamError as error:
            log.warning("sync_refused", provider_id=str(provider_id), error=str(error))
            summary.refused[provider_id] = str(error)
        except Exception as error:  # an error of ours with one provider must not stop the others
            log.exception("sync_unexpected", provider_id=str(provider_id))
            summary.refused[provider_id] = type(error).__name__

    await asyncio.gather(*map(sync, asked))
    if hand_back and left:
        await _hand_back(runtime, left, until=begun_at + runtime.settings.task_soft_time_limit * _WAITING_SHARE)
    if unavailable and not summary.runs:
        raise unavailable[0]
    return summary


async def _still_wanted(
    runtime: Context, ids: list[UUID], asked_at: datetime | None, summary: SyncSummary
) -> list[UUID]:
    """Leaves out what another message has had done meanwhile: with a long queue, logins are claimed more than once."""
    if asked_at is None:
        return ids
    try:
        now = await runtime.now()
        if now - asked_at < _OLD_AFTER:
            return ids
        done = await runtime.db(providers.synced_since, ids=ids, asked_at=asked_at, now=now)
    except Unavailable:
        return ids  # the runs will say it
    if done:
        log.info("syncs_already_done", count=len(done))
    summary.refused.update(dict.fromkeys(done, "synced since this was asked for"))
    return [id_ for id_ in ids if id_ not in done]


async def _begin_repeats(
    runtime: Context, ids: Sequence[UUID], *, trigger: str, mode: str, since: date | None
) -> dict[UUID, tuple[RunBegun, LastRun]]:
    """Begins the runs that may repeat the last one; none if Postgres is out of reach, which the other runs will say."""
    if not repeats.may_repeat(trigger=trigger, mode=mode, since=since):
        return {}
    try:
        return await repeats.begin(runtime, ids)
    except Unavailable:
        return {}


async def _hand_back(runtime: Context, ids: Sequence[UUID], *, until: float) -> None:
    """Makes claimed providers due now whose sync has not begun. Otherwise they would wait until the claim ends.

    Raises:
        Unavailable: Postgres did not answer until that time.
    """
    pause = _HAND_BACK_PAUSE_S
    while True:
        try:
            await runtime.db(providers.hand_back_sync, ids=ids)
        except Unavailable:
            if asyncio.get_running_loop().time() + pause > until:
                raise
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_S)
        else:
            log.info("syncs_handed_back", count=len(ids))
            return


async def sync_provider(
    runtime: Context,
    provider_id: UUID,
    *,
    trigger: str,
    mode: str = "incremental",
    since: date | None = None,
    force: bool = False,
) -> UUID:
    """Syncs one provider; returns the id of its run, whose row has the result.

    Args:
        runtime: the process's context.
        provider_id: the login.
        trigger: who asks.
        mode: `incremental`, or `full`: reads every feed from its beginning and withdraws what is no longer listed.
        since: the day to which feeds by date go back.
        force: ignores the minimum interval between manual syncs.

    Raises:
        NotFound: no such provider.
        Refused: it is not active, its integration is not enabled, it is being synced or was a moment ago.
        Fenced: another worker took over.
        Unavailable: Postgres is out of reach; the next run continues from the committed cursors.
    """
    begun = await _begin_repeats(runtime, [provider_id], trigger=trigger, mode=mode, since=since)
    if provider_id in begun:
        batch = Batch.of(runtime, looking=1)
        return await _run(runtime, *begun[provider_id], trigger=trigger, batch=batch)
    return await _begin_and_run(runtime, provider_id, trigger=trigger, mode=mode, since=since, force=force)


async def _begin_and_run(
    runtime: Context, provider_id: UUID, *, trigger: str, mode: str, since: date | None, force: bool
) -> UUID:
    settings = runtime.settings
    manual = trigger == Trigger.MANUAL
    begun = await runtime.db(
        beginning.begin_run,
        provider_id=provider_id,
        owner=runtime.owner,
        trigger=Trigger(trigger),
        mode=mode,
        since=since,
        now=await runtime.now(),
        dead_after=timedelta(seconds=settings.run_dead_seconds),
        min_interval=timedelta(seconds=settings.sync_min_interval) if manual and not force else None,
        memory_feeds={key: integration.memory_feeds for key, integration in runtime.integrations.items()},
    )
    return await _run(runtime, begun, None, trigger=trigger)


async def _run(
    runtime: Context, begun: RunBegun, last: LastRun | None, *, trigger: str, batch: Batch | None = None
) -> UUID:
    key = begun.key
    with structlog.contextvars.bound_contextvars(provider_id=str(key.provider_id), run_id=str(key.id)):
        await RunUnderWay(runtime, begun, trigger=trigger, last=last).run(batch)
    return key.id

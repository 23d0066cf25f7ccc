"""Claims what is due for a sync, and syncs a batch of providers; afterwards the tables equal what each provider holds.

1. Begin a run: one per provider; a dead one is taken over.
2. Ask for a token, then for pages from the committed cursors on. No transaction is open across a call.
3. Apply each page in one transaction with its cursor, fenced by the run (`worker.crud.sync.pages`).
4. A refused access token is renewed and the pages go on from the committed cursors; a pagination loop that the
   provider wants restarted is undone first.
5. A full sync then withdraws what it has not seen; the books are checked; the run ends and says when the next is due.

A worker may die between any two of these lines: the next run goes on from the committed cursors.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from uuid import UUID

import structlog

from worker.crud import providers
from worker.crud.sync import runs
from worker.errors import DashtamError, Unavailable
from worker.models.vocabulary import Trigger
from worker.services.availability import breaker
from worker.services.context import Context
from worker.services.sync.run import RunUnderWay

log = structlog.get_logger()

_WAITING_SHARE = 0.9
"""Of a task's time: when it is over, the claim, which lasts for `TASK_TIME_LIMIT` at least, soon is as well."""
_HAND_BACK_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 8.0


@dataclass(slots=True)
class SyncSummary:
    """What became of a batch.

    Attributes:
        runs: id of the run of each provider that was synced.
        refused: why each of the others was not.
    """

    runs: dict[UUID, UUID] = field(default_factory=dict)
    refused: dict[UUID, str] = field(default_factory=dict)


async def claim_sync_due(runtime: Context, now: datetime) -> list[list[UUID]]:
    """Claims what is due per integration, earliest first, and cuts it into batches.

    Raises:
        Unavailable: Postgres is away; all work is kept.
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
            # A claim that ends while its run goes on costs one refusal.
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
) -> SyncSummary:
    """Syncs several providers, a few at a time; one's trouble is no other's.

    Those that have not begun when half of the task's time is over are left due. With `hand_back`, which is for what a
    tick has claimed, they are due at once instead of at the claim's end; a Postgres that is away is waited for.

    Raises:
        Unavailable: Postgres is away; what has not been synced is done later.
    """
    begun_at = asyncio.get_running_loop().time()
    summary = SyncSummary()
    places = asyncio.Semaphore(runtime.settings.sync_concurrency)
    begin_before = begun_at + runtime.settings.task_soft_time_limit / 2
    unavailable: list[Unavailable] = []
    left: list[UUID] = []

    async def sync(provider_id: UUID) -> None:
        async with places:
            if asyncio.get_running_loop().time() > begin_before:
                summary.refused[provider_id] = "no time left in this batch; done later"
                left.append(provider_id)
                return
            try:
                summary.runs[provider_id] = await sync_provider(
                    runtime, provider_id, trigger=trigger, mode=mode, since=since, force=force
                )
            except Unavailable as error:
                unavailable.append(error)
                left.append(provider_id)
                summary.refused[provider_id] = str(error)
            except DashtamError as error:
                log.warning("sync_refused", provider_id=str(provider_id), error=str(error))
                summary.refused[provider_id] = str(error)
            except Exception as error:  # a fault of ours with one provider must not stop the others
                log.exception("sync_unexpected", provider_id=str(provider_id))
                summary.refused[provider_id] = type(error).__name__

    await asyncio.gather(*(sync(provider_id) for provider_id in dict.fromkeys(ids)))
    if hand_back and left:
        await _hand_back(runtime, left, until=begun_at + runtime.settings.task_soft_time_limit * _WAITING_SHARE)
    if unavailable and not summary.runs:
        raise unavailable[0]
    return summary


async def _hand_back(runtime: Context, ids: Sequence[UUID], *, until: float) -> None:
    """Makes due what a tick has claimed for nothing: its claim alone would keep it waiting for minutes.

    Raises:
        Unavailable: Postgres was silent until then.
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
    """Syncs one provider; returns its run, which says how it went.

    Args:
        runtime: the process's.
        provider_id: whose.
        trigger: who asks.
        mode: `incremental`, or `full`: from the beginning of every feed, withdrawing what is no longer listed.
        since: feeds by date go back to this day.
        force: passes the minimum interval of manual syncs.

    Raises:
        NotFound: no such provider.
        Refused: it is not active, its integration is not enabled, it is being synced or was a moment ago.
        Fenced: another worker took over.
        Unavailable: Postgres went away; the next run goes on from the committed cursors.
    """
    settings = runtime.settings
    manual = trigger == Trigger.MANUAL
    begun = await runtime.db(
        runs.begin_run,
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
    with structlog.contextvars.bound_contextvars(provider_id=str(provider_id), run_id=str(begun.key.id)):
        await RunUnderWay(runtime, begun, trigger=trigger).run()
    return begun.key.id

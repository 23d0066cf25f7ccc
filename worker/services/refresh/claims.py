"""Claims of the refresh tick: providers that fall due before the next tick, spread over the time until then."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil
from uuid import UUID

from worker.crud import providers
from worker.services.availability import breaker
from worker.services.context import Context

_LEAST_PER_MESSAGE = 10


@dataclass(frozen=True, slots=True)
class DueBatch:
    """Claimed providers, and when their refresh begins.

    Attributes:
        after_s: seconds from the claim until it begins.
    """

    after_s: float
    ids: list[UUID]


async def claim_refresh_due(runtime: Context, now: datetime, *, tick_s: float) -> list[DueBatch]:
    """Claims what falls due before the next tick, per integration and earliest first, and spreads it over the tick.

    Spreading avoids peaks of calls in a large fleet. A small number of providers is sent at once.

    Args:
        runtime: the process's context.
        now: the tick's time.
        tick_s: seconds until the next tick.

    Raises:
        Unavailable: Postgres is out of reach; all work is kept.
    """
    settings = runtime.settings
    batches: list[DueBatch] = []
    allowed = await breaker.claimable(runtime, now, endpoint="token", at_most=settings.refresh_claim_limit)
    probing = await breaker.probing(runtime)
    for provider_key, limit in allowed.items():
        if limit < 1 or runtime.integrations[provider_key].refresh_policy is None:
            continue
        ids = await runtime.db(
            providers.claim_refresh_due,
            provider_key=provider_key,
            now=now + timedelta(seconds=tick_s),
            limit=limit,
            claim=timedelta(seconds=settings.claim_seconds),
            probe=provider_key in probing,
        )
        batches += spread(ids, tick_s=tick_s, batch_size=settings.batch_size)
    return batches


def spread(ids: Sequence[UUID], *, tick_s: float, batch_size: int) -> list[DueBatch]:
    """Divides one tick's claim into messages: one per second of the tick, if there are enough providers for that."""
    seconds = max(1, int(tick_s))
    slots = max(1, min(seconds, ceil(len(ids) / _LEAST_PER_MESSAGE)))
    batches = []
    for slot in range(slots):
        share = ids[slot * len(ids) // slots : (slot + 1) * len(ids) // slots]
        batches += [
            DueBatch(after_s=slot * tick_s / slots, ids=list(share[start : start + batch_size]))
            for start in range(0, len(share), batch_size)
        ]
    return batches

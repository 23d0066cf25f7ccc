"""What a batch's calls tell others: the breaker, the alarm and the metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from uuid import UUID

import structlog

from worker.errors import ProviderError, Unavailable
from worker.services.availability import breaker
from worker.services.context import Context
from worker.services.refresh import due
from worker.services.refresh.plan import Call, Ended
from worker.services.refresh.results import Outcome, RefreshResult
from worker.telemetry import metrics

log = structlog.get_logger()

_SECONDS = 10.0


async def report(runtime: Context, ended: Sequence[Ended], results: Mapping[UUID, RefreshResult]) -> None:
    """Tells how calls have ended. Never raises: what cannot be told is logged."""
    by_key: dict[str, list[Ended]] = {}
    for item in ended:
        by_key.setdefault(item.call.leased.provider_key, []).append(item)
        _observe(item.call, results[item.call.leased.provider_id].outcome)
    for provider_key, items in by_key.items():
        try:
            async with asyncio.timeout(_SECONDS):
                await breaker.report(
                    runtime,
                    provider_key,
                    [item.outcome if isinstance(item.outcome, ProviderError) else None for item in items],
                    provider_ids=[item.call.leased.provider_id for item in items],
                )
        except (Unavailable, TimeoutError):
            log.warning("availability_unreported", provider_key=provider_key)


def _observe(call: Call, outcome: Outcome) -> None:
    leased = call.leased
    due_at = due.refresh_due_at(
        call.policy,
        provider_id=leased.provider_id,
        generation=leased.generation,
        issued_at=leased.issued_at,
        lifetime=leased.lifetime,
    )
    if outcome is not Outcome.REFRESHED or due_at is None or leased.lifetime is None:
        metrics.observe_refresh(leased.provider_key, outcome)
        return
    now = call.now()
    metrics.observe_refresh(
        leased.provider_key,
        outcome,
        lag_s=(now - due_at).total_seconds(),
        in_time=now < leased.issued_at + leased.lifetime,
    )

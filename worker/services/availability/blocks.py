"""Permits are taken from a quota's budget in blocks, so that not every call asks Redis: how large, and until when."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from worker.errors import RateLimited, Scope
from worker.integrations.kit.base import Quota

OVER_BUDGET = "over_budget"
"""Reason of a call that no permit was left for."""

_BLOCK_SHARES = {"app": 20, "provider": 4, "account": 4}
"""A block is one part in so many of a limit. One login's calls mostly come from one process at a time."""
_BLOCK_AT_MOST = 50


@dataclass(slots=True)
class Bucket:
    """Permits of one quota that this process has taken and not used."""

    name: str
    permits: int = 0
    until: float = 0.0
    refused_until: float = 0.0
    taking: asyncio.Lock = field(default_factory=asyncio.Lock)


def over_budget(quota: Quota, seconds: float) -> RateLimited:
    """The refusal of a call that must wait `seconds`."""
    scope = {"app": Scope.APP, "provider": Scope.PROVIDER, "account": Scope.ACCOUNT}[quota.scope]
    return RateLimited(OVER_BUDGET, scope=scope, retry_after=timedelta(seconds=max(seconds, 1)))


def blocks(quota: Quota, limit: int) -> Iterator[int]:
    """How many permits to ask for at once, the most first; fewer where the budget has not so many left."""
    block = min(limit // _BLOCK_SHARES[quota.scope], _BLOCK_AT_MOST)
    if quota.daily and limit <= 4 * _BLOCK_AT_MOST:
        block = 1  # what a process leaves of a block is lost until midnight
    if block > 1:
        yield block
    yield 1


def as_time(seconds: float) -> datetime:
    """Seconds since the epoch as a time."""
    return datetime.fromtimestamp(seconds, UTC)


def next_midnight(seconds: float) -> float:
    """When the day in UTC ends that this moment is in, in seconds since the epoch."""
    day = as_time(seconds).replace(hour=0, minute=0, second=0, microsecond=0)
    return (day + timedelta(days=1)).timestamp()

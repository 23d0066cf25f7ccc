"""Sizes of the blocks in which permits are taken from a quota, so that most calls need not ask Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from worker.errors import RateLimited, Scope
from worker.integrations.kit.base import Quota

OVER_BUDGET = "over_budget"
"""Reason of a call that was refused because no permit was left."""

_BLOCK_SHARES = {"app": 20, "provider": 4, "account": 4}
"""A block is the limit divided by this; larger for one login, whose calls mostly come from one process at a time."""
_BLOCK_AT_MOST = 50


@dataclass(slots=True)
class Bucket:
    """Permits of one quota that this process has taken and not yet used."""

    name: str
    permits: int = 0
    until: float = 0.0
    refused_until: float = 0.0
    taking: asyncio.Lock = field(default_factory=asyncio.Lock)


def over_budget(quota: Quota, seconds: float) -> RateLimited:
    """The error for a call that must wait `seconds`."""
    scope = {"app": Scope.APP, "provider": Scope.PROVIDER, "account": Scope.ACCOUNT}[quota.scope]
    return RateLimited(OVER_BUDGET, scope=scope, retry_after=timedelta(seconds=max(seconds, 1)))


def blocks(quota: Quota, limit: int) -> Iterator[int]:
    """Numbers of permits to ask for, in this order: first a whole block, then 1 if so many are not left."""
    block = min(limit // _BLOCK_SHARES[quota.scope], _BLOCK_AT_MOST)
    if quota.daily and limit <= 4 * _BLOCK_AT_MOST:
        block = 1  # permits that a process takes and does not use would be lost until midnight
    if block > 1:
        yield block
    yield 1


def as_time(seconds: float) -> datetime:
    """Seconds since the epoch as a time."""
    return datetime.fromtimestamp(seconds, UTC)


def next_midnight(seconds: float) -> float:
    """The next midnight in UTC after this moment. Both are seconds since the epoch."""
    day = as_time(seconds).replace(hour=0, minute=0, second=0, microsecond=0)
    return (day + timedelta(days=1)).timestamp()

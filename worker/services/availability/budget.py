"""Interface of an integration's call budget; the implementation, which counts in Redis, is in `quotas`."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from worker.errors import RateLimited
from worker.integrations.kit.http import Gate


class QuotaUse(NamedTuple):
    """How much of one of the application's quotas is used now."""

    scope: str
    endpoint: str | None
    limit: int
    per_seconds: int
    used: int


class Budget(Gate, Protocol):
    """The call budget of one integration."""

    async def hold(self, error: RateLimited) -> None:
        """Stops the calls of all workers until the time that the provider named."""
        ...

    async def usage(self) -> list[QuotaUse]:
        """How much of each of the application's quotas is used; empty while Redis is out of reach."""
        ...

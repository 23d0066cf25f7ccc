"""Limits the rate of requests, counted in Redis for all web processes together."""

from __future__ import annotations

import time
from typing import Any

from limits import RateLimitItem, parse
from limits.aio.storage import MemoryStorage, RedisStorage, Storage
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from redis.exceptions import RedisError

from worker.process.clocks import elapsed
from worker.process.logger import Logger
from worker.process.redis_client import async_pool
from worker.settings import Settings

log = Logger(__name__)

_SECONDS = 0.5
_ALONE_SECONDS = 10.0
_KEYS = "dashtam:web"


class Rates:
    """Counts requests. While Redis is unreachable, each process counts for itself, so that the HTTP API still works.

    Args:
        settings: have the address of Redis.
    """

    def __init__(self, settings: Settings) -> None:
        self._pool = async_pool(settings.redis_url.get_secret_value(), seconds=_SECONDS)
        options: dict[str, Any] = {"connection_pool": self._pool}
        # With a pool given, `limits` reads no more than the scheme from this address.
        self._shared = _Limiter(RedisStorage("async+redis://", implementation="redispy", key_prefix=_KEYS, **options))
        self._own = _Limiter(MemoryStorage())
        self._alone_until = float("-inf")

    async def wait(self, rate: str, kind: str, who: str) -> float | None:
        """Counts one request. Returns None if it is allowed, else the seconds to wait before the next.

        Args:
            rate: the limit, for example `600/minute`.
            kind: `key` or `address`.
            who: the key or address.
        """
        item = parse(rate)
        if elapsed() >= self._alone_until:
            try:
                return await self._shared.wait(item, kind, who)
            except (RedisError, OSError) as error:
                self._alone_until = elapsed() + _ALONE_SECONDS
                log.warning("rates_alone", error=type(error).__name__, next="this process counts for itself meanwhile")
        return await self._own.wait(item, kind, who)

    async def wait_here(self, rate: str, kind: str, who: str) -> float | None:
        """Like `wait`, but each process counts for itself: it costs no call to Redis."""
        return await self._own.wait(parse(rate), kind, who)

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._pool.aclose()


class _Limiter:
    def __init__(self, storage: Storage) -> None:
        self._strategy = SlidingWindowCounterRateLimiter(storage)

    async def wait(self, item: RateLimitItem, *who: str) -> float | None:
        if await self._strategy.hit(item, *who):
            return None
        stats = await self._strategy.get_window_stats(item, *who)
        return max(0.0, stats.reset_time - time.time())

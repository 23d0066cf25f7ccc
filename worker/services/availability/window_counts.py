"""Counts of an integration's calls in time windows: in Redis for all workers together, and in memory without Redis.

Many logins are synced at the same time, and each has quotas of its own. So whatever is asked for while Redis is still
answering goes to it together in the next message. (A thread and a round trip for each took half of an idle sync's CPU.)
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import redis

from worker.process import redis_names
from worker.process.logger import Logger
from worker.process.redis_client import connect
from worker.services.context import Context

if TYPE_CHECKING:
    from limits.storage import MemoryStorage, RedisStorage

log = Logger(__name__)
T = TypeVar("T")

PERMIT_SECONDS = 1
"""How long a permit may stay unused. Windows are counted this much longer, so that late use cannot exceed a limit."""
_REDIS_REST_SECONDS = 5.0
_LOCAL_SHARE = 8
"""Without Redis each process may use the budget divided by this."""


class _Asked(NamedTuple):
    """Permits of one window that somebody asks for.

    Attributes:
        key: names the window.
        limit: how many calls the window may have.
        seconds: how long a call counts.
        amount: number of permits.
    """

    key: str
    limit: int
    seconds: int
    amount: int


class WindowCounts:
    """Counts the calls of one integration.

    Args:
        runtime: the process's context.
        provider_key: the integration.
        clock: returns seconds since the epoch.

    Attributes:
        redis_rests_until: until then Redis is not asked, because it has just failed.
    """

    def __init__(self, runtime: Context, provider_key: str, clock: Callable[[], float]) -> None:
        self._runtime = runtime
        self._key = provider_key
        self._clock = clock
        self._waiting: list[tuple[_Asked, asyncio.Future[bool]]] = []
        self._asking: asyncio.Task[None] | None = None
        self._client: redis.Redis | None = None
        self._windows: RedisStorage | None = None
        self._opening = threading.Lock()
        self.redis_rests_until = 0.0
        self._local: MemoryStorage | None = None

    async def take(self, name: str, *, limit: int, seconds: int, amount: int) -> bool:
        """Takes `amount` permits of the window `name`, if so many are left."""
        asked = _Asked(f"{self._key}:{name}", limit, seconds + PERMIT_SECONDS, amount)
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append((asked, answer))
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._answer_all())
        return await answer

    async def window(self, name: str, *, limit: int, seconds: int) -> tuple[float, int] | None:
        """When the window's oldest call was counted, and how many calls it has; None without Redis."""
        key, counted = f"{self._key}:{name}", seconds + PERMIT_SECONDS
        return await self._ask(lambda windows, _: windows.get_moving_window(key, limit, counted))

    async def ask(self, question: Callable[[redis.Redis], object]) -> int | None:
        """Redis's answer to another question if it is a number; None without Redis."""
        answer = await self._ask(lambda _, client: question(client))
        return answer if isinstance(answer, int) else None

    def close(self) -> None:
        """Closes the connections to Redis."""
        if self._client is not None:
            self._client.close()
            self._client.connection_pool.disconnect()

    async def _answer_all(self) -> None:
        while together := [(asked, answer) for asked, answer in self._waiting if not answer.done()]:
            self._waiting = []
            try:
                taken = await asyncio.to_thread(self._take, [asked for asked, _ in together])
            except Exception as error:
                for _, answer in together:
                    if not answer.done():
                        answer.set_exception(error)
            else:
                for (_, answer), was_taken in zip(together, taken, strict=True):
                    if not answer.done():
                        answer.set_result(was_taken)

    def _take(self, together: Sequence[_Asked]) -> list[bool]:
        if (windows := self._storage()) is not None and self._client is not None:
            try:
                return _take_in_redis(windows, self._client, together)
            except redis.RedisError as error:
                self._rest_from_redis(error)
        if self._local is None:
            from limits.storage import MemoryStorage  # a slow import, which no command needs

            self._local = MemoryStorage()
        return [
            self._local.acquire_entry(one.key, max(1, one.limit // _LOCAL_SHARE), one.seconds, one.amount)
            for one in together
        ]

    async def _ask(self, question: Callable[[RedisStorage, redis.Redis], T]) -> T | None:
        return await asyncio.to_thread(self._ask_now, question)

    def _ask_now(self, question: Callable[[RedisStorage, redis.Redis], T]) -> T | None:
        windows = self._storage()
        if windows is None or self._client is None:
            return None
        try:
            return question(windows, self._client)
        except redis.RedisError as error:
            self._rest_from_redis(error)
            return None

    def _storage(self) -> RedisStorage | None:
        """Redis, unless it failed a moment ago: waiting for its time-out at every call would stop all work."""
        if self._clock() < self.redis_rests_until:
            return None
        with self._opening:
            if self._windows is None:
                from limits.storage import RedisStorage

                self._client = connect(self._runtime.settings.redis_url.get_secret_value(), seconds=1)
                pool = self._client.connection_pool
                # With a pool given, `limits` reads no more than the scheme from this address.
                self._windows = RedisStorage("redis://", connection_pool=pool, key_prefix=redis_names.QUOTA)
            return self._windows

    def _rest_from_redis(self, error: Exception) -> None:
        if self._clock() < self.redis_rests_until:
            return  # another thread has just done this
        self.redis_rests_until = self._clock() + _REDIS_REST_SECONDS
        log.warning(
            "quotas_without_redis",
            provider_key=self._key,
            error=type(error).__name__,
            kept=f"each process goes on with 1/{_LOCAL_SHARE} of the budget",
        )


def _take_in_redis(windows: RedisStorage, client: redis.Redis, together: Sequence[_Asked]) -> list[bool]:
    # Not a `RateLimiter`: its keys contain the limit, but both shares of the budget must be one count.
    if len(together) == 1:
        (one,) = together
        return [windows.acquire_entry(*one)]
    with client.pipeline(transaction=False) as pipeline:
        for one in together:  # as `acquire_entry`, which knows no pipeline
            given = [time.time(), one.limit, one.seconds, one.amount]
            windows.lua_acquire_moving_window([windows.prefixed_key(one.key)], given, client=pipeline)
        return [bool(taken) for taken in pipeline.execute()]

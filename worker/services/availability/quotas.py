"""The call budget of one integration, shared by all workers.

Quotas per time window are counted in Redis by `limits`, daily quotas in Postgres. A process takes permits in small
blocks, so that most calls need no query. A call over the budget is deferred to a later time; this is no failure.

Without Redis each process continues with a fraction of the budget, counted in its own memory: a worker that holds a
lease can finish, and no provider gets too many calls. A `Retry-After` holds up all callers within its scope.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from hashlib import blake2b

from worker.crud import quotas as quota_days
from worker.errors import RateLimited, Scope, Unavailable
from worker.integrations.kit.base import Caller, Quota
from worker.process import redis_names
from worker.process.logger import Logger
from worker.services.availability import breaker
from worker.services.availability.blocks import OVER_BUDGET, Bucket, as_time, blocks, next_midnight, over_budget
from worker.services.availability.budget import QuotaUse
from worker.services.availability.window_counts import PERMIT_SECONDS, WindowCounts
from worker.services.context import Context
from worker.telemetry import metrics

log = Logger(__name__)

_HOLD_CACHE_SECONDS = 1.0
_SAME_HOLD_SECONDS = 1.0
_UNCOUNTED_SECONDS = 10
_BUCKETS_AT_MOST = 20_000
_SCOPES = {"account": 0, "provider": 1, "app": 2}


class QuotaGate:
    """The gate that all calls of one integration pass (`worker.integrations.kit.http.Gate`).

    Args:
        runtime: the process's context (settings, Redis and Postgres).
        provider_key: the integration.
        quotas: its limits; by default those that the integration states, times `QUOTA_SCALE`.
        clock: returns seconds since the epoch.
    """

    def __init__(
        self,
        runtime: Context,
        provider_key: str,
        *,
        quotas: tuple[Quota, ...] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._runtime = runtime
        self._key = provider_key
        self._stated = quotas
        self._clock = clock
        self._by_endpoint: dict[str, tuple[Quota, ...]] = {}
        self._buckets: dict[tuple[Quota, object, object, bool], Bucket] = {}
        self._hold_until = 0.0
        self._hold_checked = 0.0
        self.counts = WindowCounts(runtime, provider_key, clock)

    async def admit(self, caller: Caller, *, endpoint: str, account_key: str | None) -> None:
        """Counts one call for every quota that applies to it, the narrowest first.

        Raises:
            RateLimited: the budget is used up, the provider asked us to wait, the integration is paused, or the breaker
                is open; `retry_after` is the time to wait. Nothing was sent.
        """
        try:
            await self._admit(caller, endpoint, account_key)
        except RateLimited:
            metrics.observe_quota(self._key, admitted=False)
            raise
        metrics.observe_quota(self._key, admitted=True)

    async def _admit(self, caller: Caller, endpoint: str, account_key: str | None) -> None:
        await self._require_available(caller)
        await self._require_no_hold()
        taken: list[Bucket] = []
        for quota in self._applicable(endpoint):
            bucket = self._bucket(quota, caller, account_key)
            now = self._clock()
            if bucket.permits == 0 or bucket.until <= now:
                try:
                    await self._refill(bucket, quota, caller)
                except RateLimited:
                    for other in taken:
                        other.permits += 1
                    raise
            bucket.permits -= 1
            taken.append(bucket)

    async def hold(self, error: RateLimited) -> None:
        """Stops the calls of all workers until the time that the provider named, for `retry_after_max` seconds at most.

        Only a limit of the whole application stops all workers; a narrower limit moves only the login's due time.
        If the provider named no time, nothing is stopped.
        """
        if error.retry_after is None or error.scope is not Scope.APP or error.reason in _OUR_REASONS:
            return
        now = self._clock()
        seconds = min(error.retry_after.total_seconds(), self._runtime.settings.retry_after_max)
        until = now + seconds
        if seconds <= 0 or until <= self._hold_until + _SAME_HOLD_SECONDS:
            return
        self._hold_until = until
        log.warning("integration_held", provider_key=self._key, until=as_time(until).isoformat(), reason=error.reason)
        # The time ends in Redis, as a key that expires: the clocks of the machines differ.
        milliseconds = max(1, int(seconds * 1000))
        await self.counts.ask(lambda client: client.set(self._hold_key, error.reason, px=milliseconds))

    def close(self) -> None:
        """Closes the connections to Redis."""
        self.counts.close()

    async def usage(self) -> list[QuotaUse]:
        """How much of each of the application's quotas is used; empty while Redis is out of reach."""
        found = []
        for quota in self._quotas:
            if quota.scope != "app":
                continue
            name = self._name(quota, None, None)
            if quota.daily:
                count = await self._runtime.db(
                    quota_days.used, provider_key=self._key, bucket=name, day=as_time(self._clock()).date()
                )
            else:
                window = await self.counts.window(name, limit=quota.limit, seconds=quota.per_seconds)
                if window is None:
                    return []
                count = window[1]
            found.append(QuotaUse(quota.scope, quota.endpoint, quota.limit, quota.per_seconds, count))
        return found

    @property
    def _quotas(self) -> tuple[Quota, ...]:
        if self._stated is None:
            scale, stated = self._runtime.settings.quota_scale, self._runtime.integrations[self._key].quotas
            self._stated = tuple(replace(quota, limit=max(1, int(quota.limit * scale))) for quota in stated)
        return self._stated

    def _applicable(self, endpoint: str) -> tuple[Quota, ...]:
        known = self._by_endpoint.get(endpoint)
        if known is None:
            fitting = [quota for quota in self._quotas if quota.endpoint in (None, endpoint)]
            # Daily quotas come last: a permit of a day would be lost if another quota then refused the call.
            fitting.sort(key=lambda quota: (quota.daily, _SCOPES[quota.scope]))
            known = self._by_endpoint[endpoint] = tuple(fitting)
        return known

    def _bucket(self, quota: Quota, caller: Caller, account_key: str | None) -> Bucket:
        provider = caller.provider_id if quota.scope != "app" else None
        account = account_key if quota.scope == "account" else None
        # The permits that are reserved for people who wait have a bucket of their own.
        key = (quota, provider, account, caller.manual)
        bucket = self._buckets.get(key)
        if bucket is None:
            if len(self._buckets) >= _BUCKETS_AT_MOST:
                self._forget_old_buckets()
            bucket = self._buckets[key] = Bucket(self._name(quota, provider, account))
        return bucket

    def _forget_old_buckets(self) -> None:
        now = self._clock()
        self._buckets = {
            key: bucket
            for key, bucket in self._buckets.items()
            if bucket.taking.locked() or bucket.until > now or bucket.refused_until > now
        }

    @staticmethod
    def _name(quota: Quota, provider: object, account: str | None) -> str:
        parts = [quota.scope, quota.endpoint or "*", str(quota.per_seconds)]
        if provider is not None:
            parts.append(str(provider))
        if account is not None:
            # Account ids are not secret, but they are not needed in Redis either: a digest is enough.
            parts.append(blake2b(account.encode(), digest_size=8).hexdigest())
        return ":".join(parts)

    async def _refill(self, bucket: Bucket, quota: Quota, caller: Caller) -> None:
        async with bucket.taking:
            now = self._clock()
            if bucket.permits and bucket.until > now:
                return
            if bucket.refused_until > now:
                raise over_budget(quota, bucket.refused_until - now)
            limit = quota.limit
            if not caller.manual:
                limit = max(1, int(limit * (1 - self._runtime.settings.manual_quota_share)))
            for block in blocks(quota, limit):
                if await self._take(bucket.name, quota, limit, block):
                    bucket.permits = block
                    bucket.until = next_midnight(now) if quota.daily else now + PERMIT_SECONDS
                    return
            bucket.refused_until = await self._free_at(bucket.name, quota, limit)
            raise over_budget(quota, bucket.refused_until - now)

    async def _take(self, name: str, quota: Quota, limit: int, amount: int) -> bool:
        if quota.daily:
            now = as_time(self._clock())
            try:
                return await self._runtime.db(
                    quota_days.take, provider_key=self._key, bucket=name, day=now.date(), amount=amount, limit=limit
                )
            except Unavailable:
                # Without Postgres the call is not counted and its result could not be stored. Nothing was sent.
                raise RateLimited(UNCOUNTED, retry_after=timedelta(seconds=_UNCOUNTED_SECONDS)) from None
        return await self.counts.take(name, limit=limit, seconds=quota.per_seconds, amount=amount)

    async def _free_at(self, name: str, quota: Quota, limit: int) -> float:
        now = self._clock()
        if quota.daily:
            return next_midnight(now)
        window = await self.counts.window(name, limit=limit, seconds=quota.per_seconds)
        oldest = window[0] if window is not None and window[1] else now
        span = quota.per_seconds + PERMIT_SECONDS
        # The clock of the machine that took the oldest permit may differ from ours.
        return min(max(oldest + span, now + 1), now + span)

    async def _require_available(self, caller: Caller) -> None:
        try:
            state = (await breaker.states(self._runtime)).get(self._key)
        except Unavailable:
            # The caller holds a lease or a run. That Postgres is out of reach shows when the result is stored.
            return
        if state is None:
            return
        if state.paused_at is not None:
            raise RateLimited(PAUSED, retry_after=timedelta(seconds=60))
        if state.breaker == "open" and not caller.manual:
            raise RateLimited(BREAKER_OPEN, retry_after=await self._until_probe(state.probe_at))

    async def _until_probe(self, probe_at: datetime | None) -> timedelta:
        shortest = timedelta(seconds=1)
        if probe_at is None:
            return shortest
        return max(probe_at - await self._runtime.now(), shortest)

    async def _require_no_hold(self) -> None:
        now = self._clock()
        if now - self._hold_checked >= _HOLD_CACHE_SECONDS:
            self._hold_checked = now
            left = await self.counts.ask(lambda client: client.pttl(self._hold_key))
            if left is not None and left > 0:
                self._hold_until = max(self._hold_until, now + left / 1000)
        if self._hold_until > now:
            raise RateLimited(HELD, retry_after=timedelta(seconds=self._hold_until - now))

    @property
    def _hold_key(self) -> str:
        return redis_names.hold(self._key)


PAUSED = "integration_paused"
BREAKER_OPEN = "breaker_open"
HELD = "held_by_provider"
UNCOUNTED = "quota_uncounted"
_OUR_REASONS = {PAUSED, BREAKER_OPEN, HELD, OVER_BUDGET, UNCOUNTED}

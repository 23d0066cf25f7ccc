"""Whether an integration may be called now: the kill switch and the circuit breaker.

An outage of a whole integration opens its breaker. Then ticks claim none of its logins, and calls for logins that were
already claimed are deferred, so that the outage does not count as failures of these logins. From `probe_at` on, one
login per tick is let through: an answer closes the breaker, a failure opens it for longer.

Refused client credentials pause the integration instead, and only an operator can end the pause. Some refusals do not
say whether one login or our application is the cause. They pause the integration only when several logins got them
and no other login was served: one locked account must not stop all others.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID
from weakref import WeakKeyDictionary

from worker.crud import integration_states
from worker.crud.fleet import breakers
from worker.crud.integration_states import BreakerPolicy
from worker.errors import (
    AppMisconfigured,
    BadPayload,
    Forbidden,
    InstitutionDown,
    NotFound,
    ProviderError,
    RateLimited,
    Scope,
    Transient,
    Unavailable,
)
from worker.integrations.kit.base import Quota
from worker.models import IntegrationState
from worker.process.logger import Logger
from worker.services.context import Context

log = Logger(__name__)

CACHE_SECONDS = 2.0
REFUSED_WITHIN = timedelta(hours=1)
"""Refusals are counted together over this time. A login that is always refused tries again after a minute, later once
per sync interval. Over a longer time the few such logins of every fleet would add up while no other login is synced."""
TICK_SECONDS = 15
"""Interval of the refresh tick. One tick claims as many logins as the quota allows until the next tick."""


class _Cache:
    def __init__(self) -> None:
        self.states: dict[str, IntegrationState] | None = None
        self.until = 0.0
        self.reading = asyncio.Lock()


_caches: WeakKeyDictionary[Context, _Cache] = WeakKeyDictionary()


async def states(runtime: Context) -> dict[str, IntegrationState]:
    """States by `provider_key`, at most two seconds old; an integration without one is closed and not paused."""
    cache = _caches.get(runtime) or _caches.setdefault(runtime, _Cache())
    if cache.states is not None and time.monotonic() < cache.until:
        return cache.states
    async with cache.reading:
        if cache.states is None or time.monotonic() >= cache.until:
            try:
                cache.states = await runtime.db(breakers.read_states)
            except Unavailable:
                if cache.states is None:
                    raise
                # A worker that holds a lease must not stop here: it goes on with the last known states.
                log.warning("integration_states_unread", kept="the last known states")
            cache.until = time.monotonic() + CACHE_SECONDS
        return cache.states


def _forget(runtime: Context) -> None:
    _caches.pop(runtime, None)


async def claimable(runtime: Context, now: datetime, *, endpoint: str | None, at_most: int) -> dict[str, int]:
    """How many providers of each integration a tick may claim now.

    0 while it is paused or its breaker is open; 1 while the breaker is half-open; otherwise what the application's
    quotas allow until the next tick, but never more than `at_most`. `endpoint` is the endpoint that the work calls:
    `token` for refreshes, None (any endpoint) for syncs.
    """
    known = await states(runtime)
    allowed = {}
    for key, integration in runtime.integrations.items():
        quotas = [quota for quota in integration.quotas if endpoint is None or quota.endpoint in (None, endpoint)]
        allowed[key] = await _claimable(runtime, key, quotas, known.get(key), now, at_most)
    return allowed


async def probing(runtime: Context) -> set[str]:
    """Integrations whose breaker is half-open: the logins claimed for them show whether the outage is over."""
    return {key for key, state in (await states(runtime)).items() if state.breaker == "half_open"}


async def _claimable(
    runtime: Context, key: str, quotas: Sequence[Quota], state: IntegrationState | None, now: datetime, at_most: int
) -> int:
    if state is not None and state.paused_at is not None:
        return 0
    if state is not None and state.breaker == "open":
        if state.probe_at is None or state.probe_at > now:
            return 0
        let_through = await runtime.db(integration_states.let_probe_through, provider_key=key, now=now)
        _forget(runtime)
        if let_through:
            log.info("breaker_half_open", provider_key=key)
        # Otherwise another worker has already let its probe through, and that probe may have failed by now.
        return int(let_through)
    if state is not None and state.breaker == "half_open":
        return 1
    settings = runtime.settings
    return per_tick(
        quotas,
        seconds=TICK_SECONDS * settings.tick_scale,
        share=settings.quota_scale * (1 - settings.manual_quota_share),
        at_most=at_most,
    )


def per_tick(quotas: Sequence[Quota], *, seconds: float, share: float, at_most: int) -> int:
    """How many calls a `share` of the application's quotas allows in `seconds`; at least 1."""
    rates = [quota.limit * share / quota.per_seconds for quota in quotas if quota.scope == "app" and not quota.daily]
    return max(1, min([at_most, *(int(rate * seconds) for rate in rates)]))


async def report(
    runtime: Context,
    provider_key: str,
    outcomes: Sequence[ProviderError | None],
    *,
    provider_ids: Sequence[UUID] | None = None,
    call: str = "refresh",
    now: datetime | None = None,
) -> None:
    """Reports the outcomes of calls to the breaker and the alarm. Makes no query while all calls succeed.

    `outcomes` has the result of each login's calls, in the order in which they ended; None is a success.
    `provider_ids` has the login of each outcome; without it, every outcome counts as another login's. `call` is the
    kind of call, `refresh` or `sync`: a success of one kind says nothing about the other. Report soon after a call has
    ended: the earlier the breaker opens, the fewer calls fail for the same reason.
    """
    now = now or await runtime.now()
    for outcome in outcomes:
        if isinstance(outcome, AppMisconfigured):
            await _alarm(runtime, provider_key, outcome.reason, now)
            return
        if isinstance(outcome, RateLimited):
            await runtime.gate(provider_key).hold(outcome)
    names = [str(id_) for id_ in provider_ids] if provider_ids else [f"#{place}" for place in range(len(outcomes))]
    await _watch_refusals(runtime, provider_key, outcomes, names, call=call, now=now)
    failing: list[str] = []
    answered = False
    for outcome, name in zip(outcomes, names, strict=True):
        if _is_outage(outcome):
            failing.append(name)
        elif _is_answer(outcome):
            failing.clear()
            answered = True
    if failing:
        await _count_failures(runtime, provider_key, failing, consecutive=not answered, now=now)
    elif answered:
        state = (await states(runtime)).get(provider_key)
        if (
            state is not None
            and (state.failures or state.breaker != "closed")
            and await runtime.db(integration_states.count_success, provider_key=provider_key)
        ):
            log.info("breaker_closed", provider_key=provider_key, next="the backlog drains at the quota's rate")
            _forget(runtime)


def _is_outage(outcome: ProviderError | None) -> bool:
    if isinstance(outcome, InstitutionDown):
        return outcome.scope is Scope.APP
    return isinstance(outcome, Transient) and outcome.scope in (Scope.APP, Scope.REQUEST)


def _is_answer(outcome: ProviderError | None) -> bool:
    """Whether the answer came from the provider's own software. Our own quota or an HTML page does not count."""
    return not isinstance(outcome, RateLimited | BadPayload | Forbidden | Transient | InstitutionDown)


async def _watch_refusals(
    runtime: Context,
    provider_key: str,
    outcomes: Sequence[ProviderError | None],
    names: Sequence[str],
    *,
    call: str,
    now: datetime,
) -> None:
    """Raises the alarm when several logins are refused and no login is served."""
    if None in outcomes:
        state = (await states(runtime)).get(provider_key)
        if state is not None and any(entry.startswith(f"{call}:") for entry in state.refused):
            await runtime.db(integration_states.forget_refused, provider_key=provider_key, call=call)
            _forget(runtime)
        return
    refused = {name: outcome for outcome, name in zip(outcomes, names, strict=True) if isinstance(outcome, Forbidden)}
    if not refused:
        return
    count = await runtime.db(
        integration_states.count_refused,
        provider_key=provider_key,
        call=call,
        logins=list(refused),
        now=now,
        within=REFUSED_WITHIN,
    )
    _forget(runtime)
    if count >= runtime.settings.refused_providers:
        reason = next(iter(refused.values())).reason
        await _alarm(runtime, provider_key, f"{count} logins were refused ({reason}) and none was served", now)


async def _count_failures(
    runtime: Context, provider_key: str, failing: Sequence[str], *, consecutive: bool, now: datetime
) -> None:
    settings = runtime.settings
    state, opened = await runtime.db(
        integration_states.count_failures,
        provider_key=provider_key,
        failures=len(failing),
        consecutive=consecutive,
        failing=failing,
        now=now,
        policy=BreakerPolicy(
            failures=settings.breaker_failures,
            providers=settings.breaker_providers,
            open_for=timedelta(seconds=settings.breaker_seconds),
            open_at_most=timedelta(seconds=settings.breaker_max_seconds),
        ),
    )
    if opened:
        log.error(
            "breaker_opened",
            provider_key=provider_key,
            failures=state.failures,
            probe_at=state.probe_at.isoformat() if state.probe_at else None,
            kept="pending work is kept; no login's failure count changes",
        )
    _forget(runtime)


async def _alarm(runtime: Context, provider_key: str, reason: str, now: datetime) -> None:
    raised = await runtime.db(
        integration_states.raise_alarm,
        provider_key=provider_key,
        reason=reason,
        now=now,
        channels=runtime.settings.enabled_channels,
    )
    if raised:
        log.critical(
            "integration_paused",
            provider_key=provider_key,
            reason=f"app_misconfigured: {reason}",
            actor="system",
            kept="users' links are unharmed",
            next=f"correct the application's credentials or products, then: dashtam integrations resume {provider_key}",
        )
        _forget(runtime)


async def pause(runtime: Context, provider_key: str, *, reason: str, actor: str) -> bool:
    """Stops all calls of an integration; `actor` is `operator:<name>`. Returns False if it was already paused.

    Raises:
        NotFound: no such integration is enabled.
    """
    _require(runtime, provider_key)
    paused = await runtime.db(
        integration_states.pause, provider_key=provider_key, reason=reason, actor=actor, now=await runtime.now()
    )
    if paused:
        log.warning("integration_paused", provider_key=provider_key, reason=reason, actor=actor)
        _forget(runtime)
    return paused


async def resume(runtime: Context, provider_key: str, *, actor: str, reason: str | None = None) -> bool:
    """Ends the pause of an integration and closes its breaker. Returns False if it was not paused.

    Raises:
        NotFound: no such integration is enabled.
    """
    _require(runtime, provider_key)
    resumed = await runtime.db(integration_states.resume, provider_key=provider_key)
    log.warning("integration_resumed", provider_key=provider_key, reason=reason, actor=actor, was_paused=resumed)
    _forget(runtime)
    return resumed


def _require(runtime: Context, provider_key: str) -> None:
    if provider_key not in runtime.integrations:
        raise NotFound(f"no integration {provider_key} is enabled; INTEGRATIONS has: {', '.join(runtime.integrations)}")

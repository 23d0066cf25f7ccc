"""When a provider is next synced. Pure: no clock, no chance, no database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from worker.errors import (
    AppMisconfigured,
    InstitutionDown,
    NotReady,
    ProviderError,
    RateLimited,
    ReauthRequired,
    Scope,
    Transient,
)
from worker.models.vocabulary import RunStatus
from worker.services.refresh.due import fraction

_FIRST_WAIT = timedelta(minutes=1)
_NOT_READY_WAIT = timedelta(minutes=1)
_SHORTEST_WAIT = timedelta(seconds=15)
"""A provider that names a shorter time is not taken at its word: it would be asked again at every tick."""
_JITTER = 0.1
_PASSING = (Transient, InstitutionDown, RateLimited)


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a run ends.

    Attributes:
        due_at: when the provider is next due; None when never by itself.
        failures: failed syncs in a row, this one included.
    """

    status: RunStatus
    due_at: datetime | None
    failures: int


def judge(
    *,
    provider_id: UUID,
    now: datetime,
    interval: timedelta,
    failures: int,
    error: Exception | None,
    problems: Sequence[ProviderError],
    landed: bool,
    every_account_failed: bool = False,
    cancelled: bool = False,
    goes_on: bool = False,
) -> Verdict:
    """What a run's end means for its status and for the next sync.

    Args:
        provider_id: spreads the fleet.
        now: when the run ended.
        interval: between syncs that go well.
        failures: failed syncs in a row before this one.
        error: what stopped the run; None when it read all.
        problems: troubles with parts of the login.
        landed: whether any page was stored.
        every_account_failed: no account is without a problem, which is no success however much was listed.
        cancelled: somebody asked for its end.
        goes_on: it stopped because its time was up.
    """
    regular = now + interval * (1 - _JITTER + 2 * _JITTER * fraction(provider_id, int(now.timestamp())))
    if isinstance(error, ReauthRequired):
        return Verdict(RunStatus.FAILED, None, failures + 1)
    if isinstance(error, NotReady):
        return Verdict(RunStatus.PARTIAL, now + _ready_after(error), failures)
    if isinstance(error, RateLimited):
        status = RunStatus.PARTIAL if landed else RunStatus.FAILED
        if error.retry_after is not None:
            return Verdict(status, now + max(error.retry_after, _SHORTEST_WAIT), failures)
        # Without a time of the provider's own the waits must grow, and only a count makes them.
        return Verdict(status, _retry_at(now, provider_id, failures + 1, interval, None), failures + 1)
    if error is not None:
        own = failures + (0 if _is_shared(error) else 1)
        after = error.retry_after if isinstance(error, ProviderError) else None
        due_at = _retry_at(now, provider_id, own, interval, after)
        return Verdict(RunStatus.FAILED, due_at, own)
    if cancelled:
        return Verdict(RunStatus.CANCELLED, regular, failures)
    if goes_on:
        return Verdict(RunStatus.PARTIAL, now, 0)
    return _judge_problems(provider_id, now, interval, failures, problems, regular, every_account_failed)


def _judge_problems(
    provider_id: UUID,
    now: datetime,
    interval: timedelta,
    failures: int,
    problems: Sequence[ProviderError],
    regular: datetime,
    every_account_failed: bool,
) -> Verdict:
    real = [problem for problem in problems if not isinstance(problem, NotReady)]
    waiting = [now + _ready_after(problem) for problem in problems if isinstance(problem, NotReady)]
    if any(isinstance(problem, _PASSING) for problem in real):
        failures += 1
        regular = _retry_at(now, provider_id, failures, interval, None)
    else:
        failures = 0
    due_at = max(min([regular, *waiting]), now)
    if not real:
        return Verdict(RunStatus.COMPLETED, due_at, failures)
    return Verdict(RunStatus.FAILED if every_account_failed else RunStatus.PARTIAL, due_at, failures)


def _ready_after(error: ProviderError) -> timedelta:
    return max(error.retry_after or _NOT_READY_WAIT, _SHORTEST_WAIT)


def _retry_at(
    now: datetime, provider_id: UUID, failures: int, interval: timedelta, after: timedelta | None
) -> datetime:
    """Doubles from a minute up to the interval: a bad hour never blocks later syncs."""
    wait = min(_FIRST_WAIT * (1 << min(max(failures - 1, 0), 12)), interval)
    at = now + wait * (0.75 + fraction(provider_id, failures) / 2)
    return at if after is None else max(at, now + after)


def _is_shared(error: Exception) -> bool:
    """Trouble that all logins share says nothing about this one."""
    if isinstance(error, AppMisconfigured):
        return True
    return isinstance(error, ProviderError) and error.scope in (Scope.APP, Scope.INSTITUTION)

"""When a provider is next synced. Pure: no clock, no randomness, no database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
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
"""The shortest wait, also if the provider names a shorter one: otherwise every tick would ask it again."""
_JITTER = 0.1
_PASSING = (Transient, InstitutionDown, RateLimited)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of a run: its status and the next sync.

    Attributes:
        due_at: when the provider is next due; None when it is not due again by itself.
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
    hooked_until: datetime | None = None,
    longest: timedelta | None = None,
) -> Verdict:
    """Decides the status of a run that has ended, and when the next sync is due.

    Args:
        provider_id: the login; its id spreads the due times of the fleet.
        now: when the run ended.
        interval: the time between successful syncs.
        failures: failed syncs in a row before this one.
        error: what stopped the run; None when it read everything.
        problems: errors with parts of the login.
        landed: whether any page was stored.
        every_account_failed: every account has a problem; then the run is no success, even if much was listed.
        cancelled: a person asked the run to stop.
        goes_on: it stopped because its time was up.
        hooked_until: until when the provider's hooks are waited for; None if none arrive.
        longest: the time between successful syncs while hooks arrive.
    """
    spread = 1 - _JITTER + 2 * _JITTER * fraction(provider_id, int(now.timestamp()))
    regular = now + interval * spread
    if hooked_until is not None and longest is not None:
        # If the hooks stop, the login is polled again at the time at which the next one is overdue.
        regular = max(regular, min(hooked_until, now + longest * spread))
    if isinstance(error, ReauthRequired):
        return Verdict(RunStatus.FAILED, None, failures + 1)
    if isinstance(error, NotReady):
        return Verdict(RunStatus.PARTIAL, now + _ready_after(error), failures)
    if isinstance(error, RateLimited):
        status = RunStatus.PARTIAL if landed else RunStatus.FAILED
        if error.retry_after is not None:
            return Verdict(status, now + max(error.retry_after, _SHORTEST_WAIT), failures)
        # If the provider named no time, the wait must grow with each failure, so this one is counted.
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


def not_before(verdict: Verdict, now: datetime, shortest: timedelta) -> Verdict:
    """The same verdict, but the next sync is due after `shortest` at the earliest; for a run that has read anything."""
    return verdict if verdict.due_at is None else replace(verdict, due_at=max(verdict.due_at, now + shortest))


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
    timed = [problem for problem in problems if _names_a_time(problem)]
    waiting = [now + _ready_after(problem) for problem in timed]
    if any(isinstance(problem, _PASSING) for problem in real if problem not in timed):
        failures += 1
        regular = _retry_at(now, provider_id, failures, interval, None)
    else:
        failures = 0
    due_at = max(min([regular, *waiting]), now)
    if not real:
        return Verdict(RunStatus.COMPLETED, due_at, failures)
    return Verdict(RunStatus.FAILED if every_account_failed else RunStatus.PARTIAL, due_at, failures)


def _names_a_time(problem: ProviderError) -> bool:
    return isinstance(problem, NotReady) or (isinstance(problem, RateLimited) and problem.retry_after is not None)


def _ready_after(error: ProviderError) -> timedelta:
    return max(error.retry_after or _NOT_READY_WAIT, _SHORTEST_WAIT)


def _retry_at(
    now: datetime, provider_id: UUID, failures: int, interval: timedelta, after: timedelta | None
) -> datetime:
    """The wait doubles from a minute up to the interval, so a bad hour does not delay later syncs for long."""
    wait = min(_FIRST_WAIT * (1 << min(max(failures - 1, 0), 12)), interval)
    at = now + wait * (0.75 + fraction(provider_id, failures) / 2)
    return at if after is None else max(at, now + after)


def _is_shared(error: Exception) -> bool:
    """Whether the error concerns all logins, so that it says nothing about this one."""
    if isinstance(error, AppMisconfigured):
        return True
    return isinstance(error, ProviderError) and error.scope in (Scope.APP, Scope.INSTITUTION)

"""The gate without servers: the local fraction that it falls back to, and what it does when Postgres is away."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from worker.errors import RateLimited, Unavailable
from worker.integrations.base import Caller, Quota
from worker.models import IntegrationState
from worker.runtime import Runtime
from worker.services.quotas import QuotaGate


class StandIn:
    """A runtime whose database says what it is told to."""

    def __init__(self, answer: Callable[[], Any]) -> None:
        self.answer = answer
        self.settings = SimpleNamespace(manual_quota_share=0.1, retry_after_max=60, quota_scale=1)

    async def db(self, step: Callable[..., Any], **_: Any) -> Any:
        return {} if step.__name__ == "read_states" else self.answer()


def away() -> Any:
    raise Unavailable("Postgres: away")


def gate(answer: Callable[[], Any] = dict, *, quotas: tuple[Quota, ...] = ()) -> QuotaGate:
    made = QuotaGate(cast("Runtime", StandIn(answer)), "schwab", quotas=quotas)
    made._redis_rests_until = float("inf")
    return made


def ask(gate: QuotaGate, calls: int, caller: Caller | None = None) -> int:
    async def run() -> list[BaseException | None]:
        one = caller or Caller()
        return await asyncio.gather(
            *(gate.admit(one, endpoint="token", account_key=None) for _ in range(calls)), return_exceptions=True
        )

    return sum(outcome is None for outcome in asyncio.run(run()))


def test_without_redis_one_part_in_eight_is_let_through() -> None:
    assert ask(gate(quotas=(Quota("app", 100, 60),)), 50) == 11  # of ninety: ten are kept for people


def test_without_redis_even_the_smallest_quota_lets_one_through() -> None:
    assert ask(gate(quotas=(Quota("app", 1, 60),)), 5) == 1


def test_day_that_cannot_be_counted_defers_and_sends_nothing() -> None:
    with pytest.raises(RateLimited) as deferred:
        asyncio.run(
            gate(away, quotas=(Quota("app", 5, 86400, daily=True),)).admit(Caller(), endpoint="token", account_key=None)
        )

    assert deferred.value.reason == "quota_uncounted"
    assert deferred.value.retry_at is not None
    assert timedelta(0) < deferred.value.retry_at - datetime.now(UTC) <= timedelta(seconds=10)


def test_kill_switch_that_cannot_be_read_stops_nobody() -> None:
    runtime = StandIn(dict)

    async def unreadable(*_: Any, **__: Any) -> Any:
        away()

    runtime.db = unreadable  # type: ignore[method-assign]
    made = QuotaGate(cast("Runtime", runtime), "schwab", quotas=())
    made._redis_rests_until = float("inf")

    assert ask(made, 3) == 3


@pytest.mark.parametrize(("manual", "admitted"), [(False, 0), (True, 1)])
def test_open_breaker_whose_probe_is_overdue_defers_the_schedule_by_a_moment(manual: bool, admitted: int) -> None:
    made = gate()
    past = datetime(2020, 1, 1, tzinfo=UTC)
    state = IntegrationState(provider_key="schwab", breaker="open", probe_at=past)

    async def states(*_: Any, **__: Any) -> Any:
        return {"schwab": state}

    made._runtime.db = states  # type: ignore[method-assign]

    assert ask(made, 1, Caller(manual=manual)) == admitted

"""The gate without servers: the local fraction that it falls back to, and what it does when Postgres is away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest
import structlog

from worker.crud.audit import ChainProblem, Verification
from worker.errors import RateLimited, Unavailable
from worker.integrations.kit.base import Caller, Quota
from worker.models import IntegrationState, new_id
from worker.runtime import Runtime
from worker.services import audit
from worker.services.availability import breaker, quotas
from worker.services.availability.quotas import QuotaGate


class StandIn:
    """A runtime whose database says what it is told to."""

    def __init__(self, answer: Callable[[], Any]) -> None:
        self.answer = answer
        self.settings = SimpleNamespace(manual_quota_share=0.1, retry_after_max=60, quota_scale=1)

    async def db(self, step: Callable[..., Any], **_: Any) -> Any:
        return {} if step.__name__ == "read_states" else self.answer()

    async def db_within(self, _: float, step: Callable[[Any], Any]) -> Any:
        return self.answer()


def away() -> Any:
    raise Unavailable("Postgres: away")


def gate(answer: Callable[[], Any] = dict, *, quotas: tuple[Quota, ...] = ()) -> QuotaGate:
    now = time.time()  # stands still: permits that a busy machine does not use in time would be lost
    made = QuotaGate(cast("Runtime", StandIn(answer)), "schwab", quotas=quotas, clock=lambda: now)
    made.counts.redis_rests_until = float("inf")
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


def test_caller_that_gives_up_costs_the_others_nothing() -> None:
    made = gate(quotas=(Quota("provider", 80, 60),))

    async def run() -> list[BaseException | None]:
        asking = [
            asyncio.create_task(made.admit(Caller(new_id()), endpoint="token", account_key=None)) for _ in range(3)
        ]
        await asyncio.sleep(0)  # all of them wait for the answer
        asking[0].cancel()
        return await asyncio.gather(*asking, return_exceptions=True)

    gave_up, *others = asyncio.run(run())

    assert isinstance(gave_up, asyncio.CancelledError)
    assert others == [None, None]


def test_day_that_cannot_be_counted_defers_and_sends_nothing() -> None:
    with pytest.raises(RateLimited) as deferred:
        asyncio.run(
            gate(away, quotas=(Quota("app", 5, 86400, daily=True),)).admit(Caller(), endpoint="token", account_key=None)
        )

    assert deferred.value.reason == "quota_uncounted"
    assert deferred.value.retry_after == timedelta(seconds=10)


def test_kill_switch_that_cannot_be_read_stops_nobody() -> None:
    runtime = StandIn(dict)

    async def unreadable(*_: Any, **__: Any) -> Any:
        away()

    runtime.db = unreadable  # type: ignore[method-assign]
    made = QuotaGate(cast("Runtime", runtime), "schwab", quotas=())
    made.counts.redis_rests_until = float("inf")

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


def test_buckets_of_logins_long_gone_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quotas, "_BUCKETS_AT_MOST", 10)
    now = 1_700_000_000.0
    runtime = cast("Runtime", StandIn(dict))
    made = QuotaGate(runtime, "schwab", quotas=(Quota("provider", 100, 60),), clock=lambda: now)
    made.counts.redis_rests_until = float("inf")
    assert [ask(made, 1, Caller(new_id())) for _ in range(10)] == [1] * 10

    now += 120
    assert ask(made, 1, Caller(new_id())) == 1

    assert len(made._buckets) == 1


def test_time_that_has_been_told_already_is_not_told_again() -> None:
    made = gate()
    error = RateLimited("http_429", retry_after=timedelta(seconds=30))

    with structlog.testing.capture_logs() as logs:
        asyncio.run(made.hold(error))
        asyncio.run(made.hold(error))

    assert [entry["event"] for entry in logs] == ["integration_held"]
    assert ask(made, 2) == 0


def test_altered_audit_log_is_shouted_about() -> None:
    problem = ChainProblem(new_id(), 3, "altered")
    runtime = cast("Runtime", StandIn(lambda: Verification(5, 1, [problem], {})))

    with structlog.testing.capture_logs() as logs:
        found = asyncio.run(audit.verify(runtime))

    assert found.problems == [problem]
    assert [(entry["event"], entry["log_level"]) for entry in logs] == [("audit_log_altered", "critical")]


def test_last_known_state_serves_while_postgres_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(breaker, "CACHE_SECONDS", 0)
    known = {"schwab": IntegrationState(provider_key="schwab", breaker="closed", paused_at=datetime.now(UTC))}
    answers = iter([known])
    runtime = StandIn(dict)

    async def read(*_: Any, **__: Any) -> Any:
        return next(answers, None) or away()

    runtime.db = read  # type: ignore[method-assign]
    found = [asyncio.run(breaker.states(cast("Runtime", runtime))) for _ in range(2)]

    assert found == [known, known]

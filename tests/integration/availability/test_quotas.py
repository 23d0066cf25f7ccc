"""Quotas on a real Redis and Postgres."""

from __future__ import annotations

import asyncio
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
import redis as redis_client

from tests.integration.availability.conftest import MakeQuiet
from worker.errors import RateLimited, Scope
from worker.integrations.kit.base import Caller, Quota
from worker.models import new_id
from worker.runtime import Runtime
from worker.services.availability import breaker
from worker.services.availability.quotas import QuotaGate


class Clock:
    """Time that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


MakeGate = Callable[..., QuotaGate]


@pytest.fixture
def make_gate() -> Iterator[MakeGate]:
    """Makes gates that are closed after the test; one process has one per integration.

    Unless a test gives a clock, theirs stands still: on a busy machine the permits that a gate has taken would run out.
    """
    clock = Clock()
    with ExitStack() as closing:

        def make(runtime: Runtime, provider_key: str, **values: Any) -> QuotaGate:
            gate = QuotaGate(runtime, provider_key, **{"clock": clock} | values)
            closing.callback(gate.close)
            return gate

        yield make


@pytest.fixture
def dead_redis_url() -> Iterator[str]:
    """An address at which nothing answers: the port is held, and nobody listens."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"redis://127.0.0.1:{held.getsockname()[1]}"


def admitted(
    runtime: Runtime,
    gate: QuotaGate,
    calls: int,
    *,
    caller: Caller | None = None,
    endpoint: str = "trader",
    account_key: str | None = None,
) -> int:
    """How many of so many calls, all at once, are let through."""

    async def ask() -> list[BaseException | None]:
        one = caller or Caller()
        return await asyncio.gather(
            *(gate.admit(one, endpoint=endpoint, account_key=account_key) for _ in range(calls)), return_exceptions=True
        )

    outcomes = Counter(type(outcome) for outcome in runtime.run(ask()))
    assert set(outcomes) <= {type(None), RateLimited}, outcomes
    return outcomes[type(None)]


@pytest.mark.deep
def test_processes_share_one_budget_and_never_exceed_it(make_quiet: MakeQuiet, make_gate: MakeGate) -> None:
    quotas, clock = (Quota("app", 1000, 60),), Clock()
    one, other = make_quiet(manual_quota_share=0), make_quiet(manual_quota_share=0)

    first = admitted(one, make_gate(one, "schwab", quotas=quotas, clock=clock), 680)
    second = admitted(other, make_gate(other, "schwab", quotas=quotas, clock=clock), 700)

    # The first process holds 700 permits, twenty of them unused in its present block.
    assert (first, second) == (680, 300)


@pytest.mark.deep
def test_permits_that_lie_unused_are_not_used_later(quiet: Runtime, make_gate: MakeGate) -> None:
    clock = Clock()
    gate = make_gate(quiet, "schwab", quotas=(Quota("app", 100, 60),), clock=clock)
    assert admitted(quiet, gate, 1) == 1  # a block of four

    clock.now += 1.5
    assert admitted(quiet, gate, 1) == 1

    assert [use.used for use in quiet.run(gate.usage())] == [8]


@pytest.mark.deep
def test_over_budget_names_the_time_when_a_call_is_free_again(quiet: Runtime, make_gate: MakeGate) -> None:
    gate = make_gate(quiet, "schwab", quotas=(Quota("app", 4, 60),))
    assert admitted(quiet, gate, 3) == 3

    with pytest.raises(RateLimited) as refused:
        quiet.run(gate.admit(Caller(), endpoint="trader", account_key=None))

    assert (refused.value.reason, refused.value.scope) == ("over_budget", Scope.APP)
    assert refused.value.retry_after is not None
    assert 1 <= refused.value.retry_after.total_seconds() <= 61


@pytest.mark.deep
def test_share_kept_back_serves_people_who_wait(quiet: Runtime, make_gate: MakeGate) -> None:
    gate = make_gate(quiet, "schwab", quotas=(Quota("app", 100, 60),))

    assert admitted(quiet, gate, 150) == 90
    assert admitted(quiet, gate, 50, caller=Caller(manual=True)) == 10


@pytest.mark.deep
def test_people_who_wait_use_up_the_same_budget(quiet: Runtime, make_gate: MakeGate) -> None:
    gate = make_gate(quiet, "schwab", quotas=(Quota("app", 100, 60),))

    assert admitted(quiet, gate, 60, caller=Caller(manual=True)) == 60
    assert admitted(quiet, gate, 100) == 30


@pytest.mark.deep
def test_logins_have_budgets_of_their_own(quiet: Runtime, new_ids: list[UUID], make_gate: MakeGate) -> None:
    gate = make_gate(quiet, "schwab", quotas=(Quota("provider", 10, 60), Quota("app", 1000, 60)))

    assert [admitted(quiet, gate, 20, caller=Caller(id_)) for id_ in new_ids[:2]] == [9, 9]


@pytest.mark.deep
def test_hundreds_of_logins_at_once_are_counted_in_a_few_round_trips(
    quiet: Runtime, redis: redis_client.Redis, make_gate: MakeGate, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = make_gate(quiet, "schwab", quotas=(Quota("provider", 50, 60), Quota("app", 100_000, 60)))
    batches: list[int] = []
    take = gate.counts._take

    def counted(together: Sequence[Any]) -> list[bool]:
        batches.append(len(together))
        return take(together)

    monkeypatch.setattr(gate.counts, "_take", counted)

    async def ask() -> None:
        callers = [Caller(new_id()) for _ in range(300)]
        await asyncio.gather(*(gate.admit(caller, endpoint="trader", account_key=None) for caller in callers))

    quiet.run(ask())

    assert sum(batches) >= 300
    assert len(batches) < 20, batches
    assert len(redis.keys("*provider*")) == 300


@pytest.mark.deep
def test_endpoints_have_budgets_of_their_own(quiet: Runtime, make_gate: MakeGate) -> None:
    gate = make_gate(quiet, "schwab", quotas=(Quota("app", 10, 60, endpoint="trader"),))

    assert admitted(quiet, gate, 20) == 9
    assert admitted(quiet, gate, 500, endpoint="token") == 500


@pytest.mark.deep
def test_calls_refused_by_a_narrow_quota_do_not_use_up_the_wide_one(
    quiet: Runtime, new_ids: list[UUID], make_gate: MakeGate
) -> None:
    gate = make_gate(quiet, "schwab", quotas=(Quota("app", 30, 60), Quota("provider", 10, 60)))
    busy, others = new_ids[0], new_ids[1:3]

    assert admitted(quiet, gate, 500, caller=Caller(busy)) == 9
    assert [admitted(quiet, gate, 9, caller=Caller(id_)) for id_ in others] == [9, 9]


def test_calls_refused_by_the_wide_quota_keep_the_permits_of_the_day(quiet: Runtime, make_gate: MakeGate) -> None:
    gate = make_gate(quiet, "schwab", quotas=(Quota("app", 10, 86400, daily=True), Quota("app", 3, 60)))

    assert admitted(quiet, gate, 50) == 2

    used = {quota.per_seconds: quota.used for quota in quiet.run(gate.usage())}
    assert used == {86400: 2, 60: 2}


@pytest.mark.deep
def test_quota_of_a_day_survives_a_flushed_redis(
    make_quiet: MakeQuiet, redis: redis_client.Redis, make_gate: MakeGate
) -> None:
    quotas, clock = (Quota("account", 4, 86400, endpoint="balances", daily=True),), Clock()
    caller = Caller(UUID(int=7))
    for _ in range(3):
        runtime = make_quiet()
        gate = make_gate(runtime, "schwab", quotas=quotas, clock=clock)
        assert admitted(runtime, gate, 1, caller=caller, endpoint="balances", account_key="a") == 1

    redis.flushall()

    runtime = make_quiet()
    gate = make_gate(runtime, "schwab", quotas=quotas, clock=clock)
    assert admitted(runtime, gate, 5, caller=caller, endpoint="balances", account_key="a") == 0
    assert admitted(runtime, gate, 5, caller=caller, endpoint="balances", account_key="b") == 3
    manual = Caller(UUID(int=7), manual=True)
    assert admitted(runtime, gate, 5, caller=manual, endpoint="balances", account_key="a") == 1


@pytest.mark.deep
def test_quota_of_a_day_is_deferred_to_midnight_and_begins_anew(quiet: Runtime, make_gate: MakeGate) -> None:
    clock = Clock()
    gate = make_gate(quiet, "schwab", quotas=(Quota("app", 2, 86400, daily=True),), clock=clock)
    assert admitted(quiet, gate, 5) == 1

    with pytest.raises(RateLimited) as refused:
        quiet.run(gate.admit(Caller(), endpoint="trader", account_key=None))
    assert refused.value.retry_after is not None
    free_at = datetime.fromtimestamp(clock.now, UTC) + refused.value.retry_after
    assert (free_at.hour, free_at.minute) == (0, 0)

    clock.now = free_at.timestamp() + 1
    assert admitted(quiet, gate, 5) == 1


@pytest.mark.deep
def test_account_ids_are_not_written_to_redis(quiet: Runtime, redis: redis_client.Redis, make_gate: MakeGate) -> None:
    gate = make_gate(quiet, "schwab", quotas=(Quota("account", 10, 60),))
    admitted(quiet, gate, 1, caller=Caller(UUID(int=7)), account_key="123456789")

    assert redis.keys("*dashtam*quota*")
    assert not redis.keys("*123456789*")


@pytest.mark.deep
def test_time_that_the_provider_names_holds_up_every_process(make_quiet: MakeQuiet) -> None:
    one, other = make_quiet(), make_quiet()
    wait = timedelta(minutes=5)

    one.run(breaker.report(one, "schwab", [None, RateLimited("http_429", retry_after=wait)]))

    for runtime in (one, other):
        with pytest.raises(RateLimited) as refused:
            runtime.run(runtime.gate("schwab").admit(Caller(manual=True), endpoint="token", account_key=None))
        assert refused.value.reason == "held_by_provider"
        assert refused.value.retry_after is not None
        assert wait / 2 < refused.value.retry_after <= wait


@pytest.mark.deep
def test_worker_whose_clock_is_an_hour_early_holds_nobody_up_for_longer(quiet: Runtime, make_gate: MakeGate) -> None:
    early, right = Clock(), Clock()
    early.now += 3600
    told = make_gate(quiet, "schwab", clock=early)
    quiet.run(told.hold(RateLimited("http_429", retry_after=timedelta(minutes=5))))

    with pytest.raises(RateLimited) as refused:
        quiet.run(make_gate(quiet, "schwab", clock=right).admit(Caller(), endpoint="token", account_key=None))

    assert refused.value.retry_after is not None
    assert refused.value.retry_after <= timedelta(minutes=5)


@pytest.mark.deep
def test_absurd_time_that_the_provider_names_is_capped(make_quiet: MakeQuiet, make_gate: MakeGate) -> None:
    runtime = make_quiet(retry_after_max=60)
    clock = Clock()
    gate = make_gate(runtime, "schwab", clock=clock)

    runtime.run(gate.hold(RateLimited("http_429", retry_after=timedelta(days=365))))

    assert admitted(runtime, gate, 1) == 0
    assert 0 < runtime.redis.pttl("dashtam:hold:schwab") <= 60_000
    runtime.redis.delete("dashtam:hold:schwab")  # as Redis does after that time
    clock.now += 61
    assert admitted(runtime, gate, 1) == 1


@pytest.mark.deep
@pytest.mark.parametrize(
    "error",
    [
        RateLimited("http_429"),
        RateLimited("TRANSACTIONS_LIMIT", scope=Scope.PROVIDER, retry_after=timedelta(days=365)),
        RateLimited("over_budget", retry_after=timedelta(days=365)),
    ],
    ids=["no time", "one login", "our own"],
)
def test_limits_that_concern_nobody_else_hold_up_nobody(
    quiet: Runtime, error: RateLimited, make_gate: MakeGate
) -> None:
    gate = make_gate(quiet, "schwab")

    quiet.run(gate.hold(error))

    assert admitted(quiet, gate, 5) == 5


@pytest.mark.deep
def test_without_redis_each_process_goes_on_with_a_fraction(make_quiet: MakeQuiet, dead_redis_url: str) -> None:
    runtime = make_quiet(quotas=(Quota("app", 800, 60),), redis_url=dead_redis_url, manual_quota_share=0)

    assert admitted(runtime, runtime.gate("schwab"), 1000) == 100
    assert runtime.run(runtime.gate("schwab").usage()) == []


@pytest.mark.deep
def test_days_are_counted_without_redis(make_quiet: MakeQuiet, dead_redis_url: str) -> None:
    runtime = make_quiet(quotas=(Quota("app", 10, 86400, daily=True),), redis_url=dead_redis_url)

    assert admitted(runtime, runtime.gate("schwab"), 50) == 9


@pytest.mark.deep
def test_usage_tells_what_is_used_of_each_quota_of_the_application(quiet: Runtime, make_gate: MakeGate) -> None:
    gate = make_gate(quiet, "schwab", quotas=(Quota("app", 120, 60, endpoint="trader"), Quota("provider", 5, 60)))
    admitted(quiet, gate, 6, caller=Caller(UUID(int=7)))

    (use,) = quiet.run(gate.usage())

    assert (use.scope, use.endpoint, use.limit) == ("app", "trader", 120)
    assert 4 <= use.used <= 10

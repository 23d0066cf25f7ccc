"""How gauges are read and kept, without servers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any, cast

import pytest
import redis
from prometheus_client.metrics_core import GaugeMetricFamily, Metric

from worker.errors import Unavailable
from worker.telemetry.gauges import Kept, RedisGauges


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Server:
    """Counts how often it is asked, takes its time, and may be away."""

    def __init__(self, clock: Clock, *, takes: float = 0.0) -> None:
        self.asked = 0
        self.away = False
        self._clock = clock
        self._takes = takes

    def __call__(self) -> Iterator[Metric]:
        self.asked += 1
        self._clock.now += self._takes
        if self.away:
            raise Unavailable("away")
        yield GaugeMetricFamily("asked", "", value=self.asked)


def value(kept: Kept, name: str) -> float:
    return next(metric.samples[0].value for metric in kept.collect() if metric.name == name)


def test_gauges_are_kept_for_five_seconds() -> None:
    clock = Clock()
    kept = Kept("s", Server(clock), clock=clock)

    assert value(kept, "asked") == 1
    clock.now = 4.9
    assert value(kept, "asked") == 1
    clock.now = 5.1
    assert value(kept, "asked") == 2


def test_slow_server_is_asked_less_often() -> None:
    clock = Clock()
    kept = Kept("s", Server(clock, takes=2.0), clock=clock)

    assert value(kept, "asked") == 1
    clock.now = 39.0
    assert value(kept, "asked") == 1
    clock.now = 41.0
    assert value(kept, "asked") == 2
    assert value(kept, "dashtam_gauges_read_seconds") == 2.0


def test_server_that_is_away_leaves_no_stale_gauges() -> None:
    clock = Clock()
    server = Server(clock)
    kept = Kept("s", server, clock=clock)
    assert value(kept, "dashtam_up") == 1

    server.away = True
    clock.now = 6.0

    assert value(kept, "dashtam_up") == 0
    assert "asked" not in {metric.name for metric in kept.collect()}


def test_registering_asks_no_server() -> None:
    server = Server(Clock())

    assert Kept("s", server).describe() == []
    assert server.asked == 0


class FakePipeline:
    def __init__(self, answers: list[int] | Exception) -> None:
        self._answers = answers
        self.asked: list[str] = []

    def pipeline(self, *, transaction: bool) -> Any:
        assert not transaction
        return nullcontext(self)

    def llen(self, key: str) -> None:
        self.asked.append(key)

    hlen = llen

    def execute(self) -> list[int]:
        if isinstance(self._answers, Exception):
            raise self._answers
        return self._answers


def test_queues_unacknowledged_messages_and_the_journal_are_counted() -> None:
    pipeline = FakePipeline([1, 2, 3, 4, 5])

    depth, unacked, journal = RedisGauges(cast("Any", pipeline), is_broker=True)()

    assert {sample.labels["queue"]: sample.value for sample in depth.samples} == {"refresh": 1, "sync": 2, "upkeep": 3}
    assert (unacked.samples[0].value, journal.samples[0].value) == (4, 5)
    assert pipeline.asked == ["refresh", "sync", "upkeep", "unacked", "dashtam:journal"]


def test_redis_beside_another_broker_is_asked_for_the_journal_alone() -> None:
    pipeline = FakePipeline([5])

    (journal,) = RedisGauges(cast("Any", pipeline), is_broker=False)()

    assert journal.samples[0].value == 5
    assert pipeline.asked == ["dashtam:journal"]


def test_redis_that_is_away_is_said_to_be() -> None:
    with pytest.raises(Unavailable, match="Redis: ConnectionError"):
        list(RedisGauges(cast("Any", FakePipeline(redis.ConnectionError("no"))), is_broker=True)())

"""The pinned Celery and kombu outlive a Redis that dies; docs/adr/0002 has what other versions do."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import Celery
from redis import Redis

from tests.support.celery_fixtures import StartWorker
from tests.support.probe_tasks import SHORT, ends, invisible_for, starts
from tests.support.waiting import wait_for
from worker.devstack import Devstack


class MortalRedis:
    """A Redis of the test's own, which keeps what it has written."""

    def __init__(self, stack: Devstack, url: str) -> None:
        self._stack = stack
        self.url = url
        self.client = Redis.from_url(self.url, decode_responses=True)

    def wait_until_written(self) -> None:
        """Waits until its append-only file has everything: a slow disk may hold it back for two seconds."""
        wait_for(lambda: self.client.info("persistence")["aof_buffer_length"] == 0, what="the append-only file")

    def kill(self) -> None:
        pid = next(server.pid for server in self._stack.status() if server.name == "redis")
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: self._down(), what="the end of Redis")

    def start(self) -> None:
        assert self._stack.up().redis_url == self.url, "its port was taken meanwhile"

    def _down(self) -> bool:
        return all(server.state != "up" for server in self._stack.status())


@pytest.fixture
def mortal_redis(tmp_path: Path) -> Iterator[MortalRedis]:
    stack = Devstack(tmp_path / "redis", durable=True, environ={"DATABASE_URL": "not started"})
    with stack.session(erase=True) as urls:
        server = MortalRedis(stack, urls.redis_url)
        yield server
        server.client.close()


def send(app: Celery, url: str, key: str, *, hold: bool = False) -> None:
    with app.connection_for_write(url) as connection:
        app.send_task("worker.tasks.upkeep.probe", (key,), {"hold": hold}, task_id=key, connection=connection)


@pytest.mark.parametrize("round_", [1, *(pytest.param(more, marks=pytest.mark.release) for more in (2, 3))])
def test_worker_outlives_redis_with_a_task_in_flight_and_the_task_is_not_lost(
    start_worker: StartWorker, celery_application: Celery, mortal_redis: MortalRedis, round_: int
) -> None:
    worker = start_worker("upkeep", REDIS_URL=mortal_redis.url, **SHORT).process
    send(celery_application, mortal_redis.url, "held", hold=True)
    wait_for(lambda: starts(mortal_redis.client, "held"), what="the task's start")
    mortal_redis.wait_until_written()

    mortal_redis.kill()
    worker.wait_for_log("Connection to broker lost")
    mortal_redis.start()
    mortal_redis.client.set("held:go", 1)
    send(celery_application, mortal_redis.url, "later")

    wait_for(lambda: ends(mortal_redis.client, "later"), what="the next task")
    assert worker.running
    if not ends(mortal_redis.client, "held"):
        # A worker looks for messages to restore at its start and then every hundred seconds: another one is sooner.
        wait_for(lambda: invisible_for(mortal_redis.client) > 3, what="the visibility timeout")
        start_worker("upkeep", REDIS_URL=mortal_redis.url, **SHORT)
    wait_for(lambda: ends(mortal_redis.client, "held"), what="the task's end")


def test_worker_outlives_redis_while_idle(
    start_worker: StartWorker, celery_application: Celery, mortal_redis: MortalRedis
) -> None:
    worker = start_worker("upkeep", REDIS_URL=mortal_redis.url).process

    mortal_redis.kill()
    worker.wait_for_log("Connection to broker lost")
    mortal_redis.start()
    send(celery_application, mortal_redis.url, "later")

    wait_for(lambda: ends(mortal_redis.client, "later"), what="the task")
    assert worker.running


def test_emptied_redis_takes_messages_without_anybody_starting_anew(
    start_worker: StartWorker, celery_application: Celery, mortal_redis: MortalRedis
) -> None:
    """Beat and the workers stay connected through FLUSHALL and so declare nothing again: no binding may be needed."""
    worker = start_worker("upkeep", REDIS_URL=mortal_redis.url).process
    with celery_application.connection_for_write(mortal_redis.url) as beat:
        celery_application.send_task("worker.tasks.upkeep.probe", ("before",), connection=beat)
        wait_for(lambda: ends(mortal_redis.client, "before"), what="the task before")

        mortal_redis.client.flushall()
        celery_application.send_task("worker.tasks.upkeep.probe", ("after",), connection=beat)

        wait_for(lambda: ends(mortal_redis.client, "after"), what="the task after")
    assert worker.running

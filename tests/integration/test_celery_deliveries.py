"""A real worker: what was sent is done, whoever dies in between, and what cannot be done harms nobody else."""

from __future__ import annotations

import os
import signal

import pytest
from pytest_celery import CeleryTestSetup
from redis import Redis
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from tests.support.celery_fixtures import SendProbe, StartWorker
from tests.support.probe_tasks import SHORT, ends, invisible_for, starts
from tests.support.waiting import wait_for
from tests.support.worker_nodes import WorkerNode
from worker.models import TaskDelivery, TaskFailure


@pytest.mark.deep
def test_plugin_s_setup_works_over_local_processes(celery_setup: CeleryTestSetup) -> None:
    assert celery_setup.ready(control=True)
    assert len(celery_setup) == 2, "broker and worker"
    celery_setup.worker.assert_log_exists("ready.")


@pytest.mark.deep
def test_task_of_a_killed_pool_process_is_done_by_its_successor(
    start_worker: StartWorker, redis: Redis, send_probe: SendProbe
) -> None:
    start_worker("upkeep")
    key = send_probe(hold=True)
    child, _ = wait_for(lambda: starts(redis, key), what="the task's start")[0]

    os.kill(child, signal.SIGKILL)
    redis.set(f"{key}:go", 1)
    wait_for(lambda: ends(redis, key), what="the task's end")

    assert [redelivered for _, redelivered in starts(redis, key)] == [False, True], "the second delivery says so"
    assert ends(redis, key) == 1


@pytest.mark.deep
def test_task_of_a_killed_worker_is_done_after_the_visibility_timeout(
    start_worker: StartWorker, redis: Redis, send_probe: SendProbe
) -> None:
    first = start_worker("upkeep", **SHORT)
    key = send_probe(hold=True)
    wait_for(lambda: starts(redis, key), what="the task's start")

    first.process.kill()
    wait_for(lambda: invisible_for(redis) > 3, what="the visibility timeout")
    redis.set(f"{key}:go", 1)
    start_worker("upkeep", **SHORT)

    wait_for(lambda: ends(redis, key), what="the task's end")
    assert [redelivered for _, redelivered in starts(redis, key)] == [False, True], "the second delivery says so"


@pytest.mark.deep
def test_terminated_worker_hands_its_task_back_within_the_soft_shutdown(
    start_worker: StartWorker, redis: Redis, send_probe: SendProbe
) -> None:
    worker, key = _asked_to_stop_at_work(start_worker("upkeep", SOFT_SHUTDOWN_SECONDS="0.5"), redis, send_probe)

    worker.process.wait()

    assert redis.llen("upkeep") == 1, "the next worker need not wait for the visibility timeout"
    assert redis.hlen("unacked") == 0
    assert ends(redis, key) == 0


@pytest.mark.deep
def test_terminated_worker_finishes_what_ends_within_the_soft_shutdown(
    start_worker: StartWorker, redis: Redis, send_probe: SendProbe
) -> None:
    worker, key = _asked_to_stop_at_work(start_worker("upkeep", SOFT_SHUTDOWN_SECONDS="4"), redis, send_probe)

    worker.process.wait_for_log("Initiating Soft Shutdown")
    redis.set(f"{key}:go", 1)
    worker.process.wait()

    assert ends(redis, key) == 1
    assert redis.llen("upkeep") == 0
    assert redis.hlen("unacked") == 0


@pytest.mark.deep
def test_task_that_kills_its_worker_is_dropped_at_its_third_delivery_and_kept_on_record(
    start_worker: StartWorker, redis: Redis, engine: Engine, send_probe: SendProbe
) -> None:
    worker = start_worker("upkeep")

    poison = send_probe(die=True)
    healthy = send_probe()

    wait_for(lambda: ends(redis, healthy), what="the healthy task")
    failure = wait_for(lambda: _failure(engine), what="the record of the poison task")
    assert (failure.task_id, failure.deliveries, failure.task_name) == (poison, 3, "worker.tasks.upkeep.probe")
    assert len(starts(redis, poison)) == 2
    assert worker.process.running
    with Session(engine) as session:
        assert session.scalars(select(TaskDelivery)).all() == []


def _asked_to_stop_at_work(worker: WorkerNode, redis: Redis, send_probe: SendProbe) -> tuple[WorkerNode, str]:
    """A worker that got SIGTERM while it had a task, and the key of that task."""
    key = send_probe(hold=True)
    wait_for(lambda: starts(redis, key), what="the task's start")
    worker.process.signal(signal.SIGTERM)
    return worker, key


def _failure(engine: Engine) -> TaskFailure | None:
    with Session(engine) as session:
        return session.scalar(select(TaskFailure))

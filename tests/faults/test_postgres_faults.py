"""Postgres refuses, dawdles, restarts and runs full; what was committed stays, what was answered is kept elsewhere."""

from __future__ import annotations

import pytest

from tests.support.faults_casts import page_of
from tests.support.faults_pace import PACE
from tests.support.faults_world import World
from tests.support.waiting import wait_for
from tests.support.worker_nodes import WorkerNode

SOFT_TIME_LIMIT = int(PACE["TASK_SOFT_TIME_LIMIT"])
LONG = {"TASK_SOFT_TIME_LIMIT": "30", "TASK_TIME_LIMIT": "40", "VISIBILITY_TIMEOUT": "50"}
"""Time enough to miss a thread that never comes back."""
SHORT = LONG | {"TASK_SOFT_TIME_LIMIT": "3", "HTTP_TOTAL_SECONDS": "20", "LEASE_SECONDS": "25"}
"""Time is up early, and whatever is under way then has time enough to end, on a busy machine too."""


def test_all_connections_taken_between_rotation_and_commit(world: World) -> None:
    with world.sandbox.paused_after_rotation(login=world.refreshed[0]) as barrier:
        world.moves_on()
        barrier.wait_for_arrivals()
        with world.servers.all_connections_taken():
            barrier.release()
            wait_for(lambda: world.sandbox.refreshes(world.refreshed[0])[-1]["answered"], what="the provider's answer")
            world.let_pass(3)
    world.recovers("all connections taken", hurry=True)

    world.assert_nothing_was_lost(retries=False)


def test_postgres_restarted_while_idle(world: World) -> None:
    with world.servers.postgres_down():
        pass
    world.moves_on()
    world.recovers("Postgres restarted while idle", hurry=True)

    world.assert_nothing_was_lost(retries=False)


def test_postgres_killed_again_and_again(world: World) -> None:
    world.moves_on()
    for _ in range(4):
        with world.servers.postgres_down():
            pass
    world.recovers("Postgres killed four times", hurry=True)

    world.assert_nothing_was_lost()


@pytest.mark.parametrize(
    ("trouble", "seconds"), [("refusing", 0), ("stalled", SOFT_TIME_LIMIT + 3), ("vanished", SOFT_TIME_LIMIT + 3)]
)
def test_postgres_out_of_reach_when_an_answer_is_to_be_stored(world: World, trouble: str, seconds: float) -> None:
    with world.sandbox.paused_after_rotation(login=world.refreshed[0]) as barrier:
        world.moves_on()
        barrier.wait_for_arrivals()
        with getattr(world.servers.postgres_network, trouble)():
            barrier.release()
            wait_for(lambda: world.servers.redis.hlen("dashtam:journal"), what="the answer in the journal")
            world.let_pass(seconds)
    world.recovers(f"Postgres out of reach ({trouble}) when an answer was to be stored", hurry=True)

    world.assert_nothing_was_lost()


def test_slow_network_to_postgres_and_redis(world: World) -> None:
    with world.servers.postgres_network.slow(0.03), world.servers.redis_network.slow(0.03):
        world.moves_on()
        world.settle()

    world.assert_nothing_was_lost()


@pytest.mark.parametrize(("trouble", "seconds"), [("stalled", 6), ("vanished", SOFT_TIME_LIMIT + 3)])
def test_postgres_out_of_reach_while_pages_are_written(world: World, trouble: str, seconds: float) -> None:
    page = world.sandbox.raise_barrier("mid_body", login=world.synced[0], path=page_of(world.synced[0]))
    world.moves_on()
    page.wait_for_arrivals()
    with getattr(world.servers.postgres_network, trouble)():
        page.release()
        world.let_pass(seconds)
    world.recovers(f"Postgres out of reach ({trouble}) while pages were written", hurry=True)

    world.assert_nothing_was_lost()


@pytest.mark.long
def test_thread_that_never_comes_back_costs_its_process_and_nothing_else(world: World) -> None:
    worker = world.only_worker(FAILPOINTS="before_commit=hang", **LONG)
    world.moves_on()
    worker.process.wait_for_log("process_wedged")
    world.workers_of_the_session()
    world.recovers("threads that stand still", hurry=True)

    world.assert_nothing_was_lost()


def test_time_limit_in_the_middle_of_a_refresh_loses_no_answer(world: World) -> None:
    with world.sandbox.paused_after_rotation(login=world.refreshed[0]) as barrier:
        worker = world.only_worker(**SHORT)
        generation = world.generation(world.refreshed[0])
        world.moves_on()
        barrier.wait_for_arrivals()
        wait_until_time_is_up(worker)
    wait_for(lambda: world.generation(world.refreshed[0]) > generation, what="the answer in its table")
    world.workers_of_the_session()
    world.recovers("time limit within a refresh", hurry=True)

    world.assert_nothing_was_lost(retries=False)


def test_time_limit_in_the_middle_of_a_page(world: World) -> None:
    with world.sandbox.paused_in_mid_body(login=world.synced[0], path=page_of(world.synced[0])) as page:
        worker = world.only_worker(**SHORT)
        world.moves_on()
        page.wait_for_arrivals()
        wait_until_time_is_up(worker)
    world.workers_of_the_session()
    world.recovers("time limit within a page", hurry=True)

    world.assert_nothing_was_lost()


@pytest.mark.long
def test_time_limit_in_the_middle_of_a_store(world: World) -> None:
    with world.sandbox.paused_after_rotation(login=world.refreshed[0]) as barrier:
        worker = world.only_worker(**SHORT)
        world.moves_on()
        barrier.wait_for_arrivals()
        with world.servers.postgres_network.stalled():
            barrier.release()
            wait_until_time_is_up(worker)
            wait_for(lambda: world.servers.redis.hlen("dashtam:journal"), what="the answer in the journal")
    world.workers_of_the_session()
    world.recovers("time limit within a store", hurry=True)

    world.assert_nothing_was_lost()


def wait_until_time_is_up(worker: WorkerNode) -> None:
    """Waits until a task for logins has passed its soft time limit: a refresh is a task's own, or part of a sync."""
    limit = SHORT["TASK_SOFT_TIME_LIMIT"]
    told = f"Soft time limit ({limit}s) exceeded for worker.tasks."
    wait_for(
        lambda: any(told in line and "_providers[" in line for line in worker.logs().splitlines()),
        what="a time limit that is over",
    )

"""A primary Postgres dies and its standby takes over: what a commit waited for is there, and work goes on by itself."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support.faults_world import World
from tests.support.standbys import Standby, standby
from tests.support.waiting import wait_for
from tests.support.worker_nodes import WorkerNode

pytestmark = pytest.mark.release


@contextmanager
def world_with(world: World, *, synchronous: bool) -> Iterator[tuple[Standby, WorkerNode]]:
    """The world with a standby, and workers that know both addresses; gives the standby and one of them."""
    with standby(world.servers, synchronous=synchronous) as other:
        others, worker = world.workers, world.only_worker(DATABASE_URL=other.address)
        world.workers = [worker, world.start_worker(DATABASE_URL=other.address)]
        try:
            yield other, worker
        finally:
            world.workers = others


def settles(world: World, what: str, *, lost: tuple[str, ...] = ()) -> None:
    begun = time.monotonic()
    world.settle(lost=lost)
    world.times.append((what, time.monotonic() - begun))


def assert_all_is_there(world: World, *logins: str) -> None:
    """After another round: the logins work, and their rows are those of the provider's books."""
    world.moves_on()
    world.settle(lost=tuple(set(world.ids) - set(logins)))
    assert {world.status(login)[0] for login in logins} == {"active"}
    assert [line for login in logins for line in world.differs_from_books(login)] == []


def test_primary_dies_in_the_middle_of_a_refresh_and_a_synchronous_standby_has_everything(world: World) -> None:
    world.sandbox.set_policy(world.refreshed_key, reuse="strict")
    with world_with(world, synchronous=True) as (other, worker):
        with world.sandbox.paused_after_rotation(login=world.refreshed[0]) as rotated:
            world.moves_on()
            rotated.wait_for_arrivals()
            other.fail_over()
            rotated.release()
            world.wait_for_the_answer(world.refreshed[0])
        settles(world, "primary killed in the middle of a refresh, synchronous standby promoted")
        program = [sys.executable, "-m", "worker.cli"]
        migrated = world.start_process([*program, "migrate"], DATABASE_URL=other.address)
        assert migrated.wait() == 0, migrated.logs()

        assert worker.process.running
        assert_all_is_there(world, *world.ids)
        world.assert_log_is_clean(retries=False)


def test_what_an_asynchronous_standby_had_not_received_is_lost_and_nothing_else(world: World) -> None:
    world.sandbox.set_policy(world.refreshed_key, reuse="strict")
    with world_with(world, synchronous=False) as (other, _), other.network.vanished():
        generation = world.generation(world.refreshed[0])
        world.hours_pass(world.refreshed[0])
        wait_for(
            lambda: world.generation(world.refreshed[0]) > generation,
            what="a rotation that the standby does not receive",
        )
        other.fail_over()
        assert world.generation(world.refreshed[0]) == generation
        world.moves_on()
        settles(world, "primary killed, asynchronous standby promoted", lost=(world.refreshed[0],))

        # The attempt was lost with its answer, so that the worker sees a refusal without a cause.
        assert world.status(world.refreshed[0]) == ("needs_reauth", "invalid_grant")
        assert_all_is_there(world, *(login for login in world.ids if login != world.refreshed[0]))


def test_standby_that_is_not_promoted_is_named_and_work_waits_for_the_primary(world: World) -> None:
    with world_with(world, synchronous=False) as (other, worker):
        generation = world.generation(world.refreshed[0])
        with world.servers.postgres_down():
            doctor = world.start_process([sys.executable, "-m", "worker.cli", "doctor"], DATABASE_URL=other.address)
            assert doctor.wait() == 1
            worker.process.wait_for_log("no server of the address takes writes")
        world.moves_on()
        settles(world, "primary back, standby not promoted")

        assert "no server of the address takes writes" in doctor.logs()
        assert "SELECT pg_promote()" in doctor.logs()
        assert "Traceback" not in doctor.logs()
        assert worker.process.running
        assert world.generation(world.refreshed[0]) > generation
    world.assert_nothing_was_lost()

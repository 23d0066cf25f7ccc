"""Encryption keys rotate while refreshes run; a key that is withdrawn early stops workers, and costs no token."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest
from sqlalchemy import text

from tests.support.environment import new_keys
from tests.support.faults_processes import kill
from tests.support.faults_world import World
from tests.support.processes import LocalProcess
from tests.support.waiting import wait_for


@pytest.fixture
def keys(world: World) -> Iterator[str]:
    """The session's keys behind a new one, which writes."""
    yield f"{new_keys('new')},{os.environ['ENCRYPTION_KEYS']}"
    # The session's workers, which do not have the new one, would not start.
    with world.servers.engine.begin() as connection:
        connection.execute(text("DELETE FROM provider_tokens WHERE key_id = 'new'"))


def begin(world: World, keys: str, *words: str) -> LocalProcess:
    return world.start_process([sys.executable, "-m", "worker.cli", *words], ENCRYPTION_KEYS=keys)


def command(world: World, keys: str, *words: str) -> LocalProcess:
    process = begin(world, keys, *words)
    process.wait()
    return process


def left_of_the_old_key(world: World) -> int:
    return int(world.query("SELECT count(*) FROM provider_tokens WHERE key_id = 'tests'")[0][0])


def test_key_rotated_while_refreshes_run(world: World, keys: str) -> None:
    world.only_worker(ENCRYPTION_KEYS=keys, HTTP_TOTAL_SECONDS="8", LEASE_SECONDS="9")
    with world.sandbox.paused_after_rotation(login=world.refreshed[0]) as barrier:
        world.moves_on()
        barrier.wait_for_arrivals()
        rotating = begin(world, keys, "keys", "rotate")
        wait_for(lambda: left_of_the_old_key(world) <= 1, what="the rotation of all others")
        barrier.release()
        assert rotating.wait() == 0, rotating.logs()
    world.settle()

    assert left_of_the_old_key(world) == 0
    assert command(world, keys, "keys", "retire", "tests").exit_code == 0
    world.only_worker(ENCRYPTION_KEYS=keys.partition(",")[0])
    world.moves_on()
    world.settle()
    world.assert_log_is_clean(retries=False)


def test_key_withdrawn_early_stops_workers_and_costs_nothing(world: World, keys: str) -> None:
    for worker in world.workers:
        kill(worker)
    refused = command(world, keys, "keys", "retire", "tests")
    world.moves_on()
    before = len(world.sandbox.log())
    hasty = world.start_worker(wait=False, ENCRYPTION_KEYS=keys.partition(",")[0])
    wait_for(lambda: not hasty.process.running, what="its refusal to start")

    assert refused.exit_code == 3
    assert hasty.process.wait() == 5
    assert "ENCRYPTION_KEYS: stored tokens need the key tests" in hasty.logs()
    assert len(world.sandbox.log()) == before, "nothing is sent with tokens that cannot be read"
    assert {world.status(login) for login in world.ids} == {("active", None)}
    assert "error: " in hasty.logs()
    world.recovers("a key withdrawn early", hurry=True)
    world.assert_nothing_was_lost(retries=False)

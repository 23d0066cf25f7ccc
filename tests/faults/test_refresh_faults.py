"""A refresh is disturbed between any two of its steps; what the provider rotated must not be lost."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest

from tests.support.faults_pace import LEASE_SECONDS
from tests.support.faults_processes import go_on, kill, kill_all, kill_children, stop, wait_until_stopped
from tests.support.faults_world import World
from tests.support.waiting import wait_for

pytestmark = pytest.mark.integrations(refreshed=("snaptrade",))


def test_story_without_a_fault_presents_every_token_once(world: World) -> None:
    world.moves_on()
    world.settle()

    world.assert_nothing_was_lost(retries=False)


@pytest.mark.parametrize("when", ["before", "after"])
def test_workers_killed_before_or_after_the_provider_rotates(world: World, when: str) -> None:
    with world.sandbox.paused(f"{when}_rotation", login=world.refreshed[0]) as barrier:
        world.moves_on()
        barrier.wait_for_arrivals()
        kill_all(world)
    world.recovers(f"workers killed {when} the provider rotated")

    assert world.outcomes(world.refreshed[0]) == ["unknown", "done"]
    world.assert_nothing_was_lost()


def test_workers_killed_after_a_strict_provider_rotated_cost_that_login_alone(world: World) -> None:
    world.sandbox.set_policy(world.refreshed_key, reuse="strict")
    with world.sandbox.paused_after_rotation(login=world.refreshed[0]) as barrier:
        world.hours_pass(world.refreshed[0])
        barrier.wait_for_arrivals()
        kill_all(world)
    world.recovers("workers killed after a strict provider rotated", lost=(world.refreshed[0],))

    assert world.status(world.refreshed[0]) == ("needs_reauth", "lost_rotation")
    world.assert_nothing_was_lost(lost=(world.refreshed[0],))


@pytest.mark.parametrize("place", ["before_send", "after_answer", "before_commit"])
def test_worker_dies_at_a_failpoint(world: World, place: str) -> None:
    doomed = world.only_worker(FAILPOINTS=f"{place}=kill")
    world.moves_on()
    doomed.process.wait_for_log("signal 9")
    kill(doomed)
    world.recovers(f"worker died at {place}")

    world.assert_nothing_was_lost(retries=place != "before_send")


def test_worker_dies_between_commit_and_acknowledgement(world: World) -> None:
    doomed = world.only_worker(FAILPOINTS="after_commit=kill")
    before = world.generation(world.refreshed[0])
    world.hours_pass(world.refreshed[0])
    doomed.process.wait_for_log("signal 9")
    kill(doomed)
    world.recovers("worker died between commit and acknowledgement")

    assert world.generation(world.refreshed[0]) == before + 1
    world.assert_nothing_was_lost(retries=False)


def test_pool_processes_killed_while_a_refresh_is_in_flight(world: World) -> None:
    with world.sandbox.paused_after_rotation(login=world.refreshed[1]) as barrier:
        world.moves_on()
        barrier.wait_for_arrivals()
        kill_children(world)
    world.recovers("pool processes killed")

    world.assert_nothing_was_lost()


def test_pool_process_that_dies_every_time_harms_nothing_for_good(world: World) -> None:
    doomed = world.only_worker(FAILPOINTS="before_send=kill")
    world.hours_pass(world.refreshed[0])
    wait_for(lambda: doomed.logs().count("signal 9") > 1, what="the second death")
    assert doomed.process.running
    kill(doomed)
    world.recovers("a pool process that died every time")

    world.assert_nothing_was_lost()


def test_worker_stopped_beyond_its_lease_is_fenced_off_when_it_goes_on(world: World) -> None:
    sleeper = world.only_worker()
    before = world.generation(world.refreshed[0])
    with world.sandbox.paused_after_rotation(login=world.refreshed[0]) as barrier:
        world.hours_pass(world.refreshed[0])
        barrier.wait_for_arrivals()
        stop(sleeper)
    world.workers_of_the_session(spare=False)
    wait_for(lambda: world.generation(world.refreshed[0]) == before + 1, what="another worker's refresh")
    go_on(sleeper)
    # The sync that fell due with it may have been the one that refreshed.
    ended = ("refresh_batch", "sync_refused")
    wait_for(lambda: any(event in sleeper.process.logs() for event in ended), what="the sleeper's end")
    world.recovers("worker stopped beyond its lease", hurry=True)

    assert world.generation(world.refreshed[0]) == before + 1
    assert world.servers.redis.hlen("dashtam:journal") == 0
    world.assert_nothing_was_lost()


def test_lease_is_longer_than_a_call_may_take(world: World) -> None:
    with world.sandbox.paused_before_rotation(login=world.refreshed[0]) as barrier:
        world.hours_pass(world.refreshed[0])
        barrier.wait_for_arrivals()
        wait_for(lambda: barrier.waiting() == 0, what="the call's deadline", seconds=LEASE_SECONDS)

    world.settle()
    world.assert_nothing_was_lost()


@pytest.mark.parametrize("redis_too", [False, True])
def test_servers_down_between_rotation_and_commit(world: World, redis_too: bool) -> None:
    with world.sandbox.paused_after_rotation(login=world.refreshed[0]) as barrier:
        world.hours_pass(world.refreshed[0])
        barrier.wait_for_arrivals()
        with world.servers.postgres_down(), world.servers.redis_down() if redis_too else nullcontext():
            barrier.release()
            if redis_too:
                wait_for(world.spooled, what="the answer on the disk")
            else:
                wait_for(lambda: world.servers.redis.hlen("dashtam:journal"), what="the answer in the journal")
    world.recovers(f"Postgres{' and Redis' if redis_too else ''} down between rotation and commit")

    assert world.spooled() == []
    world.assert_nothing_was_lost(retries=False)


def test_answer_on_one_host_s_disk_is_waited_for_by_another(world: World, tmp_path: Path) -> None:
    holder = world.only_worker()
    with world.sandbox.paused_after_rotation(login=world.refreshed[0]) as barrier:
        world.hours_pass(world.refreshed[0])
        barrier.wait_for_arrivals()
        with world.servers.postgres_down(), world.servers.redis_down():
            barrier.release()
            wait_for(world.spooled, what="the answer on the disk")
            stop(holder)
    world.start_worker(DASHTAM_HOME=str(tmp_path))
    world.wait_until("SELECT 1 FROM spools WHERE asked_at > seen_at")
    go_on(holder)
    world.recovers("an answer on the disk of a host that stood still", hurry=True)

    assert world.outcomes(world.refreshed[0]) == ["done"]
    world.assert_nothing_was_lost(retries=False)


def test_backends_terminated_while_a_refresh_is_in_flight(world: World) -> None:
    with world.sandbox.paused_after_rotation(login=world.refreshed[0]) as barrier:
        world.moves_on()
        barrier.wait_for_arrivals()
        assert world.servers.terminate_backends() > 0
    world.recovers("database connections terminated")

    world.assert_nothing_was_lost(retries=False)


def test_backend_of_the_lock_holder_terminated_before_it_commits(world: World) -> None:
    holder = world.only_worker(FAILPOINTS="before_commit=stop")
    world.hours_pass(world.refreshed[0])
    wait_until_stopped(holder)
    world.servers.terminate_backends()
    go_on(holder)
    holder.process.wait_for_log("token_journaled")
    kill(holder)
    world.recovers("lock holder's connection terminated")

    world.assert_nothing_was_lost(retries=False)


def test_commit_of_the_attempt_is_durable_and_unacknowledged_twice(world: World) -> None:
    world.sandbox.set_policy(world.refreshed_key, reuse="strict")
    with world.servers.postgres_network.losing_commits(b'"trigger":"'):
        world.hours_pass(world.refreshed[0])
        wait_for(
            lambda: len(world.attempts(world.refreshed[0])) > 1, what="two attempts of which the worker knows nothing"
        )
        shown = len(world.sandbox.refreshes())
    world.recovers("the commit of an attempt not acknowledged twice")

    assert shown == 0
    assert world.outcomes(world.refreshed[0]) == ["done"]
    world.assert_nothing_was_lost(retries=False)


@pytest.mark.parametrize("status", [pytest.param(502, marks=pytest.mark.release), 504])
def test_gateway_answers_in_the_provider_s_place_after_the_rotation(world: World, status: int) -> None:
    world.sandbox.inject("answer", status=status, body="<html>", kind="refresh", login=world.refreshed[0], when="after")
    world.moves_on()
    world.settle()

    assert world.attempts(world.refreshed[0])[0] == ("unknown", "gateway_error")
    assert world.outcomes(world.refreshed[0]) == ["unknown", "done"]
    world.assert_nothing_was_lost()


def test_gateway_answers_after_a_strict_provider_s_rotation_and_costs_that_login_alone(world: World) -> None:
    world.sandbox.set_policy(world.refreshed_key, reuse="strict")
    world.sandbox.inject("answer", status=502, body="<html>", kind="refresh", login=world.refreshed[0], when="after")
    world.moves_on()
    world.settle(lost=(world.refreshed[0],))

    assert world.status(world.refreshed[0]) == ("needs_reauth", "lost_rotation")
    assert len([status for status in world.outcomes(world.refreshed[0]) if status == "unknown"]) == 1
    world.assert_nothing_was_lost(lost=(world.refreshed[0],))


def test_connection_cut_in_mid_answer_after_rotation(world: World) -> None:
    world.sandbox.inject("cut", kind="refresh", login=world.refreshed[0])
    world.moves_on()
    world.settle()

    assert world.outcomes(world.refreshed[0]) == ["unknown", "done"]
    world.assert_nothing_was_lost()


def test_every_answer_cut_and_no_grace_ends_in_reauthorisation_after_one_retry(world: World) -> None:
    world.sandbox.set_policy(world.refreshed_key, reuse="strict")
    world.sandbox.inject("cut", kind="refresh", login=world.refreshed[0])
    world.moves_on()
    world.settle(lost=(world.refreshed[0],))

    assert world.status(world.refreshed[0]) == ("needs_reauth", "lost_rotation")
    assert len(world.attempts(world.refreshed[0])) == 2
    world.assert_nothing_was_lost(lost=(world.refreshed[0],))

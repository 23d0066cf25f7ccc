"""A sync is disturbed in the middle of a page; committed pages stay, and nothing is written twice."""

from __future__ import annotations

import signal

import pytest

from tests.support.faults_casts import page_of, played
from tests.support.faults_processes import kill_all
from tests.support.faults_world import World
from tests.support.sandbox import RaisedBarrier

pytestmark = pytest.mark.integrations(synced=("enable_banking", "simplefin", "snaptrade"))


def paused_in_a_page(world: World, login: str) -> RaisedBarrier:
    return world.sandbox.raise_barrier("mid_body", login=login, path=page_of(login))


@pytest.mark.parametrize("killed", ["workers", "Postgres"])
@pytest.mark.parametrize("part", ["refreshed", "synced"])
def test_killed_in_the_middle_of_a_page(world: World, part: str, killed: str) -> None:
    login = (world.refreshed if part == "refreshed" else world.synced)[0]
    barrier = paused_in_a_page(world, login)
    world.moves_on()
    barrier.wait_for_arrivals()
    if killed == "workers":
        kill_all(world)
        barrier.release()
    else:
        with world.servers.postgres_down():
            barrier.release()
    world.recovers(f"{killed} killed in the middle of a page of {login}", hurry=True)

    world.assert_nothing_was_lost()


def test_workers_asked_to_stop_in_the_middle_of_a_page_and_killed_within_the_grace(world: World) -> None:
    barrier = paused_in_a_page(world, world.synced[0])
    world.moves_on()
    barrier.wait_for_arrivals()
    for worker in world.workers:
        worker.process.signal(signal.SIGTERM)
    for worker in world.workers:
        worker.process.wait_for_log("shutdown")
    kill_all(world)
    barrier.release()
    world.recovers("workers stopped, then killed within the grace", hurry=True)

    world.assert_nothing_was_lost()


def test_workers_asked_to_stop_end_within_their_grace_and_lose_nothing(world: World) -> None:
    world.moves_on()
    for worker in world.workers:
        worker.process.signal(signal.SIGTERM)
    for worker in world.workers:
        worker.process.wait()
    world.recovers("workers asked to stop", hurry=True)

    world.assert_nothing_was_lost()


def test_postgres_unreachable_for_longer_than_a_dead_run(world: World) -> None:
    barrier = paused_in_a_page(world, world.synced[0])
    world.moves_on()
    barrier.wait_for_arrivals()
    run = """
        SELECT FROM (
            SELECT heartbeat_at FROM sync_runs WHERE status = 'running'
            UNION ALL SELECT heartbeat_at FROM unsettled_runs
        ) AS running WHERE heartbeat_at < clock_timestamp() - interval '4 seconds'
    """
    with world.servers.postgres_network.refusing():
        barrier.release()
        world.wait_until(run)
    world.recovers("Postgres unreachable for longer than a run may be silent", hurry=True)

    world.assert_nothing_was_lost()


def test_connections_terminated_again_and_again_while_pages_are_written(world: World) -> None:
    world.moves_on()
    ended = 0
    while world.unsettled_now():
        ended += world.servers.terminate_backends()
        if ended > 20:
            break
    world.recovers("connections terminated twenty times", hurry=True)

    assert ended > 0
    world.assert_nothing_was_lost()


@pytest.mark.integrations  # only Plaid's pages demand it
@pytest.mark.parametrize("times", [1, 3])
def test_pagination_restart_demanded(world: World, times: int) -> None:
    world.sandbox.demand_restarts(world.synced[0], times)
    world.sandbox.mutate(world.synced[0], *({"op": "add", "amount": f"{n}.25"} for n in range(1, 4)))
    world.moves_on()
    world.settle()

    books = world.sandbox.books(world.synced[0])
    assert world.differs_from_books(world.synced[0]) == []
    assert sum(row["amount"] in ("1.25", "2.25", "3.25") for row in books["transactions"]) == 3
    world.assert_log_is_clean()


def test_page_replayed_many_times_changes_nothing(world: World) -> None:
    world.moves_on()
    world.settle()
    world.hours_pass(*world.ids)  # a sync without news lets the books check begin
    world.settle()
    before = world.versions()
    for _ in range(3):
        world.hours_pass(*world.ids)
        world.settle()

    assert world.versions() == before


def test_login_whose_every_page_fails_delays_nobody(world: World) -> None:
    world.sandbox.inject("hang", login=world.synced[0], kind="data", times=None)
    world.moves_on()
    others = [login for login in world.ids if login != world.synced[0]]
    world.wait_until_settled(others)
    world.sandbox.clear_faults()

    world.assert_nothing_was_lost()


def test_another_login_linked_while_the_first_one_is_synced(world: World) -> None:
    world.begin(spare=1, members=world.members)
    barrier = paused_in_a_page(world, world.synced[0])
    world.moves_on()
    barrier.wait_for_arrivals()
    world.relink(world.synced[0])
    barrier.release()
    world.recovers("another login linked while the first one is synced", hurry=True)

    assert world.login_of(world.synced[0]) != world.synced[0]
    # On a busy machine the held page may have run into its deadline before the link was stored: then no run was ended.
    if played(world.synced[0]).names_logins:
        assert world.query("SELECT 1 FROM provider_audit_logs WHERE action = 'grant_revoked'")
    assert world.query("SELECT 1 FROM revocations") == []
    world.assert_nothing_was_lost()

"""Postgres refuses, dawdles, restarts and runs full; what was committed stays, what was answered is kept elsewhere."""

from __future__ import annotations

from tests.support.faults_world import World
from tests.support.waiting import wait_for


def test_all_connections_taken_between_rotation_and_commit(world: World) -> None:
    with world.sandbox.paused_after_rotation(login="schwab-1") as barrier:
        world.moves_on()
        barrier.wait_for_arrivals()
        with world.servers.all_connections_taken():
            barrier.release()
            wait_for(lambda: world.sandbox.refreshes("schwab-1")[-1]["answered"], what="the provider's answer")
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


def test_connections_to_postgres_cut(world: World) -> None:
    with world.sandbox.paused_after_rotation(login="schwab-1") as barrier:
        world.moves_on()
        barrier.wait_for_arrivals()
        with world.servers.postgres_network.refusing():
            barrier.release()
            wait_for(lambda: world.servers.redis.hlen("dashtam:journal"), what="the answer in the journal")
    world.recovers("connections to Postgres cut", hurry=True)

    world.assert_nothing_was_lost()


def test_slow_network_to_postgres_and_redis(world: World) -> None:
    with world.servers.postgres_network.slow(0.03), world.servers.redis_network.slow(0.03):
        world.moves_on()
        world.settle()

    world.assert_nothing_was_lost()


def test_connections_to_postgres_stall_while_pages_are_written(world: World) -> None:
    page = world.sandbox.raise_barrier("mid_body", login="plaid-1", path="/transactions/sync")
    world.moves_on()
    page.wait_for_arrivals()
    with world.servers.postgres_network.stalled():
        page.release()
        world.let_pass(6)
    world.recovers("connections to Postgres stalled", hurry=True)

    world.assert_nothing_was_lost()

"""Hooks that are lost, doubled, late, out of order, or too many: the books end right."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from tests.support.faults_casts import cast, logins_of
from tests.support.faults_world import World
from tests.support.providers import LASTING_KEY
from tests.support.waiting import wait_for
from worker.devstack.processes import free_port

STORM = 1000
_LONG = "600"
"""As SYNC_MIN_INTERVAL of the receiver, so that a storm may take as long as a busy machine needs."""


@pytest.fixture
def world(world: World) -> World:
    """With logins of Plaid, whose hooks these tests are about."""
    if world.synced != _logins():
        world.begin(members=cast(synced=LASTING_KEY))
    return world


def _logins() -> list[str]:
    return logins_of(cast(synced=LASTING_KEY))[LASTING_KEY]


@contextmanager
def _receiver(world: World) -> Iterator[None]:
    """The HTTP API, to which the hooks of the lasting logins go until the block ends."""
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    web = world.start_process([sys.executable, "-m", "worker.web"], WEB_PORT=str(port), SYNC_MIN_INTERVAL=_LONG)

    def is_ready() -> bool:
        try:
            return httpx.get(f"{address}/readyz").status_code == 200
        except httpx.HTTPError:
            return False

    wait_for(is_ready, what="the HTTP API")
    for login in world.synced:
        world.sandbox.want_hooks(login, f"{address}/webhooks/plaid")
    try:
        yield
    finally:
        web.stop()


def _runs(world: World, login: str) -> int:
    return int(world.query("SELECT count(*) FROM sync_runs WHERE provider_id = :id", id=world.ids[login])[0][0])


def _all_have_arrived(world: World) -> bool:
    return all(told["outcome"] in ("delivered", "lost") for told in world.sandbox.hooks())


def test_hooks_lead_to_syncs_and_polling_makes_up_for_those_that_are_lost(world: World) -> None:
    with _receiver(world):
        world.sandbox.deliver_hooks(lose=0.4, double=0.5, delay_seconds=0.3, reorder=True, retry_seconds=0.2)
        for _ in range(3):
            world.moves_on()
            world.settle()
        wait_for(lambda: _all_have_arrived(world), what="all hooks")
        outcomes = {told["outcome"] for told in world.sandbox.hooks()}
        assert outcomes == {"delivered", "lost"}, outcomes
        world.assert_nothing_was_lost()


def test_hook_alone_brings_the_books_up_to_date(world: World) -> None:
    with _receiver(world):
        world.sandbox.advance(1)
        assert any(world.differs_from_books(login) for login in world.synced)

        wait_for(lambda: not any(world.differs_from_books(login) for login in world.synced), what="the syncs")
    assert {told["outcome"] for told in world.sandbox.hooks()} == {"delivered"}


def test_storm_of_hooks_for_one_login_makes_at_most_two_runs(world: World) -> None:
    login = world.synced[0]
    with _receiver(world):
        world.sandbox.deliver_hooks(retry_seconds=0.5)
        before = _runs(world, login)
        assert world.sandbox.send_hooks(login, count=STORM) == STORM
        wait_for(lambda: _all_have_arrived(world), what="all hooks")
        wait_for(lambda: _runs(world, login) > before, what="the sync")
        world.settle()
        assert _runs(world, login) == before + 1
        # What came after that run began asks for one more, a while later.
        world.hours_pass(login)
        wait_for(lambda: _runs(world, login) > before + 1, what="the second sync")
        world.settle()
        assert _runs(world, login) == before + 2
    ((kept,),) = world.query("SELECT count(*) FROM hook_deliveries WHERE provider_id = :id", id=world.ids[login])
    assert kept >= STORM

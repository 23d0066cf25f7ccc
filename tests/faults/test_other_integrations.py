"""The integrations that the other fault tests leave out in CI: the crash points of a sync and of a refresh, once each.

`make test-release` runs all tests of faults in refreshes, in syncs and at providers with them, too.
"""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from tests.support.faults_casts import page_of
from tests.support.faults_processes import kill, kill_all
from tests.support.faults_world import World

MEMBERS = {"snaptrade": 1, "enable_banking": 1, "simplefin": 1}
LOGIN = "snaptrade-1"

pytestmark = pytest.mark.parametrize("world", [pytest.param(MEMBERS, id=pytest.HIDDEN_PARAM)], indirect=True)


@pytest.mark.parametrize("killed", ["workers", "Postgres"])
def test_killed_in_the_middle_of_a_page_of_each(world: World, killed: str) -> None:
    barriers = [world.sandbox.raise_barrier("mid_body", login=login, path=page_of(login)) for login in world.ids]
    world.moves_on()
    for barrier in barriers:
        barrier.wait_for_arrivals()
    with ExitStack() as stack:
        if killed == "workers":
            kill_all(world)
        else:
            stack.enter_context(world.servers.postgres_down())
        for barrier in barriers:
            barrier.release()
    world.recovers(f"{killed} killed in the middle of a page of each of the other integrations", hurry=True)

    world.assert_nothing_was_lost()


@pytest.mark.parametrize("place", ["before_send", "after_answer", "before_commit", "after_commit"])
def test_worker_dies_at_a_failpoint_of_a_refresh(world: World, place: str) -> None:
    doomed = world.only_worker(FAILPOINTS=f"{place}=kill")
    world.moves_on()
    doomed.process.wait_for_log("signal 9")
    kill(doomed)
    world.recovers(f"worker died at {place} of a refresh at SnapTrade")

    world.assert_nothing_was_lost(retries=place in ("after_answer", "before_commit"))


def test_workers_killed_after_a_refresh_token_for_one_use_was_used_cost_that_login_alone(world: World) -> None:
    world.sandbox.set_policy(world.refreshed_key, reuse="strict")
    with world.sandbox.paused_after_rotation(login=LOGIN) as barrier:
        world.moves_on()
        barrier.wait_for_arrivals()
        kill_all(world)
    world.recovers("workers killed after a refresh token for one use was used", lost=(LOGIN,))

    assert world.status(LOGIN) == ("needs_reauth", "lost_rotation")
    world.assert_nothing_was_lost(lost=(LOGIN,))

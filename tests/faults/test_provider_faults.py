"""Providers limit, fail, hang and dawdle; only a dead grant ends in re-authorisation, and only its own login waits."""

from __future__ import annotations

import sys

import pytest

from tests.support.faults_world import World
from tests.support.processes import LocalProcess
from tests.support.waiting import wait_for

pytestmark = pytest.mark.integrations(refreshed=("snaptrade",))

_RELEASE = pytest.mark.release  # one value of each kind is enough for CI


@pytest.mark.parametrize(
    "retry_after",
    ["2", pytest.param("+2", marks=_RELEASE), pytest.param("3600", marks=_RELEASE), "1e9"],
)
def test_rate_limited_refresh_is_deferred_and_never_the_user_s_fault(world: World, retry_after: str) -> None:
    world.sandbox.inject("rate_limit", kind="refresh", login=world.refreshed[0], retry_after=retry_after)
    world.hours_pass(world.refreshed[0])
    wait_for(lambda: world.attempts(world.refreshed[0]), what="the refused attempt")
    wait_for(lambda: world.attempts(world.refreshed[0])[0][0] != "sent", what="its end")

    assert world.attempts(world.refreshed[0])[0] == ("deferred", "rate_limited")
    assert world.status(world.refreshed[0]) == ("active", None)
    due = world.query("SELECT refresh_due_at - now() FROM providers WHERE id = :id", id=world.ids[world.refreshed[0]])[
        0
    ][0]
    assert due.total_seconds() <= 86_400 + 60
    world.assert_nothing_was_lost()


@pytest.mark.parametrize(
    "status",
    [500, *(pytest.param(status, marks=_RELEASE) for status in (502, 503, 504))],
)
def test_storm_of_errors_ends_without_reauthorisation(world: World, status: int) -> None:
    world.sandbox.inject("answer", status=status, body="oops", profile=world.refreshed_key, times=None)
    world.moves_on()
    world.hurry_until(lambda: len(world.attempts(world.refreshed[0])) > 1, what="a second attempt")
    assert [world.status(login)[0] for login in world.refreshed] == ["active"] * 3
    world.sandbox.clear_faults()
    world.settle()

    world.assert_nothing_was_lost()


@pytest.mark.parametrize("status", [pytest.param(502, marks=_RELEASE), 503])
def test_provider_down_for_an_hour_is_probed_and_then_caught_up_with(world: World, status: int) -> None:
    world.sandbox.inject("answer", status=status, body="<html>down</html>", times=None)
    world.moves_on()
    for _ in range(4):
        before = len(world.sandbox.log())
        world.hurry_until(lambda n=before: len(world.sandbox.log()) > n, what="a probe")
    assert {world.status(login)[0] for login in world.ids} == {"active"}
    world.sandbox.clear_faults()
    world.settle()

    world.assert_nothing_was_lost()


@pytest.mark.parametrize("do", ["hang", "drip"])
def test_provider_that_never_finishes_an_answer_delays_nobody_else(world: World, do: str) -> None:
    world.sandbox.inject(do, login=world.refreshed[0], kind="refresh", bytes_per_second=1.0, times=None)
    world.moves_on()
    world.wait_until_settled([login for login in world.ids if login != world.refreshed[0]])
    assert [line.partition(":")[0] for line in world.unsettled_now()] == [world.refreshed[0]]
    world.sandbox.clear_faults()
    world.settle()

    assert world.attempts(world.refreshed[0])[0][0] == "unknown"
    world.assert_nothing_was_lost()


@pytest.mark.parametrize(
    "body", ['{"message": "Access is denied", "errors": []}', "<html>blocked</html>"], ids=["403", "block page"]
)
def test_one_account_answers_403_or_a_block_page_for_ever(world: World, body: str) -> None:
    world.sandbox.inject("answer", status=403, body=body, login=world.refreshed[0], kind="data", times=None)
    others = [login for login in world.ids if login != world.refreshed[0]]
    for _ in range(3):
        world.moves_on()
        world.wait_until_settled(others)
        before = len(world.sandbox.log(login=world.refreshed[0], kind="data"))
        world.hurry_until(
            lambda n=before: len(world.sandbox.log(login=world.refreshed[0], kind="data")) > n,
            what="another refused sync",
        )

    assert {world.status(login)[0] for login in world.ids} == {"active"}
    assert world.query("SELECT paused_at FROM integration_states WHERE paused_at IS NOT NULL") == []
    world.sandbox.clear_faults()
    world.settle()

    world.assert_nothing_was_lost()


def test_dripping_pages_end_at_the_deadline_and_are_read_later(world: World) -> None:
    world.sandbox.inject("drip", login=world.synced[0], kind="data", bytes_per_second=1.0)
    world.moves_on()
    world.settle()

    world.assert_nothing_was_lost()


@pytest.mark.parametrize("do", ["reset", "hang"])
def test_answer_lost_after_the_work_was_done_is_asked_for_once_more(world: World, do: str) -> None:
    world.sandbox.inject(do, kind="refresh", login=world.refreshed[0], when="after")
    world.moves_on()
    world.settle()

    assert world.outcomes(world.refreshed[0]) == ["unknown", "done"]
    world.assert_nothing_was_lost()


def test_every_answer_lost_ends_in_reauthorisation_after_one_retry(world: World) -> None:
    world.sandbox.inject("reset", kind="refresh", login=world.refreshed[0], when="after", times=None)
    world.moves_on()
    world.settle(lost=(world.refreshed[0],))

    assert world.status(world.refreshed[0]) == ("needs_reauth", "lost_rotation")
    assert len(world.sandbox.refreshes(world.refreshed[0])) == 2
    calls = len(world.sandbox.log(login=world.refreshed[0]))
    world.sandbox.clear_faults()
    world.hours_pass(*world.ids)
    world.settle(lost=(world.refreshed[0],))
    assert len(world.sandbox.log(login=world.refreshed[0])) == calls, "calls for it have stopped"


def test_revoked_grant_ends_in_reauthorisation_and_calls_stop(world: World) -> None:
    world.sandbox.revoke(world.refreshed[0])
    world.moves_on()
    world.settle(lost=(world.refreshed[0],))
    calls = len(world.sandbox.log(login=world.refreshed[0]))
    world.hours_pass(*world.ids)
    world.settle(lost=(world.refreshed[0],))

    assert world.status(world.refreshed[0])[0] == "needs_reauth"
    assert len(world.sandbox.log(login=world.refreshed[0])) == calls
    world.assert_nothing_was_lost(lost=(world.refreshed[0],))


def test_manual_refresh_races_beat_s(world: World) -> None:
    with world.sandbox.paused_before_rotation(login=world.refreshed[0]) as barrier:
        world.hours_pass(world.refreshed[0])
        barrier.wait_for_arrivals()
        manual = [command(world, "refresh", str(world.ids[world.refreshed[0]]), "--force") for _ in range(3)]
        wait_for(lambda: all(not process.running for process in manual), what="the commands' ends")
    world.settle()

    world.assert_nothing_was_lost()


def command(world: World, *words: str) -> LocalProcess:
    """A `dashtam` command under way."""
    return world.start_process([sys.executable, "-m", "worker.cli", *words])


def test_three_hundred_logins_fall_due_in_the_same_second(world: World) -> None:
    fleet = world.sandbox.create_logins(world.refreshed_key, 300, transactions=0, accounts=1)
    hanging = fleet[::60]  # several: a sync that just then needs the token of one refreshes that one alone
    world.sandbox.inject("delay", profile=world.refreshed_key, kind="refresh", latency_ms=50, times=None)
    for login in hanging:
        world.sandbox.inject("hang", login=login, kind="refresh")
    world.link(*fleet, synced=False)
    begun = world.now()
    world.hours_pass(*fleet)
    world.settle_refreshes()

    # One transaction claims a batch, so its calls share an owner; what has arrived is stored while others hang.
    slowest, stored_meanwhile = world.query(
        """
        WITH attempts AS (
            SELECT r.*, p.alias = ANY(:hanging) AS hung FROM token_refreshes r JOIN providers p ON p.id = r.provider_id
            WHERE r.started_at > :begun
        ), hanging AS (
            SELECT DISTINCT ON (provider_id) * FROM attempts WHERE hung ORDER BY provider_id, started_at
        )
        SELECT max(r.finished_at - :begun),
            count(*) FILTER (WHERE r.lease_owner = h.lease_owner AND r.finished_at < h.finished_at)
        FROM attempts r CROSS JOIN hanging h
        WHERE r.status = 'done' AND NOT r.hung
        """,
        begun=begun,
        hanging=hanging,
    )[0]
    world.times.append(("300 logins due in one second, all but five that hang", slowest.total_seconds()))
    assert {world.outcomes(login)[0] for login in hanging} == {"unknown"}
    assert stored_meanwhile > 0
    world.assert_log_is_clean()

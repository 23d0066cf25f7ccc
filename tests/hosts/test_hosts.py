"""Work goes on with two hosts when one of them cannot: nothing is lost, and no token is presented twice."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable

import pytest

from tests.support.hosts import fake_time
from tests.support.hosts_world import NAMES, HostsWorld
from tests.support.providers import LASTING_KEY
from tests.support.waiting import PATIENCE_S, wait_for

SYNCS = 60


def test_story_without_a_fault(world: HostsWorld) -> None:
    world.moves_on()
    world.settle()

    world.assert_nothing_was_lost(retries=False)


def test_second_host_brings_its_share(world: HostsWorld, record_property: Callable[[str, object], None]) -> None:
    for name in NAMES:
        world.restart(name, SYNC_BATCH_SIZE="1")
    logins = world.sandbox.create_logins(LASTING_KEY, SYNCS, transactions=150, history_days=60)

    world.link(*logins)
    world.settle(seconds=3 * PATIENCE_S)

    runs = {name: _syncs_of(world, name) for name in NAMES}
    shares = [len(ended) / sum(map(len, runs.values())) for ended in runs.values()]
    words = ", ".join(f"{len(ended)} of {name}" for name, ended in runs.items())
    record_property("told", f"{words}: as much as {1 / max(shares):.2f} hosts do")
    assert all(0.4 <= share <= 0.6 for share in shares), shares
    assert [line for login in logins for line in world.differs_from_books(login)] == []
    world.assert_log_is_clean(retries=False)


def _syncs_of(world: HostsWorld, name: str) -> set[str]:
    """Ids of the runs that ended on this host since its worker was started."""
    lines = (line for line in world.worker_on(name).logs().splitlines() if '"sync_ended"' in line)
    return {found[1] for line in lines if (found := re.search(r'"run_id": "([^"]+)"', line))}


def test_link_is_cut_while_an_answer_is_on_its_way(world: HostsWorld) -> None:
    one, two = world.hosts["one"], world.hosts["two"]
    two.vanish()
    with world.sandbox.paused_after_rotation(login=world.refreshed[0]) as barrier:
        world.hours_pass(world.refreshed[0])
        barrier.wait_for_arrivals()
        one.cut_link()
        barrier.release()
        wait_for(one.spooled, what="the answer on the disk of the host that is cut off")
    two.come_back()
    world.wait_until("SELECT 1 FROM spools WHERE asked_at > seen_at")
    one.mend_link()
    world.recovers("a link that was cut while an answer was on its way", hurry=True)

    assert world.outcomes(world.refreshed[0]) == ["done"]
    assert one.spooled() == []
    world.assert_nothing_was_lost(retries=False)


@pytest.mark.parametrize("comes_back", [True, False], ids=["and comes back", "for good"])
def test_host_vanishes_while_it_works(world: HostsWorld, comes_back: bool) -> None:
    world.hosts["two"].vanish()
    with world.sandbox.paused_after_rotation() as barrier:
        world.moves_on()
        barrier.wait_for_arrivals()
        world.hosts["one"].vanish()
    world.hosts["two"].come_back()
    world.times.append(("a host that vanished", world.settle()))
    world.moves_on()
    world.settle()
    if comes_back:
        world.hosts["one"].come_back()
    else:
        for process in (world.worker_on("one").process, world.beats["one"]):
            process.kill()

    world.assert_nothing_was_lost()


def test_beat_that_is_cut_off_is_alive_and_the_other_one_carries_on(world: HostsWorld) -> None:
    world.hosts["one"].cut_link()
    for _ in range(2):
        world.moves_on()
        world.settle()
    world.forget_signs_of_life()
    for name in ("one", "beat"):
        wait_for(lambda name=name: world.is_alive(name), what=f"a sign of life of {name}, which is cut off")
    world.hosts["one"].mend_link()

    world.assert_nothing_was_lost()


@pytest.mark.parametrize("offset_s", [90, -90])
def test_clocks_are_apart(world: HostsWorld, offset_s: int) -> None:
    world.restart("two", **fake_time(offset_s))
    for _ in range(2):
        world.moves_on()
        world.settle()
    doctor = world.hosts["two"].process(
        f"doctor{offset_s:+}",
        [sys.executable, "-m", "worker.cli", "doctor", "--json"],
        env=world.environment | fake_time(offset_s),
    )
    doctor.start()
    doctor.wait()

    clock = next(line for line in json.loads(_json_in(doctor.logs())) if line["check"] == "clock")
    assert clock["ok"] is False
    assert re.match(r"(89|90|91) s apart from Postgres", clock["found"])
    world.assert_nothing_was_lost(retries=False)


def _json_in(log: str) -> str:
    begin = log.index("[\n")
    return json.dumps(json.JSONDecoder().raw_decode(log[begin:])[0])

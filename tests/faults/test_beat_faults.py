"""Beat is doubled, stopped, killed, and told wrong times; what is due does not depend on any one tick."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

from tests.support.faults_pace import SECONDS_PER_TICK
from tests.support.faults_processes import BEAT, kill
from tests.support.faults_world import World
from tests.support.waiting import wait_for


def test_two_beats_refresh_nothing_twice(world: World) -> None:
    second = world.start_beat()
    second.wait_for_log("beat: Starting")
    for _ in range(3):
        world.moves_on()
        world.settle()

    world.assert_nothing_was_lost(retries=False)


def test_beat_stopped_for_ten_periods(world: World) -> None:
    world.beat.signal(signal.SIGSTOP)
    try:
        world.let_pass(3 * SECONDS_PER_TICK)  # what it has sent is worked off by then, or too old to be taken
        wait_for(world.is_idle, what="the end of what beat has sent")
        world.moves_on()
        world.let_pass(10 * SECONDS_PER_TICK)
        assert world.unsettled_now(), "nothing is worked off without beat"
    finally:
        world.beat.signal(signal.SIGCONT)
    world.recovers("beat stopped for ten periods")

    world.assert_nothing_was_lost(retries=False)


def test_beat_killed(world: World) -> None:
    kill(world.beat)
    world.moves_on()
    world.recovers("beat killed")

    world.assert_nothing_was_lost(retries=False)


def test_beat_starts_beside_a_corrupt_schedule_file(world: World, tmp_path: Path) -> None:
    kill(world.beat)
    schedule = tmp_path / "celerybeat-schedule"
    schedule.write_bytes(b"\x00\xff garbage \x1f" * 100)
    beat = world.start_beat(sys.executable, "-m", "celery", *BEAT, "--schedule", str(schedule))
    world.moves_on()
    world.settle()

    assert beat.running
    world.assert_nothing_was_lost(retries=False)


@pytest.mark.parametrize(("name", "shift"), [("back a day", -86_400), ("ahead a day", 86_400)])
def test_clock_of_the_worker_s_machine_is_set_while_it_works(world: World, name: str, shift: int) -> None:
    kill(world.beat)
    machine = [world.only_worker(program=("tests.support.faults_clock", str(shift))).process]
    machine.append(world.start_beat(sys.executable, "-m", "tests.support.faults_clock", str(shift), *BEAT))
    machine[1].wait_for_log("Sending due task refresh-due")
    for process in machine:
        process.signal_group(signal.SIGWINCH)
        process.wait_for_log("clock set")
    world.moves_on()
    world.times.append((f"clock set {name}", world.settle()))

    world.assert_nothing_was_lost(retries=False)


def test_worker_whose_clock_is_a_day_late_does_what_is_due(world: World) -> None:
    world.only_worker(program=("tests.support.faults_clock", "@-86400"))
    world.moves_on()
    world.settle()

    world.assert_nothing_was_lost(retries=False)

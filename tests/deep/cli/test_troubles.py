"""An operator in trouble asks: each of the four places names the true cause first, and the command that mends it."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.demonstration import in_home
from tests.support.troubled_world import ALIAS, TroubledWorld
from worker.cli.exits import ExitCode

pytestmark = [pytest.mark.deep, pytest.mark.long, pytest.mark.xdist_group("troubled world")]


@dataclass(frozen=True)
class Expected:
    """What an operator must read.

    Attributes:
        cause: in the first sentence.
        command: the beginning of the command that mends it.
        runs: whether that command can be run here.
        ends: whether it ends the trouble here.
    """

    cause: str
    command: str
    runs: bool = True
    ends: bool = True


# Those that stop servers come last: after them all that is connected must find its way back.
TROUBLES = {
    "paused": Expected("paused by operator:", "dashtam integrations resume schwab"),
    "outage": Expected("the provider does not answer", "dashtam sync "),
    "breaker": Expected("the breaker is open", "dashtam integrations resume schwab"),
    # The command makes it rarer; the quota itself is there again when its time is over.
    "quota": Expected("a quota of calls is used up", "dashtam providers interval ", ends=False),
    "needs_its_user": Expected("needs its user's consent again", "dashtam link schwab --user "),
    "key_missing": Expected("stored tokens need the key gone", "dashtam keys status"),
    "schema_old": Expected("this code wants", "dashtam migrate"),
    # Needs root, and would set the clock of the machine that runs the tests.
    "clock_wrong": Expected("s apart from Postgres", "timedatectl set-ntp true", runs=False),
    "beat_gone": Expected("the last tick was worked off at", "celery -A worker.app beat"),
    "workers_gone": Expected("none answers", "celery -A worker.app worker --queues refresh,sync,upkeep"),
    "redis_dead": Expected("Redis does not run at 127.0.0.1:", "dashtam devstack up"),
    "postgres_dead": Expected("Postgres does not run at 127.0.0.1:", "dashtam devstack up"),
    # Run by `test_a_silent_postgres_is_restarted_by_the_printed_command`, which needs no workers: they are slow to come
    # back to the Redis that is restarted too.
    "postgres_silent": Expected("Postgres did not answer", "dashtam devstack down && dashtam devstack up", runs=False),
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TroubledWorld]:
    with TroubledWorld.session(tmp_path_factory.mktemp("troubled")) as world:
        yield world


@pytest.fixture(scope="module", params=TROUBLES)
def expected(request: pytest.FixtureRequest, world: TroubledWorld) -> Iterator[Expected]:
    """The trouble is made once for all places; then its command is run, and all is well again."""
    expected = TROUBLES[request.param]
    with getattr(world, request.param)():
        yield expected
        if expected.runs:
            (trouble, *_) = world.troubles()
            world.run_mend(trouble.mend)
            if expected.ends:
                world.wait_until_well()
    world.wait_until_well()


def _assert_first(text: str, expected: Expected, *, not_before: str = "") -> None:
    """The cause is in the text, with its command, and no other advice comes before it."""
    cause, advice = text.find(expected.cause), text.find(expected.command)
    assert cause >= 0, text
    assert advice > cause, text
    other = text.find("→")
    assert other < 0 or other > cause, text
    if not_before:
        assert text.find(not_before) < 0 or text.find(not_before) > cause, text


def test_explain(world: TroubledWorld, expected: Expected) -> None:
    result = world.dashtam("explain", ALIAS)

    assert "Traceback" not in result.output
    _assert_first(result.stdout + result.stderr, expected, not_before="is active")
    assert "Nobody has to do anything" not in result.stdout
    assert "is active: the schedule" not in result.stdout


def test_status(world: TroubledWorld, expected: Expected) -> None:
    result = world.dashtam("status")

    assert "Traceback" not in result.output
    _assert_first(result.stdout + result.stderr, expected, not_before="providers")


def test_doctor(world: TroubledWorld, expected: Expected) -> None:
    result = world.dashtam("doctor")

    assert result.exit_code in (ExitCode.OK, ExitCode.FAILED)
    _assert_first(result.stdout, expected)
    assert result.stdout.count("bad ") <= 1  # what follows from it is not told as a trouble of its own


def test_live_table(world: TroubledWorld, expected: Expected) -> None:
    _assert_first(world.live_table(), expected, not_before="dashtam ───")


def test_a_silent_postgres_is_restarted_by_the_printed_command(tmp_path: Path) -> None:
    home = {"DASHTAM_HOME": str(tmp_path / "home")}
    with in_home(home) as shell:
        assert shell("dashtam devstack up && dashtam migrate").returncode == 0
        servers = json.loads(shell("dashtam devstack status --json").stdout)
        os.kill(next(one["pid"] for one in servers if one["name"] == "postgres"), signal.SIGSTOP)

        told = shell("dashtam providers")
        printed = told.stderr.rpartition("restart it: ")[2].strip()
        mended = shell(printed)

        assert told.returncode == ExitCode.UNAVAILABLE
        assert printed == "dashtam devstack down && dashtam devstack up"
        assert mended.returncode == 0, mended.stderr
        assert shell("dashtam providers").returncode == 0

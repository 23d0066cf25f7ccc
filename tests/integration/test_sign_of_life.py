"""The files that probes look at, written by real processes."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import Celery
from redis import Redis

from tests.support.celery_fixtures import StartWorker
from tests.support.processes import LocalProcess
from tests.support.waiting import wait_for
from worker.devstack.tether import Tether

pytestmark = [pytest.mark.deep, pytest.mark.long]

NOBODY = {"REDIS_URL": "redis://127.0.0.1:1/0"}
"""A broker that refuses every connection."""


def is_fresh(file: Path) -> bool:
    return file.exists() and file.stat().st_mtime > 0


def assert_touched_again(file: Path) -> None:
    wait_for(lambda: is_fresh(file), what=f"{file.name}, for the first time")
    os.utime(file, (0, 0))
    wait_for(lambda: is_fresh(file), what=f"{file.name}, once more")


@pytest.fixture
def lonely_beat(process_environment: dict[str, str], tmp_path: Path, tether: Tether) -> Iterator[Path]:
    """The file of a beat that reaches no broker."""
    file = tmp_path / "beat.alive"
    process = LocalProcess(
        "beat",
        [sys.executable, "-m", "celery", "-A", "worker.app", "beat", "--pidfile="],
        log=tmp_path / "beat.log",
        env={**process_environment, **NOBODY, "ALIVE_FILE": str(file)},
        tether=tether,
        forked=True,
    )
    process.start()
    yield file
    process.stop()


def test_worker_and_beat_that_wait_for_their_broker_are_alive_and_not_connected(
    start_worker: StartWorker, lonely_beat: Path, tmp_path: Path
) -> None:
    lonely_worker = tmp_path / "worker.alive"
    start_worker("upkeep", wait=False, ALIVE_FILE=str(lonely_worker), **NOBODY)

    for file in (lonely_worker, lonely_beat):
        assert_touched_again(file)
        assert not file.with_name(f"{file.name}.connected").exists()


def test_file_is_left_alone_while_the_loop_hangs_and_touched_when_it_goes_on(
    start_worker: StartWorker, celery_application: Celery, redis: Redis, tmp_path: Path
) -> None:
    file = tmp_path / "worker.alive"
    start_worker("upkeep", ALIVE_FILE=str(file))
    assert_touched_again(file)
    assert_touched_again(file.with_name("worker.alive.connected"))

    celery_application.control.broadcast("hang", arguments={"key": "hung"})
    said = wait_for(lambda: redis.lrange("hung", 0, -1), what="the end of what holds up the loop")

    assert said == ["untouched"]
    wait_for(lambda: is_fresh(file), what="a sign of life after the loop goes on")

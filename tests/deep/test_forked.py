"""A forked worker cannot be told from one that a command has started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.processes import LocalProcess
from worker.errors import ConfigurationError

pytestmark = pytest.mark.deep

_BEAT = ("-A", "worker.app", "beat", "--pidfile=")


@pytest.fixture
def started(tmp_path: Path) -> Iterator[list[LocalProcess]]:
    """Processes that are ended after the test."""
    processes: list[LocalProcess] = []
    yield processes
    for process in processes:
        process.stop()


def celery(tmp_path: Path, *arguments: str, forked: bool = True, **env: str) -> LocalProcess:
    argv = [sys.executable, "-m", "celery", *arguments]
    process = LocalProcess("celery", argv, log=tmp_path / "log", env=env, forked=forked)
    process.start()
    return process


@pytest.mark.parametrize(("argument", "code"), [("--version", 0), ("--no-such-option", 2)])
def test_it_says_the_same_and_ends_with_the_same_code(tmp_path: Path, argument: str, code: int) -> None:
    said = {}
    for forked in (True, False):
        process = celery(tmp_path, argument, forked=forked)
        assert process.wait() == code
        said[forked] = process.logs().replace("python -m celery", "celery")

    assert said[True] == said[False] != ""


def test_it_leads_a_group_and_is_killed_with_it(tmp_path: Path, started: list[LocalProcess]) -> None:
    process = celery(tmp_path, *_BEAT)
    started.append(process)

    assert os.getpgid(process.pid) == process.pid
    assert process.running
    process.kill()

    assert (process.running, process.exit_code) == (False, -signal.SIGKILL)


def test_it_ends_in_order_when_it_is_asked_to(tmp_path: Path, started: list[LocalProcess]) -> None:
    process = celery(tmp_path, *_BEAT, "--schedule", str(tmp_path / "schedule"))
    started.append(process)
    process.wait_for_log("beat: Starting")
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.1)

    process.signal(signal.SIGTERM)

    assert process.wait() == 0


def test_it_has_its_own_variables_alone(tmp_path: Path) -> None:
    refused = celery(tmp_path, "-A", "worker.app", "report", LOG_FORMAT="xml")
    assert refused.wait() == ConfigurationError.exit_code
    assert refused.logs() == "error: LOG_FORMAT: Input should be 'json' or 'console'\n"

    assert celery(tmp_path, "-A", "worker.app", "report").wait() == 0

"""`make test` on made-up tests: what it prints while it runs, and how it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.environment import ROOT
from tests.support.waiting import wait_for

_RUN = """
import signal, sys
from tests.support import suite

halves = {"one": ("test_one.py",), "other": ("test_other.py",)}
sessions = suite.Sessions(halves, ("--rootdir=.", "-p", "no:cacheprovider", "-p", "no:randomly"), to=sys.stdout)
signal.signal(signal.SIGINT, sessions.interrupt)
sessions.follow()
line, code = suite.verdict(
    sessions.halves, sessions.seconds, (suite.Covered(1, 1),) * 2, floors=(1, 1), interrupted=sessions.interrupted
)
print(line)
sys.exit(code)
"""
_PASSES = "def test_passes(): pass\n"
_WAITS = "import pathlib, time\ndef test_waits():\n    pathlib.Path('waiting').touch()\n    time.sleep(600)\n"


class Run:
    """The two sessions in a folder of their own."""

    def __init__(self, folder: Path, one: str, other: str) -> None:
        self.folder = folder
        (folder / "pytest.ini").write_text("[pytest]\n")
        (folder / "test_one.py").write_text(one)
        (folder / "test_other.py").write_text(other)
        self.output = folder / "output"
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _RUN],
                cwd=folder,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def end(self) -> tuple[list[str], int]:
        """Its lines and its exit code."""
        code = self.process.wait(120)
        return self.output.read_text().splitlines(), code


@pytest.fixture
def runs() -> Iterator[list[Run]]:
    started: list[Run] = []
    yield started
    for run in started:
        run.process.kill()
        run.process.wait()


def test_progress_of_both_and_pytest_s_closing_lines_are_shown(runs: list[Run], tmp_path: Path) -> None:
    runs.append(Run(tmp_path, _PASSES * 1, _PASSES))

    lines, code = runs[0].end()

    assert any("one 1 of 1  other 1 of 1  failed 0" in line for line in lines)
    assert sum("1 passed in" in line for line in lines) == 2
    assert lines[-1].startswith("2 passed, 0 failed in ")
    assert code == 0


def test_failure_is_named_at_once_and_told_in_full(runs: list[Run], tmp_path: Path) -> None:
    runs.append(Run(tmp_path, _PASSES, "def test_fails():\n    assert 1 + 1 == 3\n"))

    lines, code = runs[0].end()

    assert "FAILED test_other.py::test_fails" in lines
    assert any("assert (1 + 1) == 3" in line for line in lines)
    assert lines[-1].startswith("FAILED: 1 passed, 1 failed in ")
    assert code == 1


def test_session_that_dies_is_told_from_one_that_passes(runs: list[Run], tmp_path: Path) -> None:
    runs.append(Run(tmp_path, _PASSES, "import os\ndef test_dies():\n    os._exit(0)\n"))

    lines, code = runs[0].end()

    assert lines[-1].endswith("other ended with exit code 0 after 0 tests, before its end")
    assert code == 1


@pytest.mark.release
def test_interrupt_ends_both_and_leaves_no_process(runs: list[Run], tmp_path: Path) -> None:
    runs.append(Run(tmp_path, _PASSES, _WAITS))
    wait_for((tmp_path / "waiting").exists, what="the test to wait")

    runs[0].process.send_signal(signal.SIGINT)
    lines, code = runs[0].end()

    assert lines[-1].endswith(": interrupted before the end")
    assert code == 130
    assert processes_in(tmp_path) == []


def test_sessions_end_when_their_starter_is_killed(runs: list[Run], tmp_path: Path) -> None:
    many = f"import pytest, time\n@pytest.mark.parametrize('n', range(10_000))\n{_WAITS.split(chr(10), 1)[1]}"
    many = many.replace("pathlib.Path('waiting').touch()", "open('waiting', 'w').close()").replace("600", "0.01")
    runs.append(Run(tmp_path, _PASSES, many.replace("def test_waits():", "def test_waits(n):")))
    wait_for((tmp_path / "waiting").exists, what="tests to run")

    runs[0].process.kill()

    wait_for(lambda: not processes_in(tmp_path), what="the sessions to end")


def processes_in(folder: Path) -> list[str]:
    """Command lines of the processes that work in a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").readlink() == folder and (process / "cmdline").read_bytes():
                found.append((process / "cmdline").read_text())
        except OSError:  # it has ended meanwhile, or is not ours
            continue
    return found

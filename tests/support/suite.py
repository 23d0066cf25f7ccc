"""What `make test` runs: two pytest sessions side by side, a line a second of how far they are, and a verdict.

    python -m tests.support.suite CORE_FILE,CORE_FILE… [PYTEST_ARGUMENT…]

The last line says how many tests passed and failed, in how many seconds, how much of the code ran, and what is wrong,
if something is. A session that fails prints all that pytest said; one that passes only pytest's closing line.
"""

from __future__ import annotations

import json
import os
import re
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import IO, Any

from tests.support.floors import CORE_FLOOR, ROOT, Covered, combine, measure, overall_floor

# Two sessions of about the same length. One on several processes (xdist) would collect everything twice.
# Servers and a worker take seconds to start: the one waits for Postgres, the other for the worker.
_COMMAND_LINE = "tests/integration/cli"
HALVES: Mapping[str, Sequence[str]] = {
    "unit, smoke, command line": ("tests/unit", "tests/smoke", _COMMAND_LINE),
    "integration": ("tests/integration", f"--ignore={_COMMAND_LINE}"),
}
# Properties are deep: hypothesis' plugin has nothing to do, and reads all sources before it begins.
# tests.support.progress watches for tests that hang.
OPTIONS = (
    *("-m", "not deep", "-p", "no:hypothesispytest"),
    *("--cov", "--cov-report=", "--cov-fail-under=0"),
    *("-o", "faulthandler_timeout=0"),
)
_DEEP_FILE = re.compile(r"^pytestmark = .*\bpytest\.mark\.deep\b", re.MULTILINE)
_PYTEST_RAN = (0, 1, 5)  # all passed, some failed, nothing was selected
_SECONDS_TO_TIDY_UP = 30
_EVERY_SECOND = 1.0


@dataclass
class Half:
    """One session: what it has said so far."""

    name: str
    collected: int | None = None
    outcomes: dict[str, str] = field(default_factory=dict)
    finished: bool = False
    exit_code: int | None = None

    def hear(self, event: Mapping[str, Any]) -> None:
        """Takes one event of `tests.support.progress`."""
        match event:
            case {"collected": int(count)}:
                self.collected = count
            case {"finished": int()}:
                self.finished = True
            case {"outcome": "passed" | "failed" | "skipped" as outcome, "name": str(name)}:
                # A teardown may fail after its test has ended: one test, and it failed.
                if self.outcomes.get(name) != "failed":
                    self.outcomes[name] = outcome

    def count(self, outcome: str) -> int:
        """How many tests ended so."""
        return sum(one == outcome for one in self.outcomes.values())

    @property
    def failed(self) -> int:
        return self.count("failed")

    @property
    def done(self) -> int:
        return len(self.outcomes)

    @property
    def broken(self) -> str | None:
        """Why its counts cannot be trusted, or nothing."""
        if self.exit_code is not None and self.exit_code < 0:
            return f"{self.name} was ended by {signal.Signals(-self.exit_code).name} after {self.done} tests"
        if self.exit_code not in _PYTEST_RAN or not self.finished:
            return f"{self.name} ended with exit code {self.exit_code} after {self.done} tests, before its end"
        if self.exit_code == 1 and not self.failed:
            return f"{self.name} failed outside of its tests"
        return None

    def __str__(self) -> str:
        return f"{self.name} {'collecting' if self.collected is None else f'{self.done} of {self.collected}'}"


def verdict(
    halves: Sequence[Half],
    seconds: float,
    covered: tuple[Covered, Covered] | None,
    *,
    floors: tuple[float, float],
    interrupted: bool = False,
) -> tuple[str, int]:
    """The last line, and the exit code.

    Args:
        covered: of everything and of the core; nothing when it could not be measured.
        floors: of the same, in per cent.
    """
    passed, failed, skipped = (sum(half.count(how) for half in halves) for how in ("passed", "failed", "skipped"))
    line = f"{passed} passed, {failed} failed{f', {skipped} skipped' if skipped else ''} in {seconds:.0f} s"
    wrong = [half.broken for half in halves if half.broken] if not interrupted else ["interrupted before the end"]
    if covered is None:
        wrong = wrong or ["coverage was not measured"]
    else:
        line += f", coverage {covered[0].percent:.1f} % (core {covered[1].percent:.1f} %)"
        for what, found, floor in zip(("coverage", "coverage of the core"), covered, floors, strict=True):
            # A run that broke off or was told to run less is not measured by the floors of all.
            if not wrong and found.percent < floor:
                wrong.append(f"{what} is below its floor of {floor:g} %")
    if failed:
        wrong.insert(0, f"{failed} failed")
    if not failed and not wrong and not passed:
        wrong.append("no test ran")
    if wrong:
        return f"FAILED: {line}: {'; '.join(wrong)}", 130 if interrupted else 1
    return line, 0


class Sessions:
    """The halves as processes.

    Args:
        halves: pytest's arguments of each, by name.
        arguments: what all of them get besides.
        to: where lines for the reader go.
    """

    def __init__(self, halves: Mapping[str, Sequence[str]], arguments: Sequence[str], *, to: IO[str]) -> None:
        self._to = to
        self._folder = Path(tempfile.mkdtemp(prefix="dashtam-test-output-"))
        self._selector = selectors.DefaultSelector()
        self._started = time.monotonic()
        self._shown_at = 0.0
        self._in_place = to.isatty()
        self.interrupted = False
        self.halves = [Half(name) for name in halves]
        self._processes = {half.name: self._start(half, (*halves[half.name], *arguments)) for half in self.halves}

    def _start(self, half: Half, arguments: Sequence[str]) -> subprocess.Popen[bytes]:
        reading, writing = os.pipe()
        with self._output(half).open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "pytest", "-p", "tests.support.progress", *arguments],
                env={
                    **os.environ,
                    "PROGRESS_PIPE": str(writing),
                    "PROGRESS_IMPORTS": "yes" if half is self.halves[0] else "",
                    "COVERAGE_FILE": f".coverage.{half.name.partition(',')[0]}",
                    "COLUMNS": str(shutil.get_terminal_size((120, 24)).columns),
                },
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=(writing,),
                start_new_session=True,  # Ctrl-C is passed on below, once
            )
        os.close(writing)
        self._selector.register(os.fdopen(reading, "rb", buffering=0), selectors.EVENT_READ, (half, bytearray()))
        return process

    def _output(self, half: Half) -> Path:
        return self._folder / half.name.replace(", ", "-")

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started

    def interrupt(self, number: int, frame: FrameType | None = None) -> None:
        """Asks the sessions to end in order; asked once more, ends them at once."""
        how = signal.SIGKILL if self.interrupted else signal.SIGINT
        self.interrupted = True
        for process in self._processes.values():
            with suppress(ProcessLookupError):
                os.killpg(process.pid, how)

    def follow(self) -> None:
        """Reads and shows until both have ended."""
        asked_to_end_at: float | None = None
        while any(half.exit_code is None for half in self.halves):
            for key, _ in self._selector.select(_EVERY_SECOND / 5):
                self._read(key)
            self._look_for_ends()
            self._show()
            if self.interrupted:
                asked_to_end_at = asked_to_end_at or time.monotonic()
                if time.monotonic() - asked_to_end_at > _SECONDS_TO_TIDY_UP:
                    self.interrupt(signal.SIGKILL)
        self._show(last=True)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _read(self, key: selectors.SelectorKey) -> None:
        half, rest = key.data
        pipe: Any = key.fileobj
        chunk = pipe.read(65536)
        *lines, tail = bytes(rest + chunk).split(b"\n")
        rest[:] = tail
        for line in lines:
            event = json.loads(line)
            if event.get("outcome") == "failed" and half.outcomes.get(event["name"]) != "failed":
                self._line(f"FAILED {event['name']}")
            half.hear(event)
        if not chunk:
            self._selector.unregister(pipe)
            pipe.close()

    def _look_for_ends(self) -> None:
        for half in self.halves:
            if half.exit_code is None and (code := self._processes[half.name].poll()) is not None:
                half.exit_code = code
                self._line(self._what_it_said(half))

    def _what_it_said(self, half: Half) -> str:
        said = self._output(half).read_text(errors="replace").rstrip()
        if half.exit_code == 0:
            said = said.rpartition("\n")[2]
        return f"{half.name}: {said}" if "\n" not in said else f"--- {half.name}\n{said}"

    def _show(self, *, last: bool = False) -> None:
        now = time.monotonic()
        if not last and now - self._shown_at < _EVERY_SECOND:
            return
        self._shown_at = now
        failed = sum(half.failed for half in self.halves)
        progress = f"{self.seconds:4.0f} s  {'  '.join(map(str, self.halves))}  failed {failed}"
        if self._in_place:
            self._to.write(f"\r\x1b[2K{progress}")
            self._to.flush()
        else:
            self._line(progress)

    def _line(self, text: str) -> None:
        self._to.write(f"\r\x1b[2K{text}\n" if self._in_place else f"{text}\n")
        self._to.flush()


def left_out(tests: Path) -> list[str]:
    """Options of pytest that keep it from reading the files that are deep as a whole."""
    return [
        f"--ignore={path}" for path in sorted(tests.rglob("test_*.py")) if _DEEP_FILE.search(path.read_text("utf-8"))
    ]


def main(core: str, *arguments: str) -> int:
    """Runs both halves. Returns the exit code: 0 when all passed and no floor is missed."""
    for left in Path().glob(".coverage*"):
        left.unlink()
    sessions = Sessions(HALVES, (*OPTIONS, *left_out(ROOT / "tests"), *arguments), to=sys.stdout)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, sessions.interrupt)
    sessions.follow()
    covered = None
    if not sessions.interrupted and any(Path().glob(".coverage.*")):
        combine()
        covered = measure(core.split(","))
    line, code = verdict(
        sessions.halves,
        sessions.seconds,
        covered,
        floors=(overall_floor(), CORE_FLOOR),
        interrupted=sessions.interrupted,
    )
    sys.stdout.write(f"\n{line}\n")
    return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

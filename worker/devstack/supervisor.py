"""The supervisor: keeps processes running and stops them in order. It has no threads; its owner calls `poll`."""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self, TextIO

from worker.devstack.child import START_FAILURES_MAX, START_SECONDS, Child, ProcessSpec, ProcessState
from worker.devstack.errors import DevstackError
from worker.devstack.tether import Tether

POLL_SECONDS = 0.05
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
COLOURS = (36, 33, 32, 35, 34, 96, 93, 92, 95, 94)


@dataclass(frozen=True)
class ProcessStatus:
    """The state of one process.

    Attributes:
        restarts: how often it was started again.
        seconds: how long it has been in its present state.
        last_exit: exit code of its last end; if a signal ended it, the negative number of the signal.
    """

    name: str
    state: ProcessState
    pid: int | None
    restarts: int
    seconds: float
    last_exit: int | None


class Supervisor:
    """Runs processes: starts them in order, restarts those that end, and stops them in reverse order.

    Use it as a context manager; at the end of the block, everything is stopped:

        with Supervisor(specs, log_dir=home / "log") as supervisor, supervisor.signals():
            while supervisor.poll():
                draw(supervisor.status())
                time.sleep(0.2)

    If this process is killed, a shell at the other end of a pipe ends the processes (`Tether`).

    Args:
        specs: what to run, in order of start.
        log_dir: each process's output is appended to `<name>.log` in this directory.
        echo: a stream that also gets the lines of the logs, each with the process's name before it; None for no stream.
        on_event: called with one sentence for each start, end and kill.
        clock: returns seconds that only increase.
    """

    def __init__(
        self,
        specs: Sequence[ProcessSpec],
        *,
        log_dir: Path,
        echo: TextIO | None = None,
        on_event: Callable[[str], None] = lambda event: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        _check(specs)
        log_dir.mkdir(parents=True, exist_ok=True)
        self._log_dir = log_dir
        self._children = {spec.name: Child(spec, log_dir / f"{spec.name}.log") for spec in specs}
        self._prefixes = dict(_prefixes([spec.name for spec in specs], echo))
        self._echo = echo
        self._on_event = on_event
        self._clock = clock
        self._stopping = False
        self._hurrying = False
        self._failure: str | None = None
        self._tether: Tether | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def run(self) -> None:
        """Runs until SIGINT or SIGTERM, then stops everything. A second signal kills everything at once.

        Raises:
            DevstackError: see `poll`.
        """
        with self, self.signals():
            while self.poll():
                time.sleep(POLL_SECONDS)

    def poll(self) -> bool:
        """Does all work that is due now, without waiting: detects ends, starts, restarts, stops and shows logs.

        Returns:
            False after a stop was requested and all processes have ended.

        Raises:
            DevstackError: a process could not be started, or ended after each of its first starts. It is raised after
                all other processes were stopped; the text has the end of the process's log.
        """
        self._advance()
        if self._failure is not None and not self._alive():
            failure, self._failure = self._failure, None
            raise DevstackError(failure)
        return not self._stopping or self._alive()

    def request_stop(self) -> None:
        """Requests a stop, which the next polls carry out. A second request kills everything at once."""
        self._hurrying = self._stopping
        self._stopping = True

    def stop(self) -> None:
        """Stops everything and waits until all have ended. Ctrl-C during this time kills everything at once."""
        self._stopping = True
        while True:
            try:
                self._advance()
                if not self._alive():
                    break
                time.sleep(POLL_SECONDS)
            except KeyboardInterrupt:
                self._hurrying = True
        if self._tether is not None:
            self._tether.release()
            self._tether = None

    def status(self) -> list[ProcessStatus]:
        """The state of every process at the last poll, in order of start."""
        now = self._clock()
        return [
            ProcessStatus(
                name=name,
                state=child.state,
                pid=child.pid,
                restarts=max(0, child.restarts),
                seconds=now - child.since if child.restarts >= 0 else 0.0,
                last_exit=child.last_exit,
            )
            for name, child in self._children.items()
        ]

    @contextmanager
    def signals(self) -> Iterator[None]:
        """Within the block, SIGINT, SIGTERM and SIGHUP request a stop instead of ending this process."""

        def ask(number: int, frame: FrameType | None) -> None:
            self.request_stop()

        before = {number: signal.signal(number, ask) for number in STOP_SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _alive(self) -> bool:
        return any(child.pid is not None for child in self._children.values())

    def _advance(self) -> None:
        now = self._clock()
        for name, child in self._children.items():
            pid = child.pid
            if child.look(now) and pid is not None:
                self._note_end(name, child, pid)
        if self._stopping:
            self._go_on_stopping(now)
        else:
            self._start_due(now)
        self._show_logs()

    def _note_end(self, name: str, child: Child, group: int) -> None:
        if self._tether is not None:
            self._tether.let_go(group)
        if child.state is ProcessState.STOPPED:
            self._on_event(f"{name} stopped")
            return
        self._on_event(f"{name} ended ({_exit_words(child.last_exit)})")
        if child.policy.hopeless and not self._stopping:
            self._fail(
                f"{name} ended {START_FAILURES_MAX} times within {START_SECONDS:.0f} s of its start "
                f"({_exit_words(child.last_exit)}); everything was stopped. End of {child.log}:\n{child.last_lines()}"
            )

    def _fail(self, message: str) -> None:
        self._failure = self._failure or message
        self._stopping = True

    def _start_due(self, now: float) -> None:
        for name, child in self._children.items():
            waits = child.state in {ProcessState.WAITING, ProcessState.BACKOFF}
            if not waits or now < child.due_at or not self._all_running(child.spec.after):
                continue
            if self._tether is None:
                self._tether = Tether(self._log_dir / "supervisor.log")
            try:
                child.start(now)
            except DevstackError as error:
                self._fail(f"{error}; everything was stopped")
                return
            if child.pid is not None:
                self._tether.hold(child.pid)
            self._on_event(f"{name} started (process {child.pid})")

    def _all_running(self, names: Sequence[str]) -> bool:
        return all(self._children[name].state is ProcessState.RUNNING for name in names)

    def _go_on_stopping(self, now: float) -> None:
        for name, child in reversed(self._children.items()):
            if child.state is ProcessState.STOPPED:
                continue
            if self._hurrying or (child.state is ProcessState.STOPPING and now - child.since > child.spec.grace_s):
                if child.state is ProcessState.STOPPING:
                    self._on_event(f"{name} is killed")
                child.kill()
            if child.state is not ProcessState.STOPPING and self._dependents_stopped(name):
                child.ask_to_stop(now)

    def _dependents_stopped(self, name: str) -> bool:
        return all(child.state is ProcessState.STOPPED for child in self._children.values() if name in child.spec.after)

    def _show_logs(self) -> None:
        for name, child in self._children.items():
            if self._echo is not None:
                self._echo.writelines(f"{self._prefixes[name]}{line}\n" for line in child.new_lines())
            child.cap_log()
        if self._echo is not None:
            self._echo.flush()


def _check(specs: Sequence[ProcessSpec]) -> None:
    known: set[str] = set()
    for spec in specs:
        if spec.name in known:
            raise ValueError(f"two processes are named {spec.name}")
        if missing := set(spec.after) - known:
            raise ValueError(f"{spec.name} comes after {', '.join(sorted(missing))}, which must be listed before it")
        known.add(spec.name)


def _prefixes(names: Sequence[str], echo: TextIO | None) -> Iterator[tuple[str, str]]:
    width = max(map(len, names), default=0)
    coloured = echo is not None and echo.isatty() and "NO_COLOR" not in os.environ
    for name, colour in zip(names, itertools.cycle(COLOURS), strict=False):
        prefix = f"{name:<{width}} | "
        yield name, f"\x1b[{colour}m{prefix}\x1b[0m" if coloured else prefix


def _exit_words(code: int | None) -> str:
    if code is not None and code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"exit code {code}"

"""One supervised process: its start, its log, its end, and how soon it is started again."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from worker.devstack import processes
from worker.devstack.errors import DevstackError

BACKOFF_MAX_SECONDS = 30.0
HEALTHY_SECONDS = 60.0  # after so long its restarts start from the shortest wait again
START_SECONDS = 10.0  # ending sooner counts as a failure on start
START_FAILURES_MAX = 5
LOG_BYTES_MAX = 20_000_000


@dataclass(frozen=True)
class ProcessSpec:
    """A process to keep running.

    Attributes:
        name: short and unique; names its log file too.
        argv: program and arguments. They show in `ps`: no secrets.
        env: variables to add to our own environment, or to replace in it.
        stop_signal: what asks it to end.
        grace_s: seconds from then until its whole process group is killed.
        after: names of processes that must be ready before it starts, and that are stopped after it.
        ready: whether it does its work yet, asked at each poll; without one it is ready once started.
        cwd: working directory; ours by default.
    """

    name: str
    argv: Sequence[str]
    env: Mapping[str, str] | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    grace_s: float = 10.0
    after: Sequence[str] = ()
    ready: Callable[[], bool] | None = None
    cwd: Path | None = None


class ProcessState(StrEnum):
    """Where a supervised process stands."""

    WAITING = "waiting"  # for those it comes after
    STARTING = "starting"  # not ready yet
    RUNNING = "running"
    BACKOFF = "backoff"  # it ended and will be started again
    STOPPING = "stopping"
    STOPPED = "stopped"


@dataclass
class RestartPolicy:
    """When to start a process again, and when to give up on one that never came up.

    Attributes:
        failures: ends in a row without `HEALTHY_SECONDS` between them.
        proven: it has been ready, or lived for `START_SECONDS`, at least once.
    """

    failures: int = 0
    proven: bool = False

    def ended(self, lived: float, *, was_ready: bool) -> float:
        """Note an end after `lived` seconds.

        Returns:
            Seconds to wait before the next start: 1, 2, 4 … 30.
        """
        self.proven = self.proven or was_ready or lived >= START_SECONDS
        self.failures = 1 if lived >= HEALTHY_SECONDS else self.failures + 1
        return min(BACKOFF_MAX_SECONDS, 2.0 ** (self.failures - 1))

    @property
    def hopeless(self) -> bool:
        """It failed on start too often and never came up."""
        return not self.proven and self.failures >= START_FAILURES_MAX


class Child:
    """A process of a supervisor, in a session and process group of its own.

    Args:
        spec: what to run.
        log: file that its output is appended to. The child writes it itself, so it neither waits for us
            nor breaks when we are gone.
    """

    def __init__(self, spec: ProcessSpec, log: Path) -> None:
        self.spec = spec
        self.log = log
        self.policy = RestartPolicy()
        self.state = ProcessState.WAITING
        self.since = 0.0
        self.due_at = 0.0
        self.restarts = -1
        self.last_exit: int | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._read_to = log.stat().st_size if log.exists() else 0
        self._unfinished = b""

    @property
    def pid(self) -> int | None:
        """The process's id, which is its group's too; None when it is down."""
        return None if self._process is None else self._process.pid

    def start(self, now: float) -> None:
        """Start it.

        Raises:
            DevstackError: the program cannot be run at all.
        """
        fd = os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            self._process = subprocess.Popen(
                list(self.spec.argv),
                cwd=self.spec.cwd,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **(self.spec.env or {})},
                stdin=subprocess.DEVNULL,
                stdout=fd,
                stderr=fd,
                start_new_session=True,  # Ctrl-C in the terminal is for the supervisor alone
            )
        except OSError as error:
            raise DevstackError(f"{self.spec.name}: cannot run {self.spec.argv[0]}: {error.strerror}") from error
        finally:
            os.close(fd)
        self.restarts += 1
        self.since = now
        self.state = ProcessState.STARTING

    def look(self, now: float) -> bool:
        """Notice that it has ended or become ready.

        Returns:
            Whether it has just ended. What it left behind in its group is dead then too.
        """
        if self._process is None:
            return False
        code = self._process.poll()
        if code is None:
            if self.state is ProcessState.STARTING and (self.spec.ready is None or self.spec.ready()):
                self.state = ProcessState.RUNNING
            return False
        self._signal_group(signal.SIGKILL)  # pool children outlive a killed worker
        was_ready = self.spec.ready is not None and self.state is ProcessState.RUNNING
        wait = self.policy.ended(now - self.since, was_ready=was_ready)
        stopping = self.state is ProcessState.STOPPING
        self.state = ProcessState.STOPPED if stopping else ProcessState.BACKOFF
        self.last_exit, self.since, self.due_at = code, now, now + wait
        self._process = None
        return True

    def ask_to_stop(self, now: float) -> None:
        """Send the stop signal, to the process alone: it knows how to end its children."""
        if self._process is None:
            self.state = ProcessState.STOPPED
            return
        self.state, self.since = ProcessState.STOPPING, now
        self._process.send_signal(self.spec.stop_signal)

    def kill(self) -> None:
        """Kill the whole group; `look` notices the end."""
        if self._process is not None:
            self._signal_group(signal.SIGKILL)

    def new_lines(self) -> list[str]:
        """Whole lines that it has logged since the last call."""
        try:
            with self.log.open("rb") as file:
                file.seek(self._read_to)
                text = self._unfinished + file.read()
                self._read_to = file.tell()
        except FileNotFoundError:
            return []
        *lines, self._unfinished = text.split(b"\n")
        return [line.decode(errors="replace") for line in lines]

    def last_lines(self) -> str:
        """The end of its log, for an error message."""
        return processes.last_lines(self.log)

    def cap_log(self) -> None:
        """Keep the log from growing for ever: past its limit it becomes `<name>.log.1` and starts anew."""
        if self.log.exists() and self.log.stat().st_size > LOG_BYTES_MAX:
            # The child holds the file open, so it is copied and emptied rather than renamed.
            shutil.copyfile(self.log, self.log.with_suffix(".log.1"))
            os.truncate(self.log, 0)
            self._read_to = 0

    def _signal_group(self, number: signal.Signals) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError, PermissionError):  # macOS answers EPERM for a group of zombies
                os.killpg(self._process.pid, number)

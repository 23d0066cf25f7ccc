"""One supervised process: its start, its log, its end, and the wait before it is started again."""

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
HEALTHY_SECONDS = 60.0  # after running this long, the next restart has the shortest wait again
START_SECONDS = 10.0  # a process that ends earlier counts as failed on start
START_FAILURES_MAX = 5
LOG_BYTES_MAX = 20_000_000


@dataclass(frozen=True)
class ProcessSpec:
    """A process to keep running.

    Attributes:
        name: short and unique; also the name of its log file.
        argv: program and arguments. `ps` shows them, so they must not contain secrets.
        env: variables to add to our own environment, or to replace in it.
        stop_signal: the signal that asks it to end.
        grace_s: seconds between the stop signal and killing its whole process group.
        after: names of processes that must be ready before it starts, and that are stopped after it.
        ready: returns whether the process is ready; called at each poll. Without it, the process is ready once started.
        cwd: working directory; by default our own.
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
    """The state of a supervised process."""

    WAITING = "waiting"  # for the processes in `after`
    STARTING = "starting"  # not ready yet
    RUNNING = "running"
    BACKOFF = "backoff"  # it ended and will be started again
    STOPPING = "stopping"
    STOPPED = "stopped"


@dataclass
class RestartPolicy:
    """Decides when to start a process again, and when to give up on one that has never become ready.

    Attributes:
        failures: how often in a row the process ended before it had run for `HEALTHY_SECONDS`.
        proven: the process was ready, or ran for `START_SECONDS`, at least once.
    """

    failures: int = 0
    proven: bool = False

    def ended(self, lived: float, *, was_ready: bool) -> float:
        """Records that the process ended after `lived` seconds.

        Returns:
            Seconds to wait before the next start: 1, 2, 4 … 30.
        """
        self.proven = self.proven or was_ready or lived >= START_SECONDS
        self.failures = 1 if lived >= HEALTHY_SECONDS else self.failures + 1
        return min(BACKOFF_MAX_SECONDS, 2.0 ** (self.failures - 1))

    @property
    def hopeless(self) -> bool:
        """Whether it failed on start too often and was never ready."""
        return not self.proven and self.failures >= START_FAILURES_MAX


class Child:
    """A process of a supervisor, in its own session and process group.

    Args:
        spec: what to run.
        log: the file to which its output is appended. The child itself writes to the file, so it never waits for the
            supervisor and can continue when the supervisor has ended.
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
        """The process's id, which is also the id of its process group; None if it is not running."""
        return None if self._process is None else self._process.pid

    def start(self, now: float) -> None:
        """Starts it.

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
                start_new_session=True,  # so that Ctrl-C in the terminal reaches only the supervisor
            )
        except OSError as error:
            raise DevstackError(f"{self.spec.name}: cannot run {self.spec.argv[0]}: {error.strerror}") from error
        finally:
            os.close(fd)
        self.restarts += 1
        self.since = now
        self.state = ProcessState.STARTING

    def look(self, now: float) -> bool:
        """Checks whether it has ended or become ready.

        Returns:
            Whether it has just ended. Then the other processes of its group were killed, too.
        """
        if self._process is None:
            return False
        code = self._process.poll()
        if code is None:
            if self.state is ProcessState.STARTING and (self.spec.ready is None or self.spec.ready()):
                self.state = ProcessState.RUNNING
            return False
        self._signal_group(signal.SIGKILL)  # the pool processes of a killed worker keep running
        was_ready = self.spec.ready is not None and self.state is ProcessState.RUNNING
        wait = self.policy.ended(now - self.since, was_ready=was_ready)
        stopping = self.state is ProcessState.STOPPING
        self.state = ProcessState.STOPPED if stopping else ProcessState.BACKOFF
        self.last_exit, self.since, self.due_at = code, now, now + wait
        self._process = None
        return True

    def ask_to_stop(self, now: float) -> None:
        """Sends the stop signal only to the process itself; the process ends its own children."""
        if self._process is None:
            self.state = ProcessState.STOPPED
            return
        self.state, self.since = ProcessState.STOPPING, now
        self._process.send_signal(self.spec.stop_signal)

    def kill(self) -> None:
        """Kills the whole process group; the next `look` records the end."""
        if self._process is not None:
            self._signal_group(signal.SIGKILL)

    def new_lines(self) -> list[str]:
        """The complete lines that it has logged since the last call."""
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
        """The last lines of its log, for an error message."""
        return processes.last_lines(self.log)

    def cap_log(self) -> None:
        """Limits the size of the log: a log that is too large is moved to `<name>.log.1`, and a new one begins."""
        if self.log.exists() and self.log.stat().st_size > LOG_BYTES_MAX:
            # The child has the file open, so the file is copied and emptied, not renamed.
            shutil.copyfile(self.log, self.log.with_suffix(".log.1"))
            os.truncate(self.log, 0)
            self._read_to = 0

    def _signal_group(self, number: signal.Signals) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError, PermissionError):  # macOS returns EPERM for a group of zombies
                os.killpg(self._process.pid, number)

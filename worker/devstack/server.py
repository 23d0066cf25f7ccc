"""What the private Postgres and Redis have in common: a log, a port that lasts, a start that is waited for."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from worker.devstack import processes
from worker.devstack.account import Account
from worker.devstack.errors import DevstackError
from worker.devstack.state import ServerState

READY_SECONDS = 120.0  # recovery after a crash, or loading a large append-only file, may take a while


class Server:
    """A private server of one home, listening on 127.0.0.1 only.

    Attributes:
        name: what messages call it.
        usual, durable, not_durable: its settings by name: always, and by whether data must last.
        stop_steps: signals that end it, each with the seconds that it is given.

    Args:
        home: the devstack's directory.
        state: what is remembered; changed in place.
        save: writes the state.
        durable: False gives up the data's safety for speed; for tests. What that means is in `not_durable`.
        settings: further server settings, by name.
        say: told what was found and repaired.
    """

    name: ClassVar[str]
    usual: ClassVar[Mapping[str, str]]
    durable: ClassVar[Mapping[str, str]]
    not_durable: ClassVar[Mapping[str, str]]
    stop_steps: ClassVar[Sequence[tuple[signal.Signals, float]]]

    def __init__(
        self,
        home: Path,
        state: ServerState,
        save: Callable[[], None],
        *,
        durable: bool,
        settings: Mapping[str, str],
        say: Callable[[str], None],
    ) -> None:
        self._home = home
        self._state = state
        self._save = save
        self._settings = {**self.usual, **(self.durable if durable else self.not_durable), **settings}
        self._say = say
        self._log = home / "log" / f"{self.name.lower()}.log"

    def _stop(self) -> signal.Signals | None:
        """Stops the server if it runs; the signal that ended it, if one had to be sent."""
        ended_by = None
        if self._state.running:
            ended_by = processes.stop(self._state.pid, self._state.identity, self.stop_steps)
        self._state.stopped()
        self._save()
        return ended_by

    def _stop_unrecorded(self, pid: int, data: Path) -> bool:
        """Stops a server of this home that we have no record of: two must not write the same files."""
        found = processes.identity(pid)
        if found is None or not processes.works_in(pid, data):
            return False
        self._say(f"a {self.name} of this home ran without our knowledge (process {pid}); it is started anew")
        processes.stop(pid, found, self.stop_steps)
        return True

    def _port(self) -> int:
        """The port of last time, if nobody else has it now."""
        before = self._state.port
        return before if before and processes.port_is_free(before) else processes.free_port()

    def _say_port(self, before: int) -> None:
        if before and self._state.port != before:
            self._say(f"port {before}, which {self.name} had last time, is taken; it now listens on {self._state.port}")

    def _ended_at_start(self, data: Path) -> DevstackError:
        return DevstackError(
            f"{self.name} ended at its start; its data in {data} was kept. End of {self._log}:\n"
            + processes.last_lines(self._log)
        )

    def _run(
        self, argv: list[str], account: Account, port: int, deadline: float, is_ready: Callable[[int, int], bool]
    ) -> str | None:
        """Starts on a port and waits until it takes connections.

        Args:
            argv: the command.
            account: who runs it.
            port: what the command makes it listen on.
            deadline: by `time.monotonic`.
            is_ready: asked with the process's number and the size that the log had before.

        Returns:
            None when it is ready; what it logged when it ended instead.

        Raises:
            DevstackError: it was not ready in time, and was stopped.
        """
        log_end = self._log.stat().st_size if self._log.exists() else 0
        pid = processes.start_detached(argv, account, self._log)
        self._state.started(pid)
        self._state.port = port
        self._save()
        while self._state.running:
            if is_ready(pid, log_end):
                return None
            if time.monotonic() > deadline:
                self._stop()
                raise DevstackError(
                    f"{self.name} was not ready in {READY_SECONDS:.0f} s and was stopped; see {self._log}"
                )
            time.sleep(processes.POLL_SECONDS)
        self._state.stopped()
        self._save()
        return processes.text_since(self._log, log_end)

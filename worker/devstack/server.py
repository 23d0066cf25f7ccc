"""The base class of the private Postgres and Redis: a log, a port that stays the same, and a start that waits."""

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

READY_SECONDS = 120.0  # recovery after a crash, or loading a large append-only file, may take long


class Server:
    """A private server of one home. It listens only on 127.0.0.1.

    Attributes:
        name: its name in messages.
        usual, durable, not_durable: its settings by name: `usual` always, and one of the other two.
        stop_steps: signals that end it, each with the seconds to wait before the next.

    Args:
        home: the devstack's directory.
        state: the state that is kept between commands; changed in place.
        save: writes the state.
        durable: False makes the server faster but may lose data, for tests. `not_durable` has the settings for this.
        settings: further server settings, by name.
        say: called with each sentence about what was found and repaired.
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
        """Stops the server if it is running. Returns the signal that ended it, if one had to be sent."""
        ended_by = None
        if self._state.running:
            ended_by = processes.stop(self._state.pid, self._state.identity, self.stop_steps)
        self._state.stopped()
        self._save()
        return ended_by

    def _stop_unrecorded(self, pid: int, data: Path) -> bool:
        """Stops a server of this home that is not in our state file: two servers must not write the same files."""
        found = processes.identity(pid)
        if found is None or not processes.works_in(pid, data):
            return False
        self._say(f"a {self.name} of this home ran without our knowledge (process {pid}); it is started anew")
        processes.stop(pid, found, self.stop_steps)
        return True

    def _port(self) -> int:
        """The port of the last start if it is free, else another free port."""
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
        """Starts the server on a port and waits until it accepts connections.

        Args:
            argv: the command.
            account: the user that runs it.
            port: the port on which the command listens.
            deadline: when to give up, by `time.monotonic`.
            is_ready: returns whether the server is ready; gets its pid and the size of the log before the start.

        Returns:
            None if it is ready; if it ended instead, the text that it logged.

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

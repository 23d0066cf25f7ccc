"""Files by whose age a probe sees that a process works, and that it reaches the broker.

The main loop of the process writes them, and no thread does: a thread would go on while the loop hangs.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

EVERY_S = 5.0
"""How often a file is touched at most."""


class SignOfLife:
    """The file `alive`, and beside it the file `alive.connected`. Nothing is written before `begin`."""

    def __init__(self) -> None:
        self._alive: Path | None = None
        self._connected: Path | None = None
        self._owner = 0
        self._touched: dict[Path, float] = {}

    def begin(self, alive: Path | None) -> None:
        """From now on this process, and no process that it forks, shows life.

        Args:
            alive: the path that the setting `ALIVE_FILE` names; without it, nothing is written.
        """
        self._alive = alive
        self._connected = alive.with_name(f"{alive.name}.connected") if alive else None
        self._owner = os.getpid()
        self.works()

    def works(self) -> None:
        """The loop has come round once more."""
        self._touch(self._alive)

    def is_connected(self) -> None:
        """The loop has come round, and the broker is connected."""
        self._touch(self._alive)
        self._touch(self._connected)

    def _touch(self, file: Path | None) -> None:
        now = time.monotonic()
        if file is None or now - self._touched.get(file, -EVERY_S) < EVERY_S or os.getpid() != self._owner:
            return
        with suppress(OSError):  # a full disk must not stop the loop; the probe will see it
            file.touch()
        self._touched[file] = now


LIFE = SignOfLife()
"""The sign of life of this process."""

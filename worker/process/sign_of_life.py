"""Files by whose age a probe sees that a process works, and that it reaches the broker.

The loop of the process writes them, and no thread does: a thread would go on while the loop hangs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

EVERY_S = 5.0
"""How often a file is touched at most."""


class SignOfLife:
    """The file `alive`, and beside it the file `alive.connected`.

    Args:
        alive: the path that the setting `ALIVE_FILE` names; without it, nothing is written.
    """

    def __init__(self, alive: Path | None) -> None:
        self._alive = alive
        self._connected = alive.with_name(f"{alive.name}.connected") if alive else None
        self._touched: dict[Path, float] = {}

    def works(self) -> None:
        """The loop has come round once more."""
        self._touch(self._alive)

    def is_connected(self) -> None:
        """The loop has come round, and the broker is connected."""
        self._touch(self._alive)
        self._touch(self._connected)

    def _touch(self, file: Path | None) -> None:
        now = time.monotonic()
        if file is None or now - self._touched.get(file, -EVERY_S) < EVERY_S:
            return
        with suppress(OSError):  # a full disk must not stop the loop; the probe will see it
            file.touch()
        self._touched[file] = now


def show_life_between_attempts(connection: Any, life: SignOfLife) -> None:
    """Makes a kombu connection show life in each second in which it waits for the broker."""
    ensure = connection.ensure_connection

    def ensure_connection(*args: Any, callback: Callable[[], None] | None = None, **kwargs: Any) -> Any:
        def between_attempts() -> None:
            life.works()
            if callback is not None:
                callback()

        return ensure(*args, callback=between_attempts, **kwargs)

    connection.ensure_connection = ensure_connection

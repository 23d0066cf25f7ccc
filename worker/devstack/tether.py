"""Something to do when this process dies, however it dies: a shell waits at the other end of a pipe."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

# The pipe ends without a word when its writer was killed; a word means that all was put in order.
_SCRIPT = 'read -r word || exec "$@"'


class Tether:
    """Runs a command if this process ends before `release`.

    Args:
        argv: the command; it must be harmless when there is nothing left to do.
        log: its output is appended here.
    """

    def __init__(self, argv: Sequence[str], log: Path) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            self._shell = subprocess.Popen(
                ["/bin/sh", "-c", _SCRIPT, "sh", *argv],
                # Not installed, `python -m worker.devstack` is found from the directory that holds `worker`.
                cwd=Path(__file__).parents[2],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C in the terminal is not for it
            )
        self._owner = os.getpid()

    def release(self) -> None:
        """Call it off: everything was put in order."""
        if os.getpid() != self._owner:  # a forked child must not speak for its parent
            return
        self._shell.communicate(b"done\n")

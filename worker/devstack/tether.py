"""Runs a command when this process ends in any way, also by SIGKILL: a shell waits at the other end of a pipe.

If this process is killed, the pipe closes without a last line, and the shell runs the command. If this process ends
normally, it first writes the line `.`, and the shell does nothing. No thread, signal or kernel feature is needed.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

# Lines: `+ G`: end process group G; `- G`: do not end it any more; `.`: there is nothing to do.
_SCRIPT = r"""
groups=
while read -r word group; do
  case $word in
    +) groups="$groups $group" ;;
    -) kept=
       for one in $groups; do [ "$one" = "$group" ] || kept="$kept $one"; done
       groups=$kept ;;
    .) exit 0 ;;
  esac
done
signal_all() { for one in $groups; do kill -s "$1" -- "-$one" 2>/dev/null && some=1; done; }
some=; signal_all TERM
left=$TETHER_GRACE
while [ -n "$some" ] && [ "$left" -gt 0 ]; do
  sleep 1; left=$((left - 1)); some=; signal_all 0
done
signal_all KILL
[ $# -eq 0 ] || exec "$@"
"""


class Tether:
    """Ends process groups, then runs a command, if this process ends before `release`.

    Args:
        argv: the command, or nothing; it must do no harm if there is nothing left to do.
        log: the file to which its output is appended.
        grace_s: whole seconds between SIGTERM and SIGKILL for the process groups.
    """

    def __init__(self, log: Path, *, argv: Sequence[str] = (), grace_s: int = 10) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            self._shell = subprocess.Popen(
                ["/bin/sh", "-c", _SCRIPT, "sh", *argv],
                # If the package is not installed, `python -m worker.devstack` works only from the parent of `worker`.
                cwd=Path(__file__).parents[2],
                env=dict(os.environ, TETHER_GRACE=str(grace_s)),
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                start_new_session=True,  # so that Ctrl-C in the terminal does not reach it
            )
        self._owner = os.getpid()

    def hold(self, group: int) -> None:
        """Adds a process group that must end when this process ends."""
        self._say(f"+ {group}")

    def let_go(self, group: int) -> None:
        """Removes a process group: it has ended, and another group may get its number."""
        self._say(f"- {group}")

    def release(self) -> None:
        """Ends the shell without running the command: this process has ended everything itself."""
        if os.getpid() != self._owner:  # a forked child must not release its parent's tether
            return
        self._say(".")
        self._shell.communicate()

    def _say(self, word: str) -> None:
        pipe = self._shell.stdin
        if pipe is not None and not pipe.closed:
            with suppress(OSError):  # the shell was already ended: there is nothing to release
                pipe.write(f"{word}\n".encode())
                pipe.flush()

"""Something to do when this process dies, however it dies: a shell waits at the other end of a pipe.

The pipe ends without a word when its writer was killed; a last word means that all was put in order. No thread, no
signal and no kernel feature is needed, and it holds for SIGKILL too.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

# Words: `+ G` a process group to end, `- G` not any more, `.` all is in order.
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
        argv: the command, or nothing; it must be harmless when there is nothing left to do.
        log: its output is appended here.
        grace_s: whole seconds between SIGTERM and SIGKILL for the groups.
    """

    def __init__(self, log: Path, *, argv: Sequence[str] = (), grace_s: int = 10) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            self._shell = subprocess.Popen(
                ["/bin/sh", "-c", _SCRIPT, "sh", *argv],
                # Not installed, `python -m worker.devstack` is found from the directory that holds `worker`.
                cwd=Path(__file__).parents[2],
                env=dict(os.environ, TETHER_GRACE=str(grace_s)),
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C in the terminal is not for it
            )
        self._owner = os.getpid()

    def hold(self, group: int) -> None:
        """Add a process group to those that must not outlive us."""
        self._say(f"+ {group}")

    def let_go(self, group: int) -> None:
        """Take a process group off: it has ended, and its number may be given to another."""
        self._say(f"- {group}")

    def release(self) -> None:
        """Call everything off: all was put in order."""
        if os.getpid() != self._owner:  # a forked child must not speak for its parent
            return
        self._say(".")
        self._shell.communicate()

    def _say(self, word: str) -> None:
        pipe = self._shell.stdin
        if pipe is not None and not pipe.closed:
            with suppress(OSError):  # somebody ended the shell: nothing is tied any more, and nothing else changes
                pipe.write(f"{word}\n".encode())
                pipe.flush()

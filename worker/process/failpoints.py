"""Failpoints: places where a worker stops on purpose in crash tests. The settings refuse them in production.

With `FAILPOINTS="after_answer=kill,before_commit=stop"`, the process ends as with `kill -9` (`kill`) or is suspended
(`stop`) whenever it reaches that place. `hang` blocks only the thread that reaches it, without end.
"""

from __future__ import annotations

import signal
import threading
from typing import Literal

Place = Literal[
    "before_send", "after_answer", "before_commit", "after_commit", "hook_claimed", "hook_sent", "hook_recorded"
]

_SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}


def reach(failpoints: str, place: Place) -> None:
    """Carries out the action that `failpoints` has for this place; without one, does nothing."""
    if not failpoints:
        return
    for entry in failpoints.split(","):
        name, _, action = entry.strip().partition("=")
        if name != place:
            continue
        if action == "hang":
            threading.Event().wait()
        else:
            # The signal is sent to this thread, so that it stops here; a signal to the process may reach another first.
            signal.pthread_kill(threading.get_ident(), _SIGNALS[action])

"""Places where a worker stops on purpose, for crash tests alone; the settings refuse them in production.

`FAILPOINTS="after_answer=kill,before_commit=stop"`: the process ends as with `kill -9`, or is suspended, whenever it
gets there. `hang` lets only that thread hang for ever.
"""

from __future__ import annotations

import signal
import threading
from typing import Literal

Place = Literal["before_send", "after_answer", "before_commit", "after_commit"]

_SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}


def reach(failpoints: str, place: Place) -> None:
    """Does nothing unless `failpoints` names this place."""
    if not failpoints:
        return
    for entry in failpoints.split(","):
        name, _, action = entry.strip().partition("=")
        if name != place:
            continue
        if action == "hang":
            threading.Event().wait()
        else:
            # To this very thread, which then goes no further: a signal to the process may find another one first.
            signal.pthread_kill(threading.get_ident(), _SIGNALS[action])

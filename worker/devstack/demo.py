"""The lock of a home: shows whether `dashtam run` was ever started in it and whether it is running now."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from worker.errors import Refused

_LOCK_FILE = "run.lock"


@contextmanager
def only_one(home: Path) -> Iterator[None]:
    """Locks the home, so that only one `dashtam run` uses it at a time.

    Raises:
        Refused: another `dashtam run` is using it.
    """
    home.mkdir(parents=True, exist_ok=True)
    with (home / _LOCK_FILE).open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise Refused(
                f"`dashtam run` is already up in {home} (process {lock.read().strip()}); it was left alone. "
                "Stop it with Ctrl-C, or set DASHTAM_HOME to another directory"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def was_demo(home: Path) -> bool:
    """Whether `dashtam run` was ever started in this home."""
    return (home / _LOCK_FILE).exists()


def is_demo_running(home: Path) -> bool:
    """Whether a `dashtam run` is using this home now."""
    try:
        with (home / _LOCK_FILE).open("r") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False

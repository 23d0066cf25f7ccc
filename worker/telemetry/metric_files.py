"""The files in which processes count for the exporter: one a process; what ended ones counted is kept as sums."""

from __future__ import annotations

import fcntl
import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import structlog
from prometheus_client import mmap_dict, values

from worker.telemetry import metrics

log = structlog.get_logger()

# The library has no type information here.
_File: Any = mmap_dict.MmapedDict
_value_class: Any = values.MultiProcessValue

# After the name of a process: the file that it holds a lock on as long as it lives.
_ALIVE = ".alive"
# In place of a process's name: the sums of all that have ended.
_ENDED = "ended"


def directory(home: Path) -> Path:
    """Where processes count; private, as everything under the home."""
    path = home / "metrics"
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


class _Identity:
    """Names the processes that count, and shows that they live: each holds a lock on a file of its name.

    The system ends the lock with the process, also where the process ran in a container that is gone. A process number
    says nothing about another container.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pid = 0
        self._held = False
        self.name = ""

    def __call__(self) -> str:
        """This process's own name, another after a fork; the library asks at each count."""
        if self._pid != os.getpid():
            self._pid, self._held = os.getpid(), False
            # Without an underscore, where the library ends the kind of a file. Never one of an earlier process.
            host = socket.gethostname().replace("_", "-").replace("/", "-")
            # The number stands last: workers of 0.1 that share the home read it there.
            self.name = f"{host}-{secrets.token_hex(4)}-{self._pid}"
        if not self._held:
            with suppress(OSError):  # a full disk; the next count tries again
                self._hold()
        return self.name

    def _hold(self) -> None:
        with held(self._path):
            # It stays open. A lock of this kind is not inherited by a fork.
            descriptor = os.open(self._path / f"{self.name}{_ALIVE}", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._held = True


_identity: _Identity | None = None


def share_with_exporter(home: Path) -> None:
    """From now on this process and those that it forks count in files; call it before anything was counted."""
    global _identity
    path = directory(home).resolve()
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(path)
    _identity = _Identity(path)
    # The library settles this when it is imported, and Flower's command imports it before our settings are read.
    values.ValueClass = _value_class(_identity)
    metrics.reset()


@contextmanager
def held(path: Path, *, alone: bool = False) -> Iterator[None]:
    """Keeps `fold_dead` away from the files while they are read."""
    with (path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        yield


def fold_dead(path: Path) -> int:
    """Adds the files of ended processes to one file a kind, so that their number stays bounded.

    Processes of other hosts and containers are among them, if they share the directory.

    Returns:
        How many files there were.
    """
    try:
        return _fold(path)
    except OSError as error:
        log.warning("counts_not_folded", error=type(error).__name__, next="the next process tries again")
        return 0


def _fold(path: Path) -> int:
    folded = 0
    with held(path, alone=True):
        marks = {mark.stem: mark for mark in path.glob(f"*{_ALIVE}")}
        living = {name for name, mark in marks.items() if _is_held(name, mark)}
        for file in sorted(path.glob("*.db")):
            kind, _, name = file.stem.rpartition("_")
            if name == _ENDED or name in living:
                continue
            total = _File(str(path / f"{kind}_{_ENDED}.db"))
            for key, value, _, _ in _File.read_all_values_from_file(str(file)):
                total.write_value(key, total.read_value(key)[0] + value, 0.0)
            total.close()
            file.unlink()
            folded += 1
        for name in marks.keys() - living:
            marks[name].unlink()
    return folded


def _is_held(name: str, mark: Path) -> bool:
    if _identity is not None and name == _identity.name:
        return True  # to open and close it would end this process's own lock
    descriptor = os.open(mark, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # either, by the system
        return True
    else:
        return False
    finally:
        os.close(descriptor)

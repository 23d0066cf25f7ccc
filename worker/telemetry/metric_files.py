"""The files in which processes count for the exporter: files of each process, and sums for the processes that ended."""

from __future__ import annotations

import fcntl
import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from prometheus_client import mmap_dict, values

from worker.process.logger import Logger
from worker.telemetry import metrics

log = Logger(__name__)

# prometheus_client has no type information for this.
_File: Any = mmap_dict.MmapedDict
_value_class: Any = values.MultiProcessValue

# The suffix of the file that a process keeps locked as long as it lives; the process's name comes before it.
_ALIVE = ".alive"
# Used instead of a process's name for the sums of all processes that have ended.
_ENDED = "ended"


def directory(home: Path) -> Path:
    """The directory in which processes count. It is created if it is missing, readable only by its owner."""
    path = home / "metrics"
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


class _Identity:
    """The name of this process among those that count. While it lives, it holds a lock on a file with this name.

    The operating system releases the lock when the process ends, also if its container is gone. A process id would not
    do, because a process in another container may have the same one.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pid = 0
        self._held = False
        self.name = ""

    def __call__(self) -> str:
        """This process's name; a forked process gets a new one. prometheus_client calls this for each count."""
        if self._pid != os.getpid():
            self._pid, self._held = os.getpid(), False
            # The name has no underscore, because the library writes one between a file's kind and the name. The random
            # part keeps it different from the names of earlier processes.
            host = socket.gethostname().replace("_", "-").replace("/", "-")
            # The process id comes last, because workers of version 0.1 that share the home read it there.
            self.name = f"{host}-{secrets.token_hex(4)}-{self._pid}"
        if not self._held:
            with suppress(OSError):  # for example, the disk is full; the next count tries again
                self._hold()
        return self.name

    def _hold(self) -> None:
        with held(self._path):
            # The file stays open. A forked process does not inherit a lock of this kind.
            descriptor = os.open(self._path / f"{self.name}{_ALIVE}", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._held = True


_identity: _Identity | None = None


def share_with_exporter(home: Path) -> None:
    """Makes this process and those that it forks count in files. Must be called before anything is counted."""
    global _identity
    path = directory(home).resolve()
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(path)
    _identity = _Identity(path)
    # The library decides this when it is imported, and Flower's command imports it before our settings are read.
    values.ValueClass = _value_class(_identity)
    metrics.reset()


@contextmanager
def held(path: Path, *, alone: bool = False) -> Iterator[None]:
    """Holds the lock of the files, so that `fold_dead` does not change them while they are read."""
    with (path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        yield


def fold_dead(path: Path) -> int:
    """Adds the files of ended processes to one file for each kind, so that the number of files stays limited.

    This includes processes of other hosts and containers, if they share the directory.

    Returns:
        How many files were added and removed.
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
        return True  # opening and closing the file would release this process's own lock
    descriptor = os.open(mark, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # the operating system decides which of the two
        return True
    else:
        return False
    finally:
        os.close(descriptor)

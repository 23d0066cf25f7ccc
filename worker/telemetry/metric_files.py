"""Where processes count for the exporter: a file each (prometheus-client's multiprocess mode), folded when they end."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import structlog
from prometheus_client import mmap_dict, values

from worker.telemetry import metrics

log = structlog.get_logger()

# The library has no type information here.
_File: Any = mmap_dict.MmapedDict
_value_class: Any = values.MultiProcessValue


def directory(home: Path) -> Path:
    """Where processes count; private, as everything under the home."""
    path = home / "metrics"
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def share_with_exporter(home: Path) -> None:
    """From now on this process and those that it forks count in files; call it before anything was counted."""
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(directory(home).resolve())
    # The library settles this when it is imported, and Flower's command imports it before our settings are read.
    values.ValueClass = _value_class(_identity)
    metrics.reset()


def _identity() -> str:
    """Names a process among several hosts or containers that share the directory; no underscore, as files end in it."""
    return f"{_host()}-{os.getpid()}"


def _host() -> str:
    return socket.gethostname().replace("_", "-").replace("/", "-")


@contextmanager
def held(path: Path, *, alone: bool = False) -> Iterator[None]:
    """Keeps `fold_dead` away from the files while they are read."""
    with (path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        yield


def fold_dead(path: Path) -> int:
    """Adds the files of this host's ended processes to one file, so that their number stays bounded.

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
        for file in sorted(path.glob(f"*_{_host()}-*.db")):
            kind, _, identity = file.stem.rpartition("_")
            pid = int(identity.rpartition("-")[2])
            if pid == 0 or _lives(pid):
                continue
            total = _File(str(path / f"{kind}_{_host()}-0.db"))
            for key, value, _, _ in _File.read_all_values_from_file(str(file)):
                total.write_value(key, total.read_value(key)[0] + value, 0.0)
            total.close()
            file.unlink()
            folded += 1
    return folded


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's, and alive
        return True
    return True

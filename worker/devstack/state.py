"""The state that the devstack keeps between commands, in `<home>/devstack.json`. Only the owner can read this file."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from worker.devstack import processes
from worker.devstack.errors import DevstackError

STATE_FILE = "devstack.json"
LOCK_FILE = "devstack.lock"
LOCK_SECONDS = 120.0


@dataclass
class ServerState:
    """The data of one server's last start. The port and the password are kept when the server ends.

    Attributes:
        identity: see `processes.identity`; empty if it is down.
        data: data directory; empty before the first start.
    """

    pid: int = 0
    identity: str = ""
    port: int = 0
    password: str = field(default="", repr=False)
    data: str = ""
    version: str = ""

    @property
    def running(self) -> bool:
        """Whether the process that was started is still alive."""
        return bool(self.identity) and processes.identity(self.pid) == self.identity

    def started(self, pid: int) -> None:
        """Records a process that has just started."""
        self.pid, self.identity = pid, processes.identity(pid) or ""

    def stopped(self) -> None:
        """Records that it is down."""
        self.pid, self.identity = 0, ""


@dataclass
class State:
    """The state of both servers, and whether their data is kept through a crash of the machine."""

    durable: bool = True
    postgres: ServerState = field(default_factory=ServerState)
    redis: ServerState = field(default_factory=ServerState)

    @property
    def running(self) -> bool:
        """Whether any server is up."""
        return self.postgres.running or self.redis.running


def load(home: Path, say: Callable[[str], None]) -> State:
    """Reads the state. Returns a new one if there is none or it cannot be read; an unreadable file is kept, renamed."""
    path = home / STATE_FILE
    try:
        return _parse(json.loads(path.read_text()))
    except FileNotFoundError:
        return State()
    except PermissionError as error:
        raise DevstackError(
            f"{path} belongs to another user. Run as that user, or set DASHTAM_HOME to another directory."
        ) from error
    except (ValueError, TypeError, KeyError, AttributeError):
        broken = path.with_suffix(".json.broken")
        path.replace(broken)
        say(f"{path} could not be read and was moved to {broken.name}; the data is kept, passwords are made anew")
        return State()


def _parse(raw: Mapping[str, Any]) -> State:
    return State(
        durable=bool(raw["durable"]), postgres=ServerState(**raw["postgres"]), redis=ServerState(**raw["redis"])
    )


def save(home: Path, state: State) -> None:
    """Writes the state in one atomic step, so that no reader ever gets an incomplete file."""
    path = home / STATE_FILE
    partial = path.with_suffix(".json.new")
    fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(fd, "w") as file:
        json.dump(asdict(state), file, indent=2)
    partial.replace(path)


@contextmanager
def locked(home: Path) -> Iterator[None]:
    """Holds the home's lock, so that a second command waits until the first has finished.

    Raises:
        DevstackError: the home cannot be written, or another command held the lock for `LOCK_SECONDS`.
    """
    try:
        # Only the owner can read the files in the home. The home itself can be entered by the user that runs Postgres
        # for root.
        home.mkdir(parents=True, exist_ok=True, mode=0o711 if os.geteuid() == 0 else 0o700)
        fd = os.open(home / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise DevstackError(
            f"cannot write to {home} ({error.strerror}). Set DASHTAM_HOME to a directory of your own."
        ) from error
    try:
        deadline = time.monotonic() + LOCK_SECONDS
        while not _try_lock(fd):
            if time.monotonic() > deadline:
                raise DevstackError(f"another devstack command has held {home / LOCK_FILE} for {LOCK_SECONDS:.0f} s")
            time.sleep(0.02)
        yield
    finally:
        os.close(fd)  # releases the lock


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True

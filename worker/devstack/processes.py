"""Starts, recognises and stops detached server processes, and finds free ports for them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from worker.devstack.account import Account, server_environment
from worker.devstack.errors import DevstackError

POLL_SECONDS = 0.005
LOG_BYTES_MAX = 5_000_000

# Used where there is no /proc, for example on macOS.
_PS = "/bin/ps"

# The shell starts the server in the background, prints its pid and ends. So the server is not our child, and we need
# not reap it.
_DETACH = 'umask 077; "$@" >&2 & echo $!'


def identity(pid: int) -> str | None:
    """A text that no later process with the same pid has: boot and start time. None if the process has ended."""
    if pid <= 0:
        return None
    if not Path("/proc/self/stat").exists():
        return _identity_from_ps(pid)
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    state, started = fields[0], fields[19]
    if state in "ZX":  # it has ended and is waiting for its parent to reap it
        return None
    return f"{Path('/proc/sys/kernel/random/boot_id').read_text()[:8]}:{started}"


def _identity_from_ps(pid: int) -> str | None:
    out = subprocess.run(
        [_PS, "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
    ).stdout.split(maxsplit=1)
    return None if len(out) < 2 or out[0].startswith("Z") else out[1].strip()


def works_in(pid: int, directory: Path) -> bool:
    """Whether this process is alive and works in this directory, as a server does in its data directory."""
    if identity(pid) is None:
        return False
    try:
        return Path(f"/proc/{pid}/cwd").readlink() == directory.resolve()
    except OSError:
        return False


def any_works_in(directory: Path) -> bool:
    """Whether any live process works in this directory. Without /proc this cannot be known, and the answer is False."""
    return any(works_in(int(entry.name), directory) for entry in Path("/proc").glob("[0-9]*"))


def exists(pid: int) -> bool:
    """Whether the pid belongs to a live process, or to an ended one that is not reaped yet."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def start_detached(argv: Sequence[str], account: Account, log: Path) -> int:
    """Starts a server as `account` in its own session; it keeps running after we end. Its output is appended to `log`.

    Returns:
        The server's pid.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists() and log.stat().st_size > LOG_BYTES_MAX:
        log.replace(log.with_suffix(".log.1"))
    fd = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        done = subprocess.run(
            ["/bin/sh", "-c", _DETACH, "sh", *argv],
            cwd="/",
            env=server_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=fd,
            start_new_session=True,
            timeout=60,
            check=True,
            **account.popen_arguments(),
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise DevstackError(f"could not start {argv[0]} as {account.name}: {error}") from error
    finally:
        os.close(fd)
    return int(done.stdout)


def stop(pid: int, known: str, steps: Sequence[tuple[signal.Signals, float]]) -> signal.Signals | None:
    """Ends the process with this pid and this `identity`, and never a later process that has the same pid.

    Args:
        pid: the process to end.
        known: its identity when it was started.
        steps: signals to send, each with the seconds to wait before the next.

    Returns:
        The signal that ended it; None if it had already ended.

    Raises:
        DevstackError: it belongs to another user, or no signal ended it.
    """
    for number, seconds in steps:
        if identity(pid) != known:
            return None
        try:
            os.kill(pid, number)
            os.kill(pid, signal.SIGCONT)  # a suspended process handles no signal except SIGKILL
        except ProcessLookupError:
            return None
        except PermissionError as error:
            raise DevstackError(f"process {pid} belongs to another user; stop it as that user") from error
        if wait_until(lambda: identity(pid) != known, seconds):
            return number
    raise DevstackError(f"process {pid} did not end after {', '.join(step[0].name for step in steps)}")


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Polls until the condition is true. Returns False if it was not true within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


def port_is_free(port: int) -> bool:
    """Whether a server could listen on this port of 127.0.0.1 now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def free_port() -> int:
    """A port of 127.0.0.1 on which no program listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def last_lines(log: Path, count: int = 15) -> str:
    """The last lines of a log, indented, for an error message."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 16_384))
            lines = file.read().decode(errors="replace").splitlines()[-count:]
    except OSError:
        lines = []
    return "\n".join(f"    {line}" for line in lines) or "    (nothing was logged)"


def text_since(log: Path, offset: int) -> str:
    """The text of a log after its first `offset` bytes."""
    try:
        with log.open("rb") as file:
            file.seek(offset if offset <= log.stat().st_size else 0)
            return file.read(262_144).decode(errors="replace")
    except OSError:
        return ""

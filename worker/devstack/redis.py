"""A private Redis or Valkey: started and stopped, listening on 127.0.0.1 only, with a password."""

from __future__ import annotations

import os
import secrets
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from worker.devstack import processes
from worker.devstack.account import Account
from worker.devstack.binaries import RedisBinary, find_redis
from worker.devstack.errors import DevstackError
from worker.devstack.state import ServerState

READY_SECONDS = 120.0  # a large append-only file takes a while to load
STOP_STEPS = ((signal.SIGTERM, 15.0), (signal.SIGKILL, 10.0))
READY_LINE = "Ready to accept connections"
MULTI_PART_AOF_SINCE = 7

SETTINGS = {
    "bind": "127.0.0.1",
    "protected-mode": "yes",
    "daemonize": "no",
    "logfile": '""',
    "save": '""',  # the append-only file keeps everything; snapshots would only fork
    "maxmemory-policy": "noeviction",  # an evicted key is a lost message
}
DURABLE = {"appendonly": "yes", "appendfsync": "everysec"}
# A signal to stop is noticed at the next tick of its clock; ten a second would add up over many tests.
NOT_DURABLE = {"appendonly": "no", "hz": "100"}


class RedisServer:
    """The private Redis of one home.

    Args:
        home: the devstack's directory.
        state: what is remembered; changed in place.
        save: writes the state.
        durable: False keeps nothing when it stops; for tests.
        settings: further server settings, by name.
        say: told what was found and mended.
    """

    def __init__(
        self,
        home: Path,
        state: ServerState,
        save: Callable[[], None],
        *,
        durable: bool,
        settings: Mapping[str, str],
        say: Callable[[str], None],
    ) -> None:
        self._home = home
        self._state = state
        self._save = save
        self._settings = SETTINGS | (DURABLE if durable else NOT_DURABLE) | dict(settings)
        self._say = say
        self._data = home / "redis"
        self._log = home / "log" / "redis.log"

    @property
    def url(self) -> str:
        """Address of database 0, its password included."""
        return f"redis://:{self._state.password}@127.0.0.1:{self._state.port}/0"

    def up(self) -> None:
        """Start the server if it is down.

        Raises:
            DevstackError: no usable program, or a server that does not start.
        """
        if self._state.running:
            return
        binary = find_redis()
        self._data.mkdir(mode=0o700, exist_ok=True)
        self._clear_stale()
        if binary.major < MULTI_PART_AOF_SINCE and (self._data / "appendonlydir").exists():
            self._say(
                f"Redis {binary.version} cannot read the newer server's data in {self._data / 'appendonlydir'}: it "
                "starts without it, and the files are kept. Nothing is lost but queued messages: what is due is in "
                "Postgres."
            )
        self._state.password = self._state.password or secrets.token_urlsafe(24)
        self._state.data, self._state.version = str(self._data), binary.version
        self._start(binary)

    def down(self) -> None:
        """Stop the server if it runs; durable data stays."""
        if self._state.running:
            ended_by = processes.stop(self._state.pid, self._state.identity, STOP_STEPS)
            if ended_by is signal.SIGKILL:
                self._say("Redis had to be killed; its last second of writes may be missing")
        self._state.stopped()
        self._save()

    def _clear_stale(self) -> None:
        """Stop a server that we have no record of: two must not write one append-only file."""
        try:
            pid = int((self._data / "redis.pid").read_text())
        except (FileNotFoundError, ValueError):
            return
        found = processes.identity(pid)
        if found is not None and processes.works_in(pid, self._data):
            self._say(f"a Redis of this home ran without our knowledge (process {pid}); it is started anew")
            processes.stop(pid, found, STOP_STEPS)

    def _start(self, binary: RedisBinary) -> None:
        before = self._state.port
        port = before if before and processes.port_is_free(before) else processes.free_port()
        deadline = time.monotonic() + READY_SECONDS
        while (failure := self._try_start(binary, port, deadline)) is not None:
            # Redis 6 and 7 word it differently; both name the address that was taken.
            if "in use" not in failure and "Failed listening" not in failure:
                raise DevstackError(
                    f"Redis ended at its start; its data in {self._data} was kept. End of {self._log}:\n"
                    + processes.last_lines(self._log)
                )
            port = processes.free_port()
        if before and port != before:
            self._say(f"port {before}, which Redis had last time, is taken; it now listens on {port}")

    def _try_start(self, binary: RedisBinary, port: int, deadline: float) -> str | None:
        """Start on a port and wait until it takes connections; what it logged when it ended instead."""
        log_end = self._log.stat().st_size if self._log.exists() else 0
        config = self._write_config(port)
        us = Account(name=f"uid {os.geteuid()}", uid=os.geteuid(), gid=os.getegid(), switch=False)
        self._state.started(processes.start_detached([str(binary.path), str(config)], us, self._log))
        self._state.port = port
        self._save()
        while self._state.running:
            # Its own word, and no knock at the port: should another program have that, it must not get the password.
            if READY_LINE in processes.text_since(self._log, log_end):
                return None
            if time.monotonic() > deadline:
                self.down()
                raise DevstackError(f"Redis was not ready in {READY_SECONDS:.0f} s and was stopped; see {self._log}")
            time.sleep(processes.POLL_SECONDS)
        self._state.stopped()
        self._save()
        return processes.text_since(self._log, log_end)

    def _write_config(self, port: int) -> Path:
        # A file and not arguments: those show the password to every user of the machine.
        path = self._data / "redis.conf"
        settings = self._settings | {
            "port": str(port),
            "requirepass": self._state.password,
            "dir": _quoted(str(self._data)),
            "pidfile": _quoted(str(self._data / "redis.pid")),
        }
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(fd, "w") as file:
            file.writelines(f"{name} {value}\n" for name, value in settings.items())
        return path


def _quoted(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'

"""A private Redis or Valkey: starts and stops it. It listens only on 127.0.0.1 and has a password."""

from __future__ import annotations

import os
import secrets
import signal
import time
from pathlib import Path

from worker.devstack import processes
from worker.devstack.account import Account
from worker.devstack.binaries import RedisBinary, find_redis
from worker.devstack.server import READY_SECONDS, Server

STOP_STEPS = ((signal.SIGTERM, 15.0), (signal.SIGKILL, 10.0))
READY_LINE = "Ready to accept connections"
MULTI_PART_AOF_SINCE = 7

SETTINGS = {
    "bind": "127.0.0.1",
    "protected-mode": "yes",
    "daemonize": "no",
    "logfile": '""',
    "save": '""',  # no snapshots: the append-only file has everything, and a snapshot would fork for nothing
    "maxmemory-policy": "noeviction",  # an evicted key would be a lost message
}
DURABLE = {"appendonly": "yes", "appendfsync": "everysec"}
# Redis notices a stop signal at its next tick. With the default of ten ticks a second, many tests would take longer.
NOT_DURABLE = {"appendonly": "no", "hz": "100"}


class RedisServer(Server):
    """The private Redis of one home."""

    name = "Redis"
    usual, durable, not_durable = SETTINGS, DURABLE, NOT_DURABLE
    stop_steps = STOP_STEPS

    @property
    def _data(self) -> Path:
        return self._home / "redis"

    @property
    def url(self) -> str:
        """The URL of database 0, with the password."""
        return f"redis://:{self._state.password}@127.0.0.1:{self._state.port}/0"

    def up(self) -> None:
        """Starts the server if it is down.

        Raises:
            DevstackError: there is no usable program, or the server does not start.
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
        """Stops the server if it is running; durable data is kept."""
        if self._stop() is signal.SIGKILL:
            self._say("Redis had to be killed; writes of its last second may be missing")

    def _clear_stale(self) -> None:
        """Stops a server that is not in our state file: two servers must not write the same append-only file."""
        try:
            pid = int((self._data / "redis.pid").read_text())
        except (FileNotFoundError, ValueError):
            return
        self._stop_unrecorded(pid, self._data)

    def _start(self, binary: RedisBinary) -> None:
        before, port = self._state.port, self._port()
        deadline = time.monotonic() + READY_SECONDS
        while (failure := self._try_start(binary, port, deadline)) is not None:
            # Redis 6 and 7 use different words for a port that is in use.
            if "in use" not in failure and "Failed listening" not in failure:
                raise self._ended_at_start(self._data)
            port = processes.free_port()
        self._say_port(before)

    def _try_start(self, binary: RedisBinary, port: int, deadline: float) -> str | None:
        us = Account(name=f"uid {os.geteuid()}", uid=os.geteuid(), gid=os.getegid(), switch=False)
        argv = [str(binary.path), str(self._write_config(port))]
        # We read the server's log instead of connecting: if another program has the port, it must not get the password.
        return self._run(
            argv, us, port, deadline, lambda _, log_end: READY_LINE in processes.text_since(self._log, log_end)
        )

    def _write_config(self, port: int) -> Path:
        # The settings are in a file, because every user of the machine could read a password in arguments.
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

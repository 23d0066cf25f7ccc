"""A private Redis or Valkey: started and stopped, listening on 127.0.0.1 only, with a password."""

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
    "save": '""',  # the append-only file keeps everything; snapshots would only fork
    "maxmemory-policy": "noeviction",  # an evicted key is a lost message
}
DURABLE = {"appendonly": "yes", "appendfsync": "everysec"}
# A signal to stop is noticed at the next tick of its clock; ten a second would add up over many tests.
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
        if self._stop() is signal.SIGKILL:
            self._say("Redis had to be killed; writes of its last second may be missing")

    def _clear_stale(self) -> None:
        """Stop a server that we have no record of: two must not write one append-only file."""
        try:
            pid = int((self._data / "redis.pid").read_text())
        except (FileNotFoundError, ValueError):
            return
        self._stop_unrecorded(pid, self._data)

    def _start(self, binary: RedisBinary) -> None:
        before, port = self._state.port, self._port()
        deadline = time.monotonic() + READY_SECONDS
        while (failure := self._try_start(binary, port, deadline)) is not None:
            # Redis 6 and 7 word it differently; both name the address that was taken.
            if "in use" not in failure and "Failed listening" not in failure:
                raise self._ended_at_start(self._data)
            port = processes.free_port()
        self._say_port(before)

    def _try_start(self, binary: RedisBinary, port: int, deadline: float) -> str | None:
        us = Account(name=f"uid {os.geteuid()}", uid=os.geteuid(), gid=os.getegid(), switch=False)
        argv = [str(binary.path), str(self._write_config(port))]
        # Its own word, and no knock at the port: should another program have that, it must not get the password.
        return self._run(
            argv, us, port, deadline, lambda _, log_end: READY_LINE in processes.text_since(self._log, log_end)
        )

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

"""Starts and stops both private servers of one home together."""

from __future__ import annotations

import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from worker.devstack import state as states
from worker.devstack.errors import DevstackError
from worker.devstack.postgres import SHARED_TEMP, PostgresServer
from worker.devstack.redis import RedisServer
from worker.devstack.state import ServerState, State
from worker.devstack.tether import Tether

MADE_HERE = ("postgres", "postgres.new", "postgres-[0-9]*", "redis", "log", "devstack.*")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Urls:
    """The URLs of the servers. Both contain a password, so the `repr` shows neither."""

    database_url: str = field(repr=False)
    redis_url: str = field(repr=False)


@dataclass(frozen=True)
class ServerStatus:
    """The state of one server, without its password.

    Attributes:
        state: `up`, `down`, or `external` if the environment names a server of the user's own.
    """

    name: str
    state: str
    pid: int | None = None
    port: int | None = None
    version: str | None = None
    data: str | None = None


class Devstack:
    """A private Postgres and Redis that keep everything in one directory.

    If the environment has DATABASE_URL or REDIS_URL (or the same with _FILE), that server is not started, and its
    address is returned unchanged.

    Args:
        home: directory of data, logs and state; created if it is missing.
        durable: whether data is kept through a crash of the machine. False is faster, for tests.
        environ: the environment to read; by default that of this process.
        postgres_settings: further settings of Postgres, by name; used from the next start.
        redis_settings: the same for Redis.
        say: called with each sentence about what was found and repaired; by default these are logged.
    """

    def __init__(
        self,
        home: Path,
        *,
        durable: bool,
        environ: Mapping[str, str] | None = None,
        postgres_settings: Mapping[str, str] | None = None,
        redis_settings: Mapping[str, str] | None = None,
        say: Callable[[str], None] = _log.info,
    ) -> None:
        self.home = home.absolute()
        self.durable = durable
        self._environ = os.environ if environ is None else environ
        self._postgres_settings = postgres_settings or {}
        self._redis_settings = redis_settings or {}
        self._say = say
        self._tether: Tether | None = None

    def up(self) -> Urls:
        """Starts the servers that are down. If one cannot be started, those that this call started are stopped again.

        Raises:
            DevstackError: a server program is missing, data cannot be used, or a server does not start.
        """
        return self._up(at_death=None)

    def _up(self, at_death: str | None) -> Urls:
        """Starts the servers that are down; `at_death` is the command to run if this process ends without `down`."""
        database_url, redis_url = self._external("DATABASE_URL"), self._external("REDIS_URL")
        if database_url and redis_url:
            return Urls(database_url, redis_url)
        with states.locked(self.home):
            state = self._state()
            if state.running and state.durable != self.durable:
                raise DevstackError(
                    f"the servers of {self.home} are up with durable={state.durable}; they were left alone. "
                    "Stop them first (`dashtam devstack down`), or use another DASHTAM_HOME."
                )
            state.durable = self.durable
            postgres, redis = self._servers(state)
            wanted: list[tuple[ServerState, PostgresServer | RedisServer]] = []
            wanted += [] if database_url else [(state.postgres, postgres)]
            wanted += [] if redis_url else [(state.redis, redis)]
            to_start = [server for known, server in wanted if not known.running]
            before = self._tether
            if to_start and at_death and before is None:
                self._tether = self._tie(at_death)
            try:
                self._start(to_start)
            except BaseException:
                if before is None:
                    self._release_tether()
                raise
            return Urls(database_url or postgres.url, redis_url or redis.url)

    def down(self) -> None:
        """Stops the servers that are running, Redis first. Data and ports are kept for the next `up`."""
        if (self.home / states.STATE_FILE).exists():
            with states.locked(self.home):
                for server in reversed(self._servers(self._state())):
                    server.down()

    def status(self) -> list[ServerStatus]:
        """The present state of Postgres and Redis."""
        state = self._state() if self.home.exists() else State()
        return [
            self._one_status("postgres", "DATABASE_URL", state.postgres),
            self._one_status("redis", "REDIS_URL", state.redis),
        ]

    def ports(self) -> dict[str, int]:
        """The port of each server that was ever started here, by its name, also if the server is down now."""
        if not (self.home / states.STATE_FILE).exists():
            return {}
        state = self._state()
        return {"postgres": state.postgres.port, "redis": state.redis.port}

    def erase(self) -> None:
        """Stops the servers and removes their data, logs and state, and the home if nothing else is in it."""
        self.down()
        if not (self.home / states.LOCK_FILE).exists():
            return
        with states.locked(self.home):
            elsewhere = Path(self._state().postgres.data).parent
            if elsewhere.parent == SHARED_TEMP and elsewhere.name.startswith("dashtam-"):
                shutil.rmtree(elsewhere)
            for path in (path for pattern in MADE_HERE for path in self.home.glob(pattern)):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        with suppress(OSError):
            self.home.rmdir()

    @contextmanager
    def session(self, *, erase: bool = False) -> Iterator[Urls]:
        """Runs the servers for the length of a `with` block. They are stopped however this process ends.

        Servers that were already up stay up.

        Args:
            erase: removes the home at the end, for tests that use a temporary one.
        """
        before = self._tether
        urls = self._up(at_death="erase" if erase else "down")
        ours = self._tether is not before
        try:
            yield urls
        finally:
            if ours:  # even if they were stopped and started again within the block
                self.down()
                if erase:
                    self.erase()
                self._release_tether()

    def _state(self) -> State:
        return states.load(self.home, self._say)

    def _servers(self, state: State) -> tuple[PostgresServer, RedisServer]:
        def save() -> None:
            states.save(self.home, state)

        return (
            PostgresServer(
                self.home,
                state.postgres,
                save,
                durable=self.durable,
                settings=self._postgres_settings,
                say=self._say,
            ),
            RedisServer(
                self.home, state.redis, save, durable=self.durable, settings=self._redis_settings, say=self._say
            ),
        )

    def _start(self, servers: list[PostgresServer | RedisServer]) -> None:
        started: list[PostgresServer | RedisServer] = []
        try:
            for server in servers:
                started.append(server)
                server.up()
        except BaseException:
            for server in reversed(started):
                with suppress(DevstackError):  # the first error is the one to report
                    server.down()
            raise

    def _tie(self, command: str) -> Tether:
        return Tether(
            self.home / "log" / "devstack.log",
            argv=[sys.executable, "-m", "worker.devstack", command, "--home", str(self.home)],
        )

    def _release_tether(self) -> None:
        if self._tether is not None:
            self._tether.release()
            self._tether = None

    def _one_status(self, name: str, variable: str, known: ServerState) -> ServerStatus:
        if self._external(variable):
            return ServerStatus(name, "external")
        if not known.running:
            return ServerStatus(name, "down", version=known.version or None, data=known.data or None)
        return ServerStatus(name, "up", known.pid, known.port, known.version, known.data)

    def _external(self, variable: str) -> str | None:
        value = self._environ.get(variable)
        file = self._environ.get(f"{variable}_FILE")
        if value or not file:
            return value
        try:
            return Path(file).read_text().strip()
        except OSError as error:
            raise DevstackError(f"{variable}_FILE names a file that cannot be read ({error.strerror})") from error

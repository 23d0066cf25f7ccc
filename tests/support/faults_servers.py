"""A private Postgres and broker that tests may kill, starve and cut off."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

from redis import Redis
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.exc import OperationalError

from tests.support.proxy import Proxy
from tests.support.waiting import wait_for
from worker.devstack import Devstack, Urls
from worker.devstack.processes import identity
from worker.process.redis_client import lengths_in_redis

# What was committed outlives a killed server without fsync too; only a dead machine loses it.
_POSTGRES = {"fsync": "off", "full_page_writes": "off", "max_connections": "60"}

_TERMINATE = text("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'dashtam'")


class Servers:
    """The two servers, and a proxy before each, through which the worker's processes reach them.

    Args:
        home: where they keep their data.
        postgres: further settings of Postgres.

    Attributes:
        engine: straight to Postgres.
    """

    def __init__(self, home: Path, **postgres: str) -> None:
        settings = _POSTGRES | postgres
        self._devstack = Devstack(home, durable=True, environ={}, postgres_settings=settings)
        self._urls: Urls
        self.engine: Engine
        self._own_redis: Redis
        self.postgres_network = Proxy(lambda: self._port("postgres"))
        self.redis_network = Proxy(lambda: self._port("redis"))

    @contextmanager
    def session(self) -> Iterator[None]:
        """The servers for as long as the block lasts."""
        with self._devstack.session(erase=True) as urls:
            self._connect(urls)
            self.postgres_network.start()
            self.redis_network.start()
            try:
                yield
            finally:
                self.redis_network.stop()
                self.postgres_network.stop()
                self._own_redis.close()
                self.engine.dispose()

    def start(self) -> None:
        """Starts what is down."""
        self._connect(self._devstack.up())

    def _connect(self, urls: Urls) -> None:
        self._urls = urls
        if hasattr(self, "engine"):
            self.engine.dispose()
        # One connection is kept: tests ask many times a second, and each new one costs ten milliseconds.
        self.engine = create_engine(
            urls.database_url,
            pool_size=1,
            max_overflow=-1,
            pool_pre_ping=True,  # the server may have been killed meanwhile
            connect_args={"options": "-c timezone=UTC"},
        )
        self._own_redis = Redis.from_url(urls.redis_url, decode_responses=True)

    @property
    def redis(self) -> Redis:
        """Straight to the Redis that has quotas and journal."""
        return self._own_redis

    @property
    def losses(self) -> dict[str, Callable[[], AbstractContextManager[None]]]:
        """The ways in which the broker may be lost, by name."""
        return {
            "killed": self.redis_down,
            "restarted empty": self.redis_restarted_empty,
            "emptied": self.redis_emptied,
            "full": self.redis_full,
            "cut off": self.redis_network.refusing,
        }

    @property
    def broker_network(self) -> Proxy:
        """The way to the broker."""
        return self.redis_network

    def broker_stopped(self) -> AbstractContextManager[None]:
        """The broker neither answers nor refuses."""
        return self.redis_stopped()

    def queued(self) -> int:
        """How many messages wait, or are with workers if the broker says so."""
        lengths = lengths_in_redis(self.redis)
        return sum(lengths.waiting.values()) + (lengths.in_flight or 0)

    def forget_messages(self) -> None:
        """Removes what the broker, the journal and the quotas have, but not what connected workers need."""
        self.redis.config_set("maxmemory", "0")
        keys = [key for key in self.redis.scan_iter(count=1000) if not key.startswith("_kombu.binding.")]
        if keys:
            self.redis.delete(*keys)

    def addresses(self) -> dict[str, str]:
        """Of the proxies, as the worker's settings want them."""
        return {
            "DATABASE_URL": _at(self._urls.database_url, self.postgres_network.port),
            "REDIS_URL": _at(self._urls.redis_url, self.redis_network.port),
        }

    def direct_addresses(self) -> dict[str, str]:
        """Of the servers themselves."""
        return {"DATABASE_URL": self._urls.database_url, "REDIS_URL": self._urls.redis_url}

    # Postgres

    @contextmanager
    def postgres_stopped(self) -> Iterator[None]:
        """SIGSTOP: who connects anew is not answered. It may be ended within the block."""
        pid = self._pid("postgres")
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def kill_postgres(self) -> None:
        """Immediate shutdown, as `pg_ctl stop -m immediate`: nothing is written any more."""
        self._end("postgres", signal.SIGQUIT)

    @contextmanager
    def postgres_down(self) -> Iterator[None]:
        """Killed at the beginning of the block, started at its end."""
        self.kill_postgres()
        try:
            yield
        finally:
            self.start()

    def terminate_backends(self) -> int:
        """Ends every connection of the worker's processes; returns how many there were."""
        with self.engine.connect() as connection:
            return int(connection.execute(_TERMINATE).scalar_one())

    @contextmanager
    def all_connections_taken(self) -> Iterator[None]:
        """Nobody but a superuser gets a connection; the worker's own are ended, so that it needs new ones."""
        taken: list[Connection] = []
        rounds = 0
        try:
            while rounds < 5:
                try:
                    taken.append(self.engine.connect())
                except OperationalError:  # the server's refusal
                    rounds += 1
                    taken[0].execute(_TERMINATE)
                    taken[0].rollback()
            yield
        finally:
            for connection in taken:
                connection.close()

    # Redis

    def kill_redis(self) -> None:
        self._end("redis", signal.SIGKILL)

    @contextmanager
    def redis_down(self) -> Iterator[None]:
        """Killed at the beginning of the block, started at its end with what its append-only file has."""
        self.kill_redis()
        try:
            yield
        finally:
            self.start()

    @contextmanager
    def redis_emptied(self) -> Iterator[None]:
        """FLUSHALL at the beginning of the block and at its end, behind everybody's back."""
        self.redis.flushall()
        try:
            yield
        finally:
            self.redis.flushall()

    @contextmanager
    def redis_restarted_empty(self) -> Iterator[None]:
        """Emptied, killed and started again."""
        self.redis.flushall()
        with self.redis_down():
            yield

    @contextmanager
    def redis_stopped(self) -> Iterator[None]:
        """SIGSTOP: it neither answers nor refuses."""
        pid = self._pid("redis")
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    @contextmanager
    def redis_full(self) -> Iterator[None]:
        """Out of memory: it reads, and refuses to write."""
        self.redis.config_set("maxmemory", "1")
        try:
            yield
        finally:
            self.redis.config_set("maxmemory", "0")

    # Processes

    def _end(self, name: str, number: signal.Signals) -> None:
        pid = self._pid(name)
        known = identity(pid)
        os.kill(pid, number)
        wait_for(lambda: identity(pid) != known, what=f"the end of {name}")

    def _pid(self, name: str) -> int:
        pid = next(server.pid for server in self._devstack.status() if server.name == name)
        assert pid is not None, f"{name} is down"
        return pid

    def _port(self, name: str) -> int:
        return next(server.port or 1 for server in self._devstack.status() if server.name == name)


def _at(url: str, port: int) -> str:
    parts = urlsplit(url)
    netloc = parts.netloc.rpartition(":")[0]
    return parts._replace(netloc=f"{netloc}:{port}").geturl()

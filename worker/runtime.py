"""Composition root: settings become an engine, keys, clients and one event loop; once per process, after fork."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime, timedelta
from functools import cached_property, partial
from typing import Any, Concatenate, ParamSpec, TypeVar
from uuid import UUID, uuid4

import redis
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from worker.crud.database import make_engine, transaction
from worker.crud.database import now as database_now
from worker.errors import Unavailable
from worker.integrations.kit.base import Integration
from worker.integrations.registry import build_integrations
from worker.services.availability.quotas import QuotaGate
from worker.services.encryption import EncryptionService
from worker.settings import Settings, get_settings

T = TypeVar("T")
P = ParamSpec("P")

_CLOCK_SECONDS = 60.0
_CLOCK_DOUBT_SECONDS = 0.02
_CLOCK_READINGS = 5


class Runtime:
    """What services work with.

    Args:
        settings: the process's settings.
        engine: another engine than the settings' own, which outlives this (tests).
        integrations: other integrations than the settings' own (tests).

    Attributes:
        owner: names this process in leases and runs.
        unrecorded_notices: when notices left whose record Postgres has not taken yet, by id.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        engine: Engine | None = None,
        integrations: dict[str, Integration] | None = None,
    ) -> None:
        self.settings = settings
        self.owner: UUID = uuid4()
        self.unrecorded_notices: dict[UUID, datetime] = {}
        self.encryption = EncryptionService(settings.encryption_keys.get_secret_value())
        self._lent_engine = engine is not None
        self.engine = engine or make_engine(
            settings.database_url.get_secret_value(),
            connections=settings.database_threads + 1,
            idle_seconds=settings.lease_seconds,
        )
        if integrations is not None:
            self.integrations = integrations
        self._threads = ThreadPoolExecutor(settings.database_threads, thread_name_prefix="db")
        self._runner = asyncio.Runner()
        self._gates: dict[str, QuotaGate] = {}
        self._clock: tuple[datetime, float] | None = None

    @cached_property
    def integrations(self) -> dict[str, Integration]:
        """Enabled integrations by `provider_key`, each with one client for the life of the process."""
        found: dict[str, Integration] = {}
        for key in self.settings.enabled_integrations:
            found |= build_integrations((key,), self.settings, gate=self.gate(key))
        return found

    def gate(self, provider_key: str) -> QuotaGate:
        """What the calls of one integration must pass."""
        return self._gates.setdefault(provider_key, QuotaGate(self, provider_key))

    @cached_property
    def redis(self) -> redis.Redis:
        """For the journal and quotas; the broker's own connections belong to Celery."""
        return redis.Redis.from_url(
            self.settings.redis_url.get_secret_value(),
            socket_timeout=5,
            socket_connect_timeout=5,
            health_check_interval=10,
        )

    def transaction(self) -> AbstractContextManager[Session]:
        """One database transaction. Raises `Unavailable` when Postgres is out of reach."""
        return transaction(self.engine)

    async def now(self) -> datetime:
        """The database's time, read once a minute: a worker whose own clock is wrong does what is due all the same.

        Raises:
            Unavailable: Postgres is away and was never asked before.
        """
        read = self._clock
        if read is None or time.monotonic() - read[1] > _CLOCK_SECONDS:
            try:
                read = self._clock = await self.db(_read_clock)
            except Unavailable:
                if read is None:
                    raise
        return read[0] + timedelta(seconds=time.monotonic() - read[1])

    async def db(self, step: Callable[Concatenate[Session, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs one `crud` function in a transaction of its own, off the event loop."""
        loop = asyncio.get_running_loop()
        work = partial(self._in_transaction, step, *args, **kwargs)
        # What it logs and audits is this task's.
        return await loop.run_in_executor(self._threads, contextvars.copy_context().run, work)

    def _in_transaction(self, step: Callable[Concatenate[Session, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        with self.transaction() as session:
            return step(session, *args, **kwargs)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs `work` on the process's one event loop; clients and their connections stay open between calls."""
        # The runner would otherwise keep the context of its first use, and with it that task's id.
        return self._runner.run(work, context=contextvars.copy_context())

    def close(self) -> None:
        """Closes clients, threads and connections."""
        if "integrations" in self.__dict__:
            for integration in self.integrations.values():
                self.run(integration.aclose())
        self._runner.close()
        for gate in self._gates.values():
            gate.close()
        self._threads.shutdown()
        if not self._lent_engine:
            self.engine.dispose()
        if "redis" in self.__dict__:
            self.redis.close()


def _read_clock(session: Session) -> tuple[datetime, float]:
    """The database's time, and this process's own just before: never behind, so that what is due there is due here.

    A reading during which this process was held up is taken anew; it would be ahead by as much.
    """
    session.connection()  # to wait for one is no part of the reading
    for _ in range(_CLOCK_READINGS):
        asked_at = time.monotonic()
        there = database_now(session)
        if time.monotonic() - asked_at < _CLOCK_DOUBT_SECONDS:
            break
    return there, asked_at


def spare_collector() -> None:
    """Keeps the garbage collector from looking through what the process is made of, and through every page of a sync.

    By default it is a fifth of a sync's time. What tasks leave behind in cycles is still found, thirty times later. Not
    collected here: to look at all that a forked process shares with its parent would copy it.
    """
    gc.freeze()
    gc.set_threshold(20_000, 10, 10)


_current: Runtime | None = None
_lock = threading.Lock()


def get_runtime() -> Runtime:
    """The process's runtime, made on first use.

    Raises:
        ConfigurationError: the settings are incomplete or unsafe.
    """
    global _current
    with _lock:
        if _current is None:
            _current = Runtime(get_settings())
        return _current


def forget_runtime() -> None:
    """Drops an inherited runtime after a fork without closing what still belongs to the parent."""
    global _current
    _current = None


def close_runtime() -> None:
    """Closes the process's runtime, if it has one."""
    global _current
    if _current is not None:
        _current.close()
        _current = None


@contextmanager
def use_runtime(runtime: Runtime) -> Iterator[Runtime]:
    """Makes `runtime` the process's own for a while (tests)."""
    global _current
    before, _current = _current, runtime
    try:
        yield runtime
    finally:
        _current = before

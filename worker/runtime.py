"""Composition root: settings become an engine, keys, clients and one event loop; once per process, after fork."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, Concatenate, ParamSpec, TypeVar
from uuid import UUID, uuid4

import redis
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from worker.clocks import elapsed
from worker.crud.database import give_up_at, make_engine, transaction
from worker.crud.database import now as database_now
from worker.crud.refresh.tokens import Attempt
from worker.errors import Unavailable
from worker.integrations.kit.integration import Integration
from worker.integrations.registry import build_integrations
from worker.loop import Loop
from worker.redis_client import connect
from worker.services.availability.quotas import QuotaGate
from worker.services.encryption import EncryptionService
from worker.settings import Settings, get_settings

T = TypeVar("T")
P = ParamSpec("P")

_THREAD_GRACE_S = 5.0
"""A thread whose step has hung up is back at once; one that takes longer stands somewhere else, and for good."""
_TASK_GRACE_SHARE = 0.75
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
        unsent: attempts that were perhaps written down and never sent (`worker.services.refresh.unsent`).
        spool_id: names this host's spool, once it is known.
        spool_told_at: when this process has last told what waits there, by `elapsed`.
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
            limits=settings,
            idle_seconds=settings.lease_seconds,
        )
        if integrations is not None:
            self.integrations = integrations
        self._threads = ThreadPoolExecutor(settings.database_threads, thread_name_prefix="db")
        self._abandoned: list[tuple[Future[Any], float]] = []
        self._loop = Loop(grace_s=(settings.task_time_limit - settings.task_soft_time_limit) * _TASK_GRACE_SHARE)
        self._gates: dict[str, QuotaGate] = {}
        self._clock: tuple[datetime, float] | None = None
        self.unsent: dict[str, Attempt] = {}
        self.spool_id: UUID | None = None
        self.spool_told_at = float("-inf")

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
        return connect(self.settings.redis_url.get_secret_value(), seconds=5)

    def transaction(self) -> AbstractContextManager[Session]:
        """One database transaction. Raises `Unavailable` when Postgres is out of reach."""
        return transaction(self.engine)

    async def now(self) -> datetime:
        """The database's time, read once a minute: a worker whose own clock is wrong does what is due all the same.

        Raises:
            Unavailable: Postgres is away and was never asked before.
        """
        read = self._clock
        if read is None or elapsed() - read[1] > _CLOCK_SECONDS:
            try:
                read = self._clock = await self.db(_read_clock)
            except Unavailable:
                if read is None:
                    raise
        return read[0] + timedelta(seconds=elapsed() - read[1])

    async def db(self, step: Callable[Concatenate[Session, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs one `crud` function in a transaction of its own, off the event loop.

        Raises:
            Unavailable: Postgres is out of reach, or did not answer within `DATABASE_STEP_SECONDS`, waiting for a
                thread included; what was asked of it may have been done.
        """
        return await self.db_within(self.settings.database_step_seconds, lambda session: step(session, *args, **kwargs))

    async def db_within(self, seconds: float, step: Callable[[Session], T]) -> T:
        """As `db`, for at most so many seconds."""
        until = time.monotonic() + seconds
        # What it logs and audits is this task's.
        future = self._threads.submit(contextvars.copy_context().run, self._in_transaction, until, step)
        try:
            async with asyncio.timeout(seconds + _THREAD_GRACE_S) as limit:
                return await asyncio.wrap_future(future)
        except TimeoutError:
            if not limit.expired():
                raise
        finally:
            if not future.done():
                self._abandoned.append((future, until))
        if future.cancelled():
            raise Unavailable("Postgres: all database threads of this process are busy")
        raise Unavailable("Postgres: a database thread did not come back; this process is replaced if it never does")

    def _in_transaction(self, until: float, step: Callable[[Session], T]) -> T:
        if time.monotonic() > until:
            raise Unavailable("Postgres: all database threads of this process were busy")
        give_up_at(until)
        with self.transaction() as session:
            return step(session)

    @property
    def is_wedged(self) -> bool:
        """Whether threads or tasks of this process stand still for good, so that another must take its place."""
        self._abandoned = [left for left in self._abandoned if not left[0].done()]
        overdue = time.monotonic() - _THREAD_GRACE_S
        return self._loop.is_clogged or any(until < overdue for _, until in self._abandoned)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs `work` on the process's one event loop; clients and their connections stay open between calls."""
        return self._loop.run(work)

    def close(self) -> None:
        """Closes clients, threads and connections; does nothing in a process that could not be waited for."""
        if self.is_wedged:
            return
        if "integrations" in self.__dict__:
            for integration in self.integrations.values():
                self.run(integration.aclose())
        self._loop.close()
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
        asked_at = elapsed()
        there = database_now(session)
        if elapsed() - asked_at < _CLOCK_DOUBT_SECONDS:
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


def is_wedged() -> bool:
    """Whether the process must be replaced: see `Runtime.is_wedged`."""
    return _current is not None and _current.is_wedged


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

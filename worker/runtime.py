"""Composition root: makes the database, keys, HTTP clients and event loop of one process from its settings.

Each process makes its own, after the fork.
"""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import Engine

from worker.crud.database import Database, make_engine
from worker.process.loop import Loop
from worker.services.context import Context
from worker.settings import Settings, get_settings

if TYPE_CHECKING:
    from worker.integrations.kit.integration import Integration
    from worker.services.availability.quotas import QuotaGate

T = TypeVar("T")

_TASK_GRACE_SHARE = 0.75


class Runtime(Context):
    """What one process works with: the services' context, and the event loop on which the services run.

    Args:
        settings: the process's settings.
        engine: for tests: use this engine instead of one made from the settings; `close` leaves it open.
        integrations: for tests: use these integrations instead of those that the settings enable.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        engine: Engine | None = None,
        integrations: dict[str, Integration] | None = None,
    ) -> None:
        self._lent_engine = engine is not None
        self.engine = engine or make_engine(
            settings.database_url.get_secret_value(),
            connections=settings.database_threads + 1,
            limits=settings,
            idle_seconds=settings.lease_seconds,
        )
        database = Database(self.engine, threads=settings.database_threads, step_seconds=settings.database_step_seconds)
        super().__init__(settings, database)
        if integrations is not None:
            self.integrations = integrations
        self._loop = Loop(grace_s=(settings.task_time_limit - settings.task_soft_time_limit) * _TASK_GRACE_SHARE)
        self._gates: dict[str, QuotaGate] = {}

    @cached_property
    def integrations(self) -> dict[str, Integration]:
        """Enabled integrations by `provider_key`, each with one client for the life of the process."""
        from worker.integrations.registry import build_integrations

        found: dict[str, Integration] = {}
        for key in self.settings.enabled_integrations:
            found |= build_integrations((key,), self.settings, gate=self.gate(key))
        return found

    def gate(self, provider_key: str) -> QuotaGate:
        """The budget of calls of one integration."""
        from worker.services.availability.quotas import QuotaGate

        return self._gates.setdefault(provider_key, QuotaGate(self, provider_key))

    @property
    def is_wedged(self) -> bool:
        """Whether threads or tasks of this process hang for good, so that the process must be replaced."""
        return self._loop.is_clogged or self.database.has_stuck_threads

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs `work` on the process's one event loop; clients and their connections stay open between calls."""
        return self._loop.run(work)

    def close(self) -> None:
        """Closes clients, threads and connections. Does nothing when a thread or task of this process hangs."""
        if self.is_wedged:
            return
        if "integrations" in self.__dict__:
            self.run(self.close_clients())
        self._loop.close()
        self._close_rest()

    async def close_clients(self) -> None:
        """Closes the integrations' connections. It runs on the event loop that opened them."""
        for integration in self.__dict__.pop("integrations", {}).values():
            await integration.aclose()

    def _close_rest(self) -> None:
        for gate in self._gates.values():
            gate.close()
        self.database.close()
        if not self._lent_engine:
            self.engine.dispose()
        if "redis" in self.__dict__:
            self.redis.close()


_SWITCH_SECONDS = 0.0005


def tune_interpreter() -> None:
    """Sets the garbage collector and the switching of threads for a process that works.

    With Python's defaults the collector takes a fifth of a sync's time. So it runs less often, and skips the objects
    that exist now. Reference cycles that tasks leave behind are still collected, but thirty times less often. Nothing
    is collected here: a collection writes to every object, and so would copy all the memory that a forked process
    shares with its parent.

    A thread that has got rows from Postgres would wait up to 5 ms while the event loop reads pages, and Postgres would
    have nothing to do; now it waits a tenth of that.
    """
    gc.freeze()
    gc.set_threshold(20_000, 10, 10)
    sys.setswitchinterval(_SWITCH_SECONDS)


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
    """Drops the runtime inherited from the parent process. Closes nothing: it still belongs to the parent."""
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
    """Makes `runtime` the process's runtime inside the `with` block (tests)."""
    global _current
    before, _current = _current, runtime
    try:
        yield runtime
    finally:
        _current = before

"""Threads for steps that block. Each step has an end: who waits for it is told when its thread does not come back."""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

from worker.errors import Unavailable

T = TypeVar("T")

GRACE_S = 5.0
"""A thread whose step has hung up is back at once; one that takes longer stands somewhere else, and for good."""


class Threads:
    """At most `count` of them, for the life of the process.

    One timer of the event loop serves all steps that wait. A timer for each would cost a tenth of a small step.

    Args:
        count: how many.
    """

    def __init__(self, count: int) -> None:
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="db")
        self._waiting: dict[asyncio.Future[Any], float] = {}
        self._lost: list[tuple[Future[Any], float]] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def run(self, until: float, step: Callable[..., T], *args: Any) -> T:
        """Runs `step` in the context of the task that waits for it: what it logs and audits is that task's.

        Args:
            until: when `step` ends by itself (`time.monotonic`); five seconds later nobody waits any more.
            step: what blocks.
            args: its arguments.

        Raises:
            Unavailable: no thread came free, or the step's does not come back; it may be done all the same.
        """
        loop = asyncio.get_running_loop()
        waiting: asyncio.Future[T] = loop.create_future()
        future = self._pool.submit(contextvars.copy_context().run, step, *args)

        def tell(_: object) -> None:
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(_hand_over, future, waiting)

        future.add_done_callback(tell)
        self._watch(waiting, until + GRACE_S, loop)
        try:
            return await waiting
        except _Overdue:
            if future.cancel():
                raise Unavailable("Postgres: all database threads of this process are busy") from None
            self._lost.append((future, until))
            raise Unavailable(
                "Postgres: a database thread did not come back; this process is replaced if it never does"
            ) from None
        except asyncio.CancelledError:
            if not future.cancel():
                self._lost.append((future, until))
            raise
        finally:
            del self._waiting[waiting]

    @property
    def are_stuck(self) -> bool:
        """Whether one stands still for good."""
        self._lost = [left for left in self._lost if not left[0].done()]
        overdue = time.monotonic() - GRACE_S
        return any(until < overdue for _, until in self._lost)

    def close(self) -> None:
        """Waits for all of them."""
        self._pool.shutdown()

    def _watch(self, waiting: asyncio.Future[Any], until: float, loop: asyncio.AbstractEventLoop) -> None:
        self._waiting[waiting] = until
        if self._loop is not loop:
            self._loop, self._timer = loop, None
        if self._timer is None or until < self._timer.when():
            self._look_at(until, loop)

    def _look_at(self, moment: float, loop: asyncio.AbstractEventLoop) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = loop.call_at(moment, self._look)

    def _look(self) -> None:
        """Tells whose time is over, and looks again when the next one's may be."""
        self._timer = None
        now = time.monotonic()
        for waiting, until in self._waiting.items():
            if until <= now and not waiting.done():
                waiting.set_exception(_Overdue())
        left = [until for waiting, until in self._waiting.items() if not waiting.done()]
        if left and self._loop is not None:
            self._look_at(min(left), self._loop)


class _Overdue(Exception):  # noqa: N818 - it never leaves this file
    """The thread has not come back in time."""


def _hand_over(future: Future[T], waiting: asyncio.Future[T]) -> None:
    if waiting.done():
        return
    if future.cancelled():
        waiting.cancel()
    elif (error := future.exception()) is not None:
        waiting.set_exception(error)
    else:
        waiting.set_result(future.result())

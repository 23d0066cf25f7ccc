"""The event loop of a process, and its threads for steps that block.

Everything that a Celery task starts on the loop ends with that task, for whatever reason the task ended. Celery's time
limit is a signal whose handler raises an error at the place where the main thread is: in a callback, the error would be
lost; in a coroutine, it would look like the coroutine's own error. So the signal cancels the work here, and the error
is raised after everything has ended. A step in a thread has a time limit, too: its caller gets an error if the thread
does not return in time.
"""

from __future__ import annotations

import asyncio
import contextvars
import signal
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from types import FrameType
from typing import Any, TypeVar

from worker.errors import Unavailable
from worker.process import ending
from worker.process.logger import Logger

log = Logger(__name__)

T = TypeVar("T")

_SOFT_LIMIT = signal.SIGUSR1
"""The signal by which Celery tells a pool process that its task has taken too long."""
_LOOK_AGAIN_S = 0.05
_PUT_AWAY_S = 5.0


class Loop:
    """One event loop for the life of a process.

    Args:
        grace_s: how long work that must not be interrupted (`worker.process.ending`) may run after a time limit.

    Attributes:
        is_clogged: a task on the loop does not end although it was cancelled several times; the process must be
            replaced.
    """

    def __init__(self, *, grace_s: float) -> None:
        self._runner = asyncio.Runner()
        self._grace_s = grace_s
        self.is_clogged = False

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs `work` to its end. Clients and their connections stay open between calls; left-over tasks are ended."""
        with _TimeLimit(self._runner.get_loop(), self._grace_s) as limit:
            try:
                # Without this, the runner would keep the context of its first use, with the id of that first task.
                result = self._runner.run(limit.watch(work), context=contextvars.copy_context())
            except asyncio.CancelledError:
                limit.raise_if_passed()
                raise
            finally:
                self._put_away()
        limit.raise_if_passed()
        return result

    def close(self) -> None:
        """Closes the loop and waits for its threads."""
        self._runner.close()

    def _put_away(self) -> None:
        """Ends left-over tasks, so that they cannot continue or raise errors during the next task."""
        loop = self._runner.get_loop()
        if not (left := asyncio.all_tasks(loop)):
            self.is_clogged = False
            return
        log.info("tasks_left", count=len(left), next="they are cancelled")
        self.is_clogged = not loop.run_until_complete(_end(left, self._grace_s))


async def _end(tasks: set[asyncio.Task[Any]], grace_s: float) -> bool:
    """Cancels the tasks; first waits for work that must not be interrupted. Returns whether all have ended."""
    ending.hurry()
    loop = asyncio.get_running_loop()
    until = loop.time() + grace_s
    while ending.is_held_up() and loop.time() < until:
        await asyncio.wait(tasks, timeout=_LOOK_AGAIN_S)
    for task in tasks:
        task.cancel()
    _, undead = await asyncio.wait(tasks, timeout=_PUT_AWAY_S)
    if undead:
        log.error("tasks_do_not_end", count=len(undead), next="this process is replaced")
    return not undead


class _TimeLimit:
    """Within the block, a time limit's signal cancels the running task; its error is raised when the task has ended."""

    def __init__(self, loop: asyncio.AbstractEventLoop, grace_s: float) -> None:
        self._loop = loop
        self._grace_s = grace_s
        self._task: asyncio.Task[Any] | None = None
        self._passed: tuple[int, FrameType | None] | None = None
        self._before: Callable[[int, FrameType | None], Any] | None = None
        self._until = 0.0

    def __enter__(self) -> _TimeLimit:
        before = signal.getsignal(_SOFT_LIMIT)
        if callable(before) and threading.current_thread() is threading.main_thread():
            self._before = before
            signal.signal(_SOFT_LIMIT, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(_SOFT_LIMIT, self._before)

    async def watch(self, work: Coroutine[Any, Any, T]) -> T:
        self._task = asyncio.current_task()
        return await work

    def raise_if_passed(self) -> None:
        """If the time limit has passed, raises the error that Celery's own handler raises."""
        if self._passed is not None and self._before is not None:
            self._before(*self._passed)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._passed = (number, frame)
        self._until = self._loop.time() + self._grace_s
        self._loop.call_soon_threadsafe(self._cancel)

    def _cancel(self) -> None:
        if ending.is_held_up() and self._loop.time() < self._until:
            ending.hurry()
            self._loop.call_later(_LOOK_AGAIN_S, self._cancel)
        elif self._task is not None and not self._task.done():
            self._task.cancel()


GRACE_S = 5.0
"""How long after `until` a step's thread may take to return. A thread that takes longer is treated as stuck."""


class Threads:
    """A pool of at most `count` threads for the whole life of the process.

    One timer of the event loop serves all waiting steps. A timer for each step would add 10 % to the time of a small
    step.

    Args:
        count: the largest number of threads.
    """

    def __init__(self, count: int) -> None:
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="db")
        self._waiting: dict[asyncio.Future[Any], float] = {}
        self._lost: list[tuple[Future[Any], float]] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def run(self, until: float, step: Callable[..., T], *args: Any) -> T:
        """Runs `step` in the context of the task that waits for it, so that its logs and audit entries have its id.

        Args:
            until: when `step` ends by itself (by `time.monotonic`); five seconds later, this stops waiting for it.
            step: the function that blocks.
            args: its arguments.

        Raises:
            Unavailable: no thread was free in time, or the step's thread did not return; the step may still be done.
        """
        loop = asyncio.get_running_loop()
        waiting: asyncio.Future[T] = loop.create_future()
        future = self._pool.submit(contextvars.copy_context().run, step, *args)

        # It must not refer to `future`, which refers to it: such a circle keeps the step's result in memory for long.
        def tell(done: Future[T]) -> None:
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(_hand_over, done, waiting)

        future.add_done_callback(tell)
        self._watch(waiting, until + GRACE_S, loop)
        try:
            return await waiting
        except _Overdue:
            if future.cancel():
                raise Unavailable("Postgres: all database threads of this process are busy") from None
            self._lost.append((future, until))
            raise Unavailable(
                "Postgres: a database thread did not come back; this process is replaced if it does not return"
            ) from None
        except asyncio.CancelledError:
            if not future.cancel():
                self._lost.append((future, until))
            raise
        finally:
            del self._waiting[waiting]

    @property
    def are_stuck(self) -> bool:
        """Whether a thread has stopped and will not return."""
        self._lost = [left for left in self._lost if not left[0].done()]
        overdue = time.monotonic() - GRACE_S
        return any(until < overdue for _, until in self._lost)

    def close(self) -> None:
        """Waits for all threads."""
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
        """Stops waiting for steps whose time is over, and sets the timer for the next one."""
        self._timer = None
        now = time.monotonic()
        for waiting, until in self._waiting.items():
            if until <= now and not waiting.done():
                waiting.set_exception(_Overdue())
        left = [until for waiting, until in self._waiting.items() if not waiting.done()]
        if left and self._loop is not None:
            self._look_at(min(left), self._loop)


class _Overdue(Exception):  # noqa: N818 - it never leaves this file
    """The thread has not returned in time."""


def _hand_over(future: Future[T], waiting: asyncio.Future[T]) -> None:
    if waiting.done():
        return
    if future.cancelled():
        waiting.cancel()
    elif (error := future.exception()) is not None:
        waiting.set_exception(error)
    else:
        waiting.set_result(future.result())

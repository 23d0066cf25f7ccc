"""The process's one event loop: what runs on it ends with its task, whatever ended that.

A time limit is a signal, and its handler raises wherever the main thread happens to be: inside a callback it is lost,
inside a coroutine it is taken for that coroutine's error. So it becomes a cancellation here, and is raised when all has
been put away.
"""

from __future__ import annotations

import asyncio
import contextvars
import signal
import threading
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import Any, TypeVar

import structlog

from worker.process import ending

log = structlog.get_logger()

T = TypeVar("T")

_SOFT_LIMIT = signal.SIGUSR1
"""By which Celery tells a pool process that its task has taken too long."""
_LOOK_AGAIN_S = 0.05
_PUT_AWAY_S = 5.0


class Loop:
    """One event loop for the life of a process.

    Args:
        grace_s: how long what must not be interrupted (`worker.process.ending`) may go on after a time limit.

    Attributes:
        is_clogged: a task of it does not end, however often it is cancelled; the process must be replaced.
    """

    def __init__(self, *, grace_s: float) -> None:
        self._runner = asyncio.Runner()
        self._grace_s = grace_s
        self.is_clogged = False

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs `work` to its end. Clients and their connections stay open between calls; tasks do not."""
        with _TimeLimit(self._runner.get_loop(), self._grace_s) as limit:
            try:
                # The runner would otherwise keep the context of its first use, and with it that task's id.
                result = self._runner.run(limit.watch(work), context=contextvars.copy_context())
            except asyncio.CancelledError:
                limit.raise_if_passed()
                raise
            finally:
                self._put_away()
        limit.raise_if_passed()
        return result

    def close(self) -> None:
        """Ends the loop, and waits for its threads."""
        self._runner.close()

    def _put_away(self) -> None:
        """Ends what is left, so that it can neither go on inside the next task nor raise there."""
        loop = self._runner.get_loop()
        if not (left := asyncio.all_tasks(loop)):
            self.is_clogged = False
            return
        log.info("tasks_left", count=len(left), next="they are cancelled")
        self.is_clogged = not loop.run_until_complete(_end(left, self._grace_s))


async def _end(tasks: set[asyncio.Task[Any]], grace_s: float) -> bool:
    """Whether all have ended. What must not be interrupted is waited for first."""
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
    """For the block, the signal of a time limit cancels the task under way; raised again when that has ended."""

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
        """Raises what the signal's own handler raises."""
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

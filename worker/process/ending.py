"""How a process ends when it is told to: at once, unless it waits for an answer that exists nowhere else yet.

A worker that loses its broker terminates the tasks that will be delivered again. A refresh among them may have rotated
a token whose answer is on its way; its deadline is short, so the end waits for it.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

# SIGTERM is remapped to SIGQUIT, which Celery then sends to its pool.
_SIGNALS = (signal.SIGTERM, signal.SIGQUIT)

_unfinished = 0
_hurried = False
_asked: signal.Signals | None = None
_before: dict[signal.Signals, Callable[[int, FrameType | None], Any] | int | None] = {}


@contextmanager
def unfinished() -> Iterator[None]:
    """Within the block an end that is asked for waits; elsewhere than in the main thread it does nothing."""
    global _unfinished
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    if _unfinished == 0:
        _take_over()
    _unfinished += 1
    try:
        yield
    finally:
        _unfinished -= 1
        if _unfinished == 0:
            _hand_back()


def is_near() -> bool:
    """Whether the end was asked for, or time is up: nothing new should begin."""
    return _hurried or _asked is not None


def is_held_up() -> bool:
    """Whether something is under way that must not be interrupted."""
    return _unfinished > 0


def hurry() -> None:
    """Time is up: what is under way may end, and should begin nothing new."""
    global _hurried
    _hurried = _unfinished > 0


def _take_over() -> None:
    # Each time anew: the pool sets its own handlers after everything that we could hook into.
    for number in _SIGNALS:
        _before[number] = signal.signal(number, _note)


def _hand_back() -> None:
    global _asked, _hurried
    _hurried = False
    for number, handler in _before.items():
        signal.signal(number, signal.SIG_DFL if handler is None else handler)
    asked, _asked = _asked, None
    if asked is not None:
        signal.raise_signal(asked)


def _note(number: int, frame: FrameType | None) -> None:
    global _asked
    _asked = signal.Signals(number)

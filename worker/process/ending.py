"""Delays the end of a process while it waits for an answer that must not be lost; otherwise a process ends at once.

A worker that loses its broker terminates the tasks that will be delivered again. One of these may be a refresh that has
rotated a token and whose answer has not arrived yet. Its deadline is short, so the process waits for it before it ends.
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
    """Within the block, a request to end the process waits. Outside of the main thread, this does nothing."""
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
    """Whether the process was asked to end, or the time limit has passed. Then nothing new should begin."""
    return _hurried or _asked is not None


def is_held_up() -> bool:
    """Whether work is running that must not be interrupted."""
    return _unfinished > 0


def hurry() -> None:
    """Records that the time limit has passed: running work may finish, and nothing new should begin."""
    global _hurried
    _hurried = _unfinished > 0


def _take_over() -> None:
    # The handlers are set each time, because the pool sets its own ones later than any hook of ours can run.
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

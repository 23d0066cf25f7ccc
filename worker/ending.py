"""How a pool process ends when it is told to: at once, unless it waits for an answer that will exist nowhere else.

A worker that loses its broker terminates the tasks that will be delivered again. A refresh among them may have rotated
a token whose answer is on its way; its deadline is short, so the end waits for it.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

Handler = Callable[[int, FrameType | None], Any] | int

# SIGTERM is remapped to SIGQUIT, which Celery then sends to its pool.
_SIGNALS = (signal.SIGTERM, signal.SIGQUIT)

_unfinished = 0
_asked: signal.Signals | None = None
_handlers: dict[signal.Signals, Callable[[int, FrameType | None], Any] | int | None] = dict.fromkeys(
    _SIGNALS, signal.SIG_DFL
)


def wait_for_answers() -> None:
    """Makes the signals that end this process wait for `unfinished` blocks."""
    global _unfinished, _asked
    _unfinished, _asked = 0, None  # what a parent had begun is not ours
    for number in _SIGNALS:
        before = signal.getsignal(number)
        if before is not _ask:
            _handlers[number] = signal.SIG_DFL if before is None else before
        signal.signal(number, _ask)


@contextmanager
def unfinished() -> Iterator[None]:
    """Within the block an end that is asked for waits."""
    global _unfinished
    _unfinished += 1
    try:
        yield
    finally:
        _unfinished -= 1
        _end_if_asked()


def is_near() -> bool:
    """Whether the end was asked for: nothing new should begin."""
    return _asked is not None


def _ask(number: int, frame: FrameType | None) -> None:
    global _asked
    _asked = signal.Signals(number)
    _end_if_asked()


def _end_if_asked() -> None:
    if _asked is not None and not _unfinished:
        signal.signal(_asked, _handlers[_asked])
        signal.raise_signal(_asked)

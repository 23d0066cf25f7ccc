"""Waiting for a condition instead of sleeping."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PATIENCE_S = 120.0
"""How long anything is waited for that must happen. It costs nothing where all is well."""


def wait_for(condition: Callable[[], T], *, seconds: float = PATIENCE_S, what: str = "", every: float = 0.02) -> T:
    """Asks until the answer is true.

    Returns:
        That answer.

    Raises:
        AssertionError: it never was; names `what` and the last answer.
    """
    deadline = time.monotonic() + seconds
    while True:
        answer = condition()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"waited {seconds:g} s for {what or condition}; last answer: {answer!r}"
        time.sleep(every)

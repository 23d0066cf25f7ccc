"""Where coverage looks and where it need not: Python 3.11 runs all code twice as slowly while it is traced."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def traced_by(tracer: Any) -> Iterator[None]:
    """Traces this thread with `tracer` for a while, or not at all with None."""
    before = sys.gettrace()
    sys.settrace(tracer)
    try:
        yield
    finally:
        sys.settrace(before)


def untraced() -> Any:
    """For helpers of the tests that run much of libraries and nothing of the product; a decorator too."""
    return traced_by(None)

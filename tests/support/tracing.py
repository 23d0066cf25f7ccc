"""Where coverage looks and where it need not: Python 3.11 runs all code twice as slowly while it is traced."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from coverage import Coverage

_CONFIGURATION = Path(__file__).parents[2] / "pyproject.toml"  # imports none of ours: coverage has not begun


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


def counting(name: str) -> list[str]:
    """Arguments of Python that make a process count its lines, when this session does; nothing when it does not.

    The session adds what the process has written, if it has ended by then.

    Args:
        name: of the process; at most one of that name at a time.
    """
    if Coverage.current() is None:
        return []
    of_session = os.environ.get("COVERAGE_FILE", ".coverage")
    return ["-m", "coverage", "run", f"--data-file={of_session}.{name}", f"--rcfile={_CONFIGURATION}"]

"""Loggers that import structlog only for their first line: that takes 70 ms, and most commands log nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cached_property
from typing import Any

_prepare: Callable[[], None] | None = None


class Logger:
    """A logger of structlog, made when something is logged: `log.info("event", key=value)`.

    Args:
        name: the module's name, which the lines show.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    @cached_property
    def _made(self) -> Any:
        import structlog

        if _prepare is not None and not structlog.is_configured():
            _prepare()
        return structlog.get_logger(self._name)

    def __getattr__(self, level: str) -> Any:
        """The method that logs at this level."""
        return getattr(self._made, level)


def before_first_line(prepare: Callable[[], None]) -> None:
    """Has `prepare` configure structlog: at once if it is imported already, else when something is logged."""
    global _prepare
    if "structlog" in sys.modules:
        prepare()
    else:
        _prepare = prepare

"""Structured logs: JSON in production, coloured text in a terminal, secrets masked in both.

Every line passes the same processors, whether structlog, Celery or a library wrote it. Values bound with
`structlog.contextvars` (task, attempt, provider, run) are on all lines of that context. Tracebacks show no local
variables, and their messages are redacted like everything else.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from worker.settings.parts import ProcessPart
from worker.telemetry.redaction import redact_value
from worker.text.plain_text import visible

# Below WARNING, these loggers write nothing that operators need; at DEBUG, they write whole rows and messages.
_QUIET = (
    "httpx",
    "httpcore",
    "aiohttp",
    "asyncio",
    "tornado.access",
    "opentelemetry",
    "sqlalchemy",
    "kombu",
    "amqp",
    "redis",
)
_AS_THEY_ARE = {"timestamp", "level", "logger"}
_MANY_LINES = {"event", "exception", "stack"}


def configure_logging(settings: ProcessPart) -> None:
    """Sends structlog, the standard library's loggers, warnings and uncaught errors to standard error."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = SafeHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, add_task_of_record],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.StackInfoRenderer(),
                structlog.processors.format_exc_info,
                redact_event,
                *_renderers(settings),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level)
    for noisy in _QUIET:
        logging.getLogger(noisy).setLevel(logging.WARNING)
    logging.captureWarnings(capture=True)
    sys.excepthook = log_uncaught


def _renderers(settings: ProcessPart) -> tuple[Processor, ...]:
    if settings.log_format == "json":
        return (structlog.processors.JSONRenderer(),)
    colours = sys.stderr.isatty()
    return (
        _spell_out,
        structlog.dev.ConsoleRenderer(colors=colours, exception_formatter=structlog.dev.plain_traceback),
    )


def _spell_out(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Escapes control characters that a terminal would obey. JSON does this itself; the console format does not."""
    return {
        name: visible(value, lines=name in _MANY_LINES) if isinstance(value, str) else value
        for name, value in event.items()
    }


def redact_event(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Masks secrets in all values of a line."""
    return {name: value if name in _AS_THEY_ARE else redact_value(value, name) for name, value in event.items()}


def add_task_of_record(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Adds the task to Celery's own lines ("received", "succeeded", "raised"), which have it in the record's `data`."""
    data = getattr(event.get("_record"), "data", None)
    if isinstance(data, dict) and "id" in data:
        event.setdefault("task_id", data["id"])
        event.setdefault("task", data.get("name"))
    return event


def write_json_line(message: str, file: TextIO | None = None) -> None:
    """Writes a line without a logger; replaces Celery's printing in signal handlers, where a logger could deadlock.

    Args:
        message: the message as plain text.
        file: where Celery would print it; ignored, because the log goes to standard error.
    """
    now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    line = {"event": message.strip(), "logger": "celery", "level": "info", "timestamp": now}
    os.write(2, f"{json.dumps(line)}\n".encode())


class SafeHandler(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes to standard error. If a line cannot be formatted, its arguments are not printed."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's own name
        """Reports a line that cannot be formatted. The standard library's method would print the arguments unmasked."""
        error = sys.exc_info()[0]
        name = error.__name__ if error else "unknown"
        sys.stderr.write(f"a log line of {record.name} ({record.pathname}:{record.lineno}) was lost: {name}\n")


def log_uncaught(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """Logs an uncaught error, redacted; used as `sys.excepthook`."""
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, traceback)
        return
    exc_info: Any = (kind, error, traceback)
    structlog.get_logger("worker").critical("uncaught_error", exc_info=exc_info)

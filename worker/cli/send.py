"""Sending tasks by hand: the same ones that beat sends."""

from __future__ import annotations

from typing import Any

from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from worker.app import app
from worker.errors import Unavailable


def send(task: str, *args: Any, **kwargs: Any) -> str:
    """Sends one task.

    Returns:
        The message's id.

    Raises:
        Unavailable: Redis is out of reach; nothing was sent.
    """
    try:
        return str(app.send_task(task, args=args, kwargs=kwargs).id)
    except (OperationalError, RedisError, OSError) as error:
        raise Unavailable(f"Redis: {type(error).__name__}; what is due stays due, and the schedule takes it") from error


def ping_workers(*, seconds: float) -> list[str]:
    """Names of the workers that answer within so many seconds.

    Raises:
        Unavailable: Redis is out of reach.
    """
    try:
        return sorted(name for answer in app.control.ping(timeout=seconds) for name in answer)
    except (OperationalError, RedisError, OSError) as error:
        raise Unavailable(f"Redis: {type(error).__name__}") from error

"""Sending tasks by hand, the same ones that beat sends; asking Redis and the workers how they are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from worker.app import app
from worker.errors import Unavailable
from worker.models.fleet import Broker
from worker.process.redis_client import connect
from worker.process.redis_names import QUEUES
from worker.settings import get_settings

_SECONDS = 3.0


@contextmanager
def impatient_redis() -> Iterator[redis.Redis]:
    """A client that asks once: a person waits, and the schedule does its own retrying.

    Raises:
        Unavailable: Redis is out of reach, now or within the block.
    """
    client = connect(get_settings().redis_url.get_secret_value(), seconds=_SECONDS, retries=0)
    try:
        with client:
            client.ping()
            yield client
    except (OperationalError, RedisError, OSError) as error:
        raise Unavailable(f"Redis: {type(error).__name__}; what is due stays due") from error


def send(task: str, *args: Any, **kwargs: Any) -> str:
    """Sends one task.

    Returns:
        The message's id.

    Raises:
        Unavailable: Redis is out of reach; nothing was sent.
    """
    with impatient_redis():
        # Asking for a result would first wait for the result store, at length.
        return str(app.send_task(task, args=args, kwargs=kwargs, ignore_result=True, retry=False).id)


def ping_workers(*, seconds: float) -> list[str]:
    """Names of the workers that answer within so many seconds.

    Raises:
        Unavailable: Redis is out of reach.
    """
    with impatient_redis():
        return sorted(name for answer in app.control.ping(timeout=seconds) for name in answer)


def ask_broker(*, seconds: float) -> Broker:
    """Backlogs, and the workers that answer within so many seconds."""
    try:
        with impatient_redis() as client:
            backlog = {queue: int(client.llen(queue)) for queue in QUEUES}
            in_flight = int(client.hlen("unacked"))
        return Broker(True, backlog, in_flight, ping_workers(seconds=seconds))
    except Unavailable:
        return Broker(False, {}, None, [])

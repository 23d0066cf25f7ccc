"""Sends tasks by hand (the same ones that beat sends), and asks Redis and the workers for their state.

It has its own Celery application without tasks, so that a command need not import everything that workers import.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import redis
from celery import Celery
from kombu.exceptions import OperationalError
from redis.exceptions import AuthenticationError, RedisError
from redis.exceptions import TimeoutError as RedisTimeout

from worker.errors import Unavailable
from worker.models.fleet import Broker
from worker.process.redis_client import connect
from worker.process.redis_names import QUEUES
from worker.settings import get_settings
from worker.settings.celery import celery_settings

_SECONDS = 3.0
_SEPARATOR = "\x06\x16"

sender = Celery("dashtam", set_as_current=False)
sender.add_defaults(lambda: celery_settings(get_settings()))


@contextmanager
def impatient_redis() -> Iterator[redis.Redis]:
    """A Redis client that does not retry: a person is waiting, and the schedule sends the same work again anyway.

    Raises:
        Unavailable: Redis is out of reach, at the start or inside the `with` block.
    """
    client = connect(get_settings().redis_url.get_secret_value(), seconds=_SECONDS, retries=0)
    try:
        with client:
            client.ping()
            yield client
    except (OperationalError, RedisError, OSError) as error:
        place = urlsplit(get_settings().redis_url.get_secret_value())
        raise _unavailable(f"{place.hostname}:{place.port or 6379}", error) from error


def _unavailable(place: str, error: Exception) -> Unavailable:
    """The error for an operation on Redis, or on another broker, that failed."""
    kept = "pending work is kept"
    if isinstance(error, OperationalError):  # kombu's own connection
        return Unavailable(f"the broker cannot be asked ({error.__cause__ or type(error).__name__}); {kept}")
    if isinstance(error, AuthenticationError):
        return Unavailable(f"Redis at {place} refuses the password of REDIS_URL; {kept}")
    if isinstance(error, RedisTimeout):
        told = f"Redis at {place} did not answer within {_SECONDS:g} s; {kept}"
        return Unavailable(told, server="redis", silent=True)
    if "refused" in str(error):
        return Unavailable(f"Redis does not run at {place}; {kept}", server="redis")
    return Unavailable(f"Redis at {place}: {type(error).__name__}; {kept}", server="redis")


def send(task: str, *args: Any, **kwargs: Any) -> str:
    """Sends one task.

    Returns:
        The message's id.

    Raises:
        Unavailable: Redis is out of reach; nothing was sent.
    """
    with impatient_redis():
        # ignore_result: else Celery would first try to reach a result store, and wait for it.
        sent = sender.send_task(
            task, args=args, kwargs=kwargs, headers={"published_at": time.time()}, ignore_result=True, retry=False
        )
        return str(sent.id)


def ping_workers(*, seconds: float) -> list[str]:
    """Names of the workers that answer within `seconds`.

    Raises:
        Unavailable: Redis is out of reach.
    """
    with impatient_redis() as client:
        answers = sender.control.ping(timeout=seconds, limit=_listening(client))
    return sorted(name for answer in answers for name in answer)


def _listening(client: redis.Redis) -> int | None:
    """How many workers will answer, so that the caller can stop waiting when all of them have answered.

    Read from the entries that kombu keeps in Redis for each worker. None when they do not include a worker of each
    queue: Redis was emptied, the workers have names of another form, or the broker is not this Redis.
    """
    bound = client.smembers(f"_kombu.binding.{sender.control.mailbox.namespace}.pidbox")
    names = [str(member, "utf-8").rpartition(_SEPARATOR)[2] for member in bound if isinstance(member, bytes)]
    complete = all(any(name.startswith(f"{queue}@") for name in names) for queue in QUEUES)
    return len(names) if complete else None


class AskedOnce:
    """A transport that asks the workers once, for a command that needs their answer twice.

    Args:
        seconds: how long to wait for the workers' answers.
    """

    impatient_redis = staticmethod(impatient_redis)

    def __init__(self, *, seconds: float) -> None:
        self._seconds = seconds
        self._names: list[str] | None = None

    def ping_workers(self, *, seconds: float) -> list[str]:
        """Names of the workers that answered; see `ping_workers`."""
        if self._names is None:
            self._names = ping_workers(seconds=self._seconds)
        return self._names

    def broker(self) -> Broker:
        """Length of each queue, and names of the workers that answered."""
        try:
            with impatient_redis() as client:
                backlog = {queue: int(client.llen(queue)) for queue in QUEUES}
                in_flight = int(client.hlen("unacked"))
            return Broker(True, backlog, in_flight, self.ping_workers(seconds=self._seconds))
        except Unavailable:
            return Broker(False, {}, None, [])

"""Sends tasks by hand (the same ones that beat sends), and asks Redis, the broker and the workers for their state.

It has its own Celery application without tasks, so that a command need not import everything that workers import.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import redis
from celery import Celery
from kombu.exceptions import OperationalError
from redis.exceptions import AuthenticationError, RedisError
from redis.exceptions import TimeoutError as RedisTimeout
from redis.sentinel import MasterNotFoundError

from worker.errors import ConfigurationError, Unavailable
from worker.models.fleet import Broker
from worker.process import redis_address
from worker.process.redis_address import RedisAddress
from worker.process.redis_client import connect, lengths_in_redis
from worker.process.redis_names import QUEUES, Lengths
from worker.settings import get_settings
from worker.settings.celery import celery_settings, rabbitmq

if TYPE_CHECKING:
    from worker.process.rabbitmq import RabbitMQ

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
    url = get_settings().redis_url.get_secret_value()
    try:
        with connect(url, seconds=_SECONDS, retries=0) as client:
            client.ping()
            yield client
    except (OperationalError, RedisError, OSError) as error:
        raise _unavailable(redis_address.parse(url), error) from error


@contextmanager
def _broker() -> Iterator[redis.Redis | None]:
    """A block in which tasks can be sent; with Redis as broker, its client.

    Raises:
        ConfigurationError: RabbitMQ refuses the user, the password or the virtual host.
        Unavailable: the broker is out of reach, at the start or inside the block.
    """
    broker = other_broker()
    if broker is None:
        with impatient_redis() as client:
            yield client
    else:
        with broker.telling():
            yield None


def other_broker() -> RabbitMQ | None:
    """The RabbitMQ that has the queues; None if Redis has them."""
    return rabbitmq(get_settings(), seconds=_SECONDS)


def _unavailable(address: RedisAddress, error: Exception) -> Unavailable:
    """The error for an operation on Redis that failed."""
    kept, place = "pending work is kept", address.place
    if isinstance(error, OperationalError):  # kombu's own connection
        return Unavailable(f"the broker cannot be asked ({error.__cause__ or type(error).__name__}); {kept}")
    if isinstance(error, MasterNotFoundError):
        hosts = place.partition("Sentinels ")[2]
        what = f"know no primary {address.master!r} that works"
        if str(error).count(" - ") >= len(address.hosts):  # redis-py adds one for each Sentinel that it did not reach
            what = "do not answer"
        return Unavailable(f"Redis: the Sentinels {hosts} {what}; {kept}", server="redis")
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
        ConfigurationError: RabbitMQ refuses the user, the password or the virtual host; nothing was sent.
        Unavailable: the broker is out of reach; nothing was sent.
    """
    with _broker():
        # ignore_result: else Celery would first try to reach a result store, and wait for it.
        sent = sender.send_task(
            task, args=args, kwargs=kwargs, headers={"published_at": time.time()}, ignore_result=True, retry=False
        )
        return str(sent.id)


def ping_workers(*, seconds: float) -> list[str]:
    """Names of the workers that answer within `seconds`.

    Raises:
        ConfigurationError: RabbitMQ refuses the user, the password or the virtual host.
        Unavailable: the broker is out of reach.
    """
    with _broker() as client:
        answers = sender.control.ping(timeout=seconds, limit=None if client is None else _listening(client))
    return sorted(name for answer in answers for name in answer)


def _listening(client: redis.Redis) -> int | None:
    """How many workers will answer, so that the caller can stop waiting when all of them have answered.

    Read from the entries that kombu keeps in Redis for each worker. None when they do not include a worker of each
    queue: Redis was emptied, or the workers have names of another form.
    """
    bound = client.smembers(f"_kombu.binding.{sender.control.mailbox.namespace}.pidbox")
    names = [str(member, "utf-8").rpartition(_SEPARATOR)[2] for member in bound if isinstance(member, bytes)]
    complete = all(any(name.startswith(f"{queue}@") for name in names) for queue in QUEUES)
    return len(names) if complete else None


def queue_lengths() -> Lengths:
    """How many messages the broker holds.

    Raises:
        ConfigurationError: RabbitMQ refuses the user, the password or the virtual host.
        Unavailable: the broker is out of reach.
    """
    if (broker := other_broker()) is not None:
        return broker.lengths()
    with impatient_redis() as client:
        return lengths_in_redis(client)


class AskedOnce:
    """A transport that asks the workers once, for a command that needs their answer twice.

    Args:
        seconds: how long to wait for the workers' answers.
    """

    impatient_redis = staticmethod(impatient_redis)
    other_broker = staticmethod(other_broker)
    queue_lengths = staticmethod(queue_lengths)

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
        kind = "Redis" if other_broker() is None else "RabbitMQ"
        try:
            found = queue_lengths()
            return Broker(True, found.waiting, found.in_flight, self.ping_workers(seconds=self._seconds), kind)
        except (ConfigurationError, Unavailable):
            return Broker(False, {}, None, [], kind)

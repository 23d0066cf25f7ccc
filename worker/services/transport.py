"""How services reach Redis, the broker and the workers: `worker.tasks.send` has what these protocols ask for."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

import redis

from worker.process.redis_names import Lengths


class OtherBroker(Protocol):
    """A RabbitMQ. Its method raises `Unavailable` when it is out of reach."""

    def require_queues(self) -> str:
        """Makes the queues that are missing; returns the server's name and version."""
        ...


class Transport(Protocol):
    """How to reach Redis, the broker and the workers. Methods raise `Unavailable` when these are out of reach."""

    def impatient_redis(self) -> AbstractContextManager[redis.Redis]:
        """A Redis client that does not retry."""
        ...

    def other_broker(self) -> OtherBroker | None:
        """The RabbitMQ that has the queues; None if Redis has them."""
        ...

    def queue_lengths(self) -> Lengths:
        """How many messages the broker holds."""
        ...

    def ping_workers(self, *, seconds: float) -> list[str]:
        """Names of the workers that answer within `seconds`."""
        ...

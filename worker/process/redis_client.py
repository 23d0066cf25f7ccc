"""Clients of Redis: how long they wait, and when they ask again."""

from __future__ import annotations

import redis
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as ConnectionLost
from redis.maint_notifications import MaintNotificationsConfig
from redis.retry import Retry


def connect(url: str, *, seconds: float, retries: int = 1) -> redis.Redis:
    """A client that waits at most `seconds` for an answer.

    A connection that was lost is replaced, and the question asked again, `retries` times. A Redis that says nothing is
    asked once: by itself redis-py would ask again and again, with pauses, for half a minute. Nor does it ask each new
    connection for notifications that only some servers know, and log that this one does not.
    """
    return redis.Redis.from_url(
        url,
        socket_timeout=seconds,
        socket_connect_timeout=seconds,
        health_check_interval=10,
        maint_notifications_config=MaintNotificationsConfig(enabled=False),
        retry=Retry(NoBackoff(), retries, supported_errors=(ConnectionLost,)),
    )

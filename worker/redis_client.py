"""Clients of Redis: how long they wait, and how often they ask again."""

from __future__ import annotations

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry


def connect(url: str, *, seconds: float, retries: int = 1) -> redis.Redis:
    """A client that waits at most `seconds` for each answer, and asks `retries` times more.

    One more is for a connection that was opened before and has ended since. By itself redis-py asks four times, with
    pauses, so that a Redis that says nothing would be waited for half a minute.
    """
    return redis.Redis.from_url(
        url,
        socket_timeout=seconds,
        socket_connect_timeout=seconds,
        health_check_interval=10,
        retry=Retry(NoBackoff(), retries),
    )

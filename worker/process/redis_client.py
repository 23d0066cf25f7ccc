"""Makes Redis clients with a time limit for answers and a number of retries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import redis
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as ConnectionLost
from redis.maint_notifications import MaintNotificationsConfig
from redis.retry import Retry

from worker.process.redis_address import RedisAddress, parse
from worker.process.redis_names import QUEUES, Lengths

if TYPE_CHECKING:
    from redis.asyncio import ConnectionPool as AsyncPool

_UNACKED = "unacked"
"""The hash in which kombu keeps the messages that workers have taken."""


def connect(url: str, *, seconds: float, retries: int = 1) -> redis.Redis:
    """A client that waits at most `seconds` for an answer.

    If a connection is lost, the client opens a new one and repeats the command, up to `retries` times. If Redis does
    not answer in time, the command is not repeated; redis-py's default would repeat it, with pauses, for half a minute.
    The client also does not ask for maintenance notifications on each new connection: only some servers support them,
    and redis-py would log that the others do not.

    Behind Sentinels, each new connection first asks them which server is the primary. A connection to a server that is
    no longer the primary is closed.
    """
    limits: dict[str, Any] = {
        "socket_timeout": seconds,
        "socket_connect_timeout": seconds,
        "health_check_interval": 10,
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
        "retry": Retry(NoBackoff(), retries, supported_errors=(ConnectionLost,)),
    }
    address = parse(url)
    if not address.has_sentinels:
        return redis.Redis.from_url(url, **limits)
    from redis.sentinel import Sentinel

    nodes: Any = Sentinel(  # type: ignore[no-untyped-call, unused-ignore]
        address.hosts, sentinel_kwargs={**limits, **login_of_sentinels(address)}
    )
    client: redis.Redis = nodes.master_for(address.master, redis.Redis, **limits, **login_of_redis(address))
    return client


def async_pool(url: str, *, seconds: float) -> AsyncPool:
    """Connections for an event loop, which wait at most `seconds` for an answer."""
    from redis import asyncio as redis_asyncio
    from redis.asyncio.sentinel import Sentinel

    limits: dict[str, Any] = {"socket_timeout": seconds, "socket_connect_timeout": seconds}
    address = parse(url)
    if not address.has_sentinels:
        return redis_asyncio.ConnectionPool.from_url(url, **limits)
    nodes: Any = Sentinel(  # type: ignore[no-untyped-call, unused-ignore]
        address.hosts, sentinel_kwargs={**limits, **login_of_sentinels(address)}
    )
    primary = nodes.master_for(address.master, **limits, **login_of_redis(address))
    pool: AsyncPool = primary.connection_pool
    return pool


def lengths_in_redis(client: redis.Redis) -> Lengths:
    """How many messages a Redis holds that is the broker.

    Raises:
        RedisError: it cannot be asked.
    """
    with client.pipeline(transaction=False) as pipeline:
        ask_lengths(pipeline)
        return told_lengths(pipeline.execute())


def ask_lengths(pipeline: Any) -> None:
    """Adds the questions for `told_lengths` to a pipeline."""
    for queue in QUEUES:
        pipeline.llen(queue)
    pipeline.hlen(_UNACKED)


def told_lengths(answers: Sequence[int]) -> Lengths:
    """The answers to the questions of `ask_lengths`."""
    *waiting, in_flight = answers
    return Lengths(dict(zip(QUEUES, waiting, strict=True)), in_flight)


def login_of_sentinels(address: RedisAddress) -> dict[str, Any]:
    """How to connect to the Sentinels, with redis-py's names."""
    return {**address.sentinel_login(), **_tls(address)}


def login_of_redis(address: RedisAddress) -> dict[str, Any]:
    """How to connect to the primary, with redis-py's names."""
    login = {"username": address.user, "password": address.password}
    return {"db": address.database, **{name: value for name, value in login.items() if value}, **_tls(address)}


def _tls(address: RedisAddress) -> dict[str, Any]:
    return {"ssl": True, **address.tls} if address.is_encrypted else {}

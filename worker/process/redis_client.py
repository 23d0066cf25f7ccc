"""Makes Redis clients with a time limit for answers and a number of retries."""

from __future__ import annotations

import redis
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as ConnectionLost
from redis.maint_notifications import MaintNotificationsConfig
from redis.retry import Retry


def connect(url: str, *, seconds: float, retries: int = 1) -> redis.Redis:
    """A client that waits at most `seconds` for an answer.

    If a connection is lost, the client opens a new one and repeats the command, up to `retries` times. If Redis does
    not answer in time, the command is not repeated; redis-py's default would repeat it, with pauses, for half a minute.
    The client also does not ask for maintenance notifications on each new connection: only some servers support them,
    and redis-py would log that the others do not.
    """
    return redis.Redis.from_url(
        url,
        socket_timeout=seconds,
        socket_connect_timeout=seconds,
        health_check_interval=10,
        maint_notifications_config=MaintNotificationsConfig(enabled=False),
        retry=Retry(NoBackoff(), retries, supported_errors=(ConnectionLost,)),
    )

"""Tasks that exist in tests alone: they tell when they run, wait to be let go, or end their process.

A worker has them with the option `--include tests.support.probe_tasks`. What they say goes to the session's Redis.
"""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from celery.worker.control import control_command
from redis import Redis, RedisError

from worker.app import app
from worker.process.sign_of_life import EVERY_S
from worker.runtime import get_runtime
from worker.settings import QueueSettings, load
from worker.tasks.base import WorkerTask

_HELD_SECONDS = 30.0

SHORT = {"VISIBILITY_TIMEOUT": "3", "TASK_TIME_LIMIT": "2", "TASK_SOFT_TIME_LIMIT": "1"}
"""As short as whole seconds allow: a message that nobody acknowledged may come back after three."""


def invisible_for(redis: Redis) -> float:
    """Seconds since the oldest message was taken and not acknowledged."""
    oldest = redis.zrange("unacked_index", 0, 0, withscores=True)
    return time.time() - oldest[0][1] if oldest else 0.0


def starts(redis: Redis, key: str) -> list[tuple[int, bool]]:
    """Each start of a probe: the process that ran it, and whether the message said that it was delivered before."""
    entries = [str(entry).partition(":") for entry in redis.lrange(f"{key}:starts", 0, -1)]
    return [(int(pid), redelivered == "1") for pid, _, redelivered in entries]


def ends(redis: Redis, key: str) -> int:
    """How often it came to its end."""
    return int(redis.llen(f"{key}:ends"))


@app.task(base=WorkerTask, bind=True, name="worker.tasks.upkeep.probe")
def probe(self: Any, key: str, *, hold: bool = False, die: bool = False) -> None:
    """Notes a start under `key`, perhaps ends its process or waits for `{key}:go`, and notes its end."""
    redis = get_runtime().redis
    redis.rpush(f"{key}:starts", f"{os.getpid()}:{int(bool(self.request.delivery_info.get('redelivered')))}")
    if die:
        os.kill(os.getpid(), signal.SIGKILL)
    deadline = time.monotonic() + _HELD_SECONDS
    while hold and time.monotonic() < deadline and not _let_go(redis, key):
        time.sleep(0.02)
    redis.rpush(f"{key}:ends", os.getpid())


def _let_go(redis: Redis, key: str) -> bool:
    try:
        return bool(redis.exists(f"{key}:go"))
    except RedisError:  # it may be down: that is what some tests are about
        return False


@control_command(args=[("key", str)])  # type: ignore[untyped-decorator, unused-ignore]
def hang(state: Any, key: str) -> None:
    """Holds up the main loop of the worker for longer than it may wait between two signs of life.

    Then notes under `key` whether the worker's file was `touched` or `untouched` in that time.
    """
    alive = load(QueueSettings).alive_file
    assert alive is not None
    os.utime(alive, (0, 0))
    time.sleep(1.2 * EVERY_S)
    get_runtime().redis.rpush(key, "touched" if alive.stat().st_mtime else "untouched")

"""Messages that nobody should send: the worker lives or is started again, and what is due is still worked."""

from __future__ import annotations

import base64
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from celery import Celery
from pytest_celery import CeleryTestWorker
from redis import Redis

from tests.support.celery_fixtures import SendProbe
from tests.support.probe_tasks import ends
from tests.support.waiting import wait_for

pytestmark = pytest.mark.deep

IDS: list[Any] = [
    ["../../x"],
    ["-1"],
    [-1],
    [None],
    [{"id": 1}],
    [str(uuid4())],
    [],
    "not a list",
    ["'; DROP TABLE users"],
]


class Exploit:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.path),)


def envelope(task: str, body: bytes, content_type: str = "application/json") -> str:
    """A message as it lies in the queue's list."""
    task_id = uuid4().hex
    return json.dumps(
        {
            "body": base64.b64encode(body).decode(),
            "content-encoding": "binary" if "python" in content_type else "utf-8",
            "content-type": content_type,
            "headers": {"lang": "py", "task": task, "id": task_id, "root_id": task_id, "retries": 0},
            "properties": {
                "correlation_id": task_id,
                "delivery_mode": 2,
                "delivery_info": {"exchange": "", "routing_key": "upkeep"},
                "priority": 0,
                "body_encoding": "base64",
                "delivery_tag": uuid4().hex,
            },
        }
    )


def test_unknown_task_is_refused_and_the_next_one_done(
    celery_worker: CeleryTestWorker, celery_application: Celery, redis: Redis, send_probe: SendProbe
) -> None:
    celery_application.send_task("worker.tasks.upkeep.no_such_task")

    key = send_probe()

    wait_for(lambda: ends(redis, key), what="the next task")
    celery_worker.assert_log_exists("unregistered task")


def test_pickled_message_is_refused_without_being_read(
    celery_worker: CeleryTestWorker, redis: Redis, send_probe: SendProbe, tmp_path: Path
) -> None:
    made = tmp_path / "made-by-pickle"
    body = pickle.dumps(((Exploit(made),), {}, {}))
    redis.lpush("upkeep", envelope("worker.tasks.upkeep.probe", body, "application/x-python-serialize"))

    key = send_probe()

    wait_for(lambda: ends(redis, key), what="the next task")
    assert not made.exists()


@pytest.mark.parametrize("task", ["tokens.refresh_providers", "accounts.sync_providers"])
def test_ids_that_are_none_harm_nobody(
    celery_worker: CeleryTestWorker, celery_application: Celery, redis: Redis, send_probe: SendProbe, task: str
) -> None:
    for ids in IDS:
        celery_application.send_task(f"worker.tasks.{task}", (ids,))
    celery_application.send_task(f"worker.tasks.{task}", ([],), {"surprise": True})
    celery_application.send_task(f"worker.tasks.{task}", ())

    key = send_probe()

    wait_for(lambda: ends(redis, key), what="the next task")
    wait_for(lambda: redis.llen("refresh") + redis.llen("sync") + redis.hlen("unacked") == 0, what="empty queues")
    assert celery_worker.container.status == "running"


def test_ten_megabytes_of_arguments_are_borne(
    celery_worker: CeleryTestWorker, celery_application: Celery, redis: Redis, send_probe: SendProbe
) -> None:
    celery_application.send_task("worker.tasks.tokens.refresh_providers", (["x" * 10_000_000],))

    key = send_probe()

    wait_for(lambda: ends(redis, key), what="the next task")
    wait_for(lambda: redis.llen("refresh") + redis.hlen("unacked") == 0, what="empty queues")
    assert "x" * 1000 not in celery_worker.logs()

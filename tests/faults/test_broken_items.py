"""Items in a queue's list that are no messages at all: started again, a worker does what is due."""

from __future__ import annotations

from uuid import UUID

from celery import Celery
from redis import Redis

from tests.support.celery_fixtures import SendProbe, StartWorker
from tests.support.fixtures import LinkedProvider
from tests.support.probe_tasks import ends
from tests.support.waiting import wait_for
from worker.models import ProviderToken
from worker.runtime import Runtime


def test_worker_started_again_after_broken_items_refreshes_what_is_due(
    start_worker: StartWorker,
    celery_application: Celery,
    redis: Redis,
    runtime: Runtime,
    refreshed_login: LinkedProvider,
    send_probe: SendProbe,
) -> None:
    worker = start_worker().process
    for item in ("not JSON at all", "{}", '{"body": 1}', "[]", b"\x00\xff"):
        redis.lpush("upkeep", item)
        key = send_probe()
        wait_for(lambda key=key: ends(redis, key) or not worker.running, what=f"the end of {item!r}")
        if not worker.running:  # what the supervisor does
            worker.start()
        wait_for(lambda key=key: ends(redis, key), what=f"the task after {item!r}")

    celery_application.send_task("worker.tasks.tokens.refresh_due")

    wait_for(lambda: _generation(runtime, refreshed_login[0]) == 2, what="the refresh")


def _generation(runtime: Runtime, provider_id: UUID) -> int:
    with runtime.transaction() as session:
        return session.get_one(ProviderToken, provider_id).generation

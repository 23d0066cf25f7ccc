"""What workers do shows up in /metrics: refreshes, calls, syncs, tasks, ticks."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from celery import Celery
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from tests.factories import make_linked_provider
from tests.integration.ops.scraping import Scraped
from tests.support.celery_fixtures import StartWorker
from tests.support.sandbox import SandboxAdmin
from tests.support.waiting import wait_for
from worker.services.encryption import EncryptionService
from worker.settings import ExporterSettings, Settings, load
from worker.telemetry.exporter import Exporter

CALLS = ("dashtam_http_calls_total", "dashtam_http_call_seconds_count", "dashtam_quota_calls_total")


@pytest.fixture
def scrape(settings: Settings, engine: Engine, tmp_path: Path) -> Iterator[Callable[[], Scraped]]:
    exporter = Exporter(load(ExporterSettings, DASHTAM_HOME=tmp_path))
    yield lambda: Scraped(exporter.answer())
    exporter.close()


@pytest.fixture
def linked(engine: Engine, settings: Settings, sandbox: SandboxAdmin) -> UUID:
    """A Schwab login of the sandbox whose token is due."""
    (minted,) = sandbox.mint(sandbox.logins("schwab")[0])
    encryption = EncryptionService(settings.encryption_keys.get_secret_value())
    with Session(engine) as session, session.begin():
        return make_linked_provider(
            session, encryption, access_token=minted.access_token, refresh_token=minted.refresh_token
        ).id


@pytest.mark.deep
def test_refresh_and_sync_are_counted_told_by_the_exporter_and_logged_with_their_context(
    linked: UUID,
    engine: Engine,
    scrape: Callable[[], Scraped],
    start_worker: StartWorker,
    celery_application: Celery,
    tmp_path: Path,
) -> None:
    worker = start_worker(DASHTAM_HOME=str(tmp_path))
    for task, arguments in (
        ("worker.tasks.tokens.refresh_providers", {"args": [[str(linked)]], "kwargs": {"force": True}}),
        ("worker.tasks.accounts.sync_providers", {"args": [[str(linked)]]}),
    ):
        celery_application.send_task(task, **arguments)
        wait_for(lambda task=task: ended(scrape(), task), every=0.2, what=f"{task} to be counted")

    seen = scrape()

    assert seen("dashtam_refresh_attempts_total", integration="schwab", outcome="refreshed") == 1
    assert seen("dashtam_tokens_refreshed_total", integration="schwab", in_time="yes") == 1
    assert seen("dashtam_refresh_lag_seconds_count", integration="schwab") == 1
    assert seen("dashtam_sync_runs_total", integration="schwab", status="completed") == 1
    assert seen("dashtam_sync_rows_total", integration="schwab", outcome="added") > 0
    assert seen("dashtam_sync_run_seconds_count", integration="schwab") == 1
    assert seen("dashtam_queue_delay_seconds_count", queue="refresh") == 1
    assert seen("dashtam_queue_delay_seconds_count", queue="sync") == 1
    assert seen("dashtam_task_failures_total", task="worker.tasks.accounts.sync_providers") == 0
    for name in CALLS:
        assert sum(sample.value for sample in seen.samples if sample.name == name) >= 3, name

    assert_lines_have_their_context(worker.logs(), linked, engine)
    worker.stop()
    assert scrape()("dashtam_refresh_attempts_total", integration="schwab", outcome="refreshed") == 1


def ended(seen: Scraped, task: str) -> bool:
    return any(sample.name == "dashtam_task_seconds_count" and sample.labels["task"] == task for sample in seen.samples)


def assert_lines_have_their_context(log: str, provider_id: UUID, engine: Engine) -> None:
    lines: list[dict[str, Any]] = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    (line,) = [line for line in lines if line["event"] == "sync_ended"]
    with engine.connect() as connection:
        run_id = connection.execute(text("SELECT id FROM sync_runs")).scalar_one()

    assert (line["provider_id"], line["run_id"]) == (str(provider_id), str(run_id))
    assert (line["task"], line["attempt"]) == ("worker.tasks.accounts.sync_providers", 1)
    assert {other["task"] for other in lines if other.get("task_id") == line["task_id"]} == {line["task"]}

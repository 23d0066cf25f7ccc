"""/metrics tells what operators need, quickly, and says so when a server is away."""

from __future__ import annotations

import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
import redis as redis_client
from pydantic import SecretStr
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from tests.factories import make_linked_provider, make_provider
from tests.integration.ops.conftest import free_port
from tests.integration.ops.scraping import Scraped
from tests.support.environment import new_keys
from tests.support.processes import LocalProcess
from worker.crud import heartbeats, integration_states
from worker.crud.fleet import gauges
from worker.devstack.tether import Tether
from worker.models import TaskFailure
from worker.services.encryption import EncryptionService
from worker.settings import ExporterSettings, Settings, load
from worker.telemetry.exporter import Exporter


@pytest.fixture
def own_settings(settings: Settings, tmp_path: Path) -> ExporterSettings:
    return load(ExporterSettings, DASHTAM_HOME=tmp_path)


@pytest.fixture
def exporter(own_settings: ExporterSettings, engine: Engine, redis: redis_client.Redis) -> Iterator[Exporter]:
    made = Exporter(own_settings)
    yield made
    made.close()


@pytest.mark.deep
def test_fleet_is_counted_by_integration(exporter: Exporter, engine: Engine) -> None:
    now = datetime.now(UTC)
    with Session(engine) as session, session.begin():
        for minutes in (-1, 3, 45):
            make_provider(
                session,
                status="active",
                access_expires_at=now + timedelta(minutes=minutes),
                refresh_due_at=now + timedelta(minutes=minutes - 2),
                refreshed_at=now - timedelta(minutes=10),
                sync_due_at=now - timedelta(seconds=5),
                synced_at=now - timedelta(hours=2),
                grant_expires_at=now + timedelta(hours=12),
            )
        make_provider(session, status="needs_reauth")
        make_provider(session, provider_key="plaid", status="active", synced_at=now)

    seen = Scraped(exporter.answer())

    assert seen("dashtam_up", service="postgres") == 1
    assert seen("dashtam_providers", integration="schwab", status="active") == 3
    assert seen("dashtam_providers", integration="schwab", status="needs_reauth") == 1
    assert seen("dashtam_providers", integration="plaid", status="active") == 1
    assert seen("dashtam_tokens_expiring", integration="schwab", within="0") == 1
    assert seen("dashtam_tokens_expiring", integration="schwab", within="300") == 2
    assert seen("dashtam_refresh_due", integration="schwab") == 1
    assert seen("dashtam_refresh_late", integration="schwab") == 1
    assert 170 < seen("dashtam_refresh_overdue_seconds", integration="schwab") < 200
    assert seen("dashtam_sync_due", integration="schwab") == 3
    assert seen("dashtam_sync_late", integration="schwab") == 0
    assert 595 < seen("dashtam_token_age_seconds", integration="schwab") < 620
    assert 7195 < seen("dashtam_sync_age_seconds", integration="schwab") < 7220
    assert seen("dashtam_providers_synced", integration="schwab", within="3600") == 0
    assert seen("dashtam_providers_synced", integration="schwab", within="21600") == 3
    assert seen("dashtam_grants_ending", integration="schwab") == 3


@pytest.mark.deep
def test_integration_without_logins_reads_zero(exporter: Exporter) -> None:
    seen = Scraped(exporter.answer())

    assert seen("dashtam_providers", integration="plaid", status="active") == 0
    assert seen("dashtam_refresh_overdue_seconds", integration="plaid") == 0
    assert seen("dashtam_breaker_state", integration="plaid", state="closed") == 1


@pytest.mark.deep
def test_states_heartbeats_and_backlogs_are_told(exporter: Exporter, engine: Engine, redis: redis_client.Redis) -> None:
    now = datetime.now(UTC)
    with Session(engine) as session, session.begin():
        heartbeats.beat(session, name="reap", at=now)
        integration_states.pause(session, provider_key="schwab", reason="test", actor="operator:t", now=now)
        session.execute(text("UPDATE integration_states SET breaker = 'open'"))
        session.add(TaskFailure(task_id=str(uuid4()), task_name="t", arguments={}, reason="r", deliveries=3))
    redis.hset("dashtam:journal", "x", "y")

    seen = Scraped(exporter.answer())

    assert seen("dashtam_heartbeat_timestamp_seconds", tick="reap") == pytest.approx(now.timestamp(), abs=0.01)
    assert seen("dashtam_integration_paused", integration="schwab") == 1
    assert seen("dashtam_integration_paused", integration="plaid") == 0
    assert seen("dashtam_breaker_state", integration="schwab", state="open") == 1
    assert seen("dashtam_breaker_state", integration="schwab", state="closed") == 0
    assert seen("dashtam_task_failures_open") == 1
    assert seen("dashtam_queue_depth", queue="refresh") == 0
    assert seen("dashtam_journal_entries") == 1


def test_refresh_is_of_unknown_outcome_until_the_next_generation_or_the_user_s_turn(engine: Engine) -> None:
    def unknown(**change: str) -> int:
        with Session(engine) as session, session.begin():
            for table, assignment in change.items():
                session.execute(text(f"UPDATE {table} SET {assignment}"))  # noqa: S608 - of this test
            return gauges.backlogs(session).unknown_refreshes

    with Session(engine) as session, session.begin():
        make_linked_provider(session, EncryptionService(new_keys("k1")), generation=7)
        session.execute(
            text(
                "INSERT INTO token_refreshes (id, provider_id, generation, status, trigger, lease_owner, started_at)"
                " SELECT gen_random_uuid(), provider_id, generation, 'unknown', 'schedule', gen_random_uuid(), now()"
                " FROM provider_tokens"
            )
        )

    assert unknown() == 1
    assert unknown(providers="status = 'needs_reauth'") == 0
    assert unknown(providers="status = 'active'", provider_tokens="generation = 8") == 0


@pytest.mark.deep
def test_no_label_names_a_provider(exporter: Exporter, engine: Engine) -> None:
    with Session(engine) as session, session.begin():
        provider_id = str(make_provider(session, status="active").id)

    answer = exporter.answer()

    assert provider_id.encode() not in answer
    assert {label for sample in Scraped(answer).samples for label in sample.labels} <= {
        *("integration", "status", "within", "service", "queue", "state", "tick"),
    }


def test_servers_that_are_away_are_said_to_be_and_the_rest_is_answered(tmp_path: Path) -> None:
    settings = load(ExporterSettings, DASHTAM_HOME=tmp_path)  # .env.test names a port where nobody listens

    with closing(Exporter(settings)) as exporter:
        seen = Scraped(exporter.answer())

    assert seen("dashtam_up", service="postgres") == 0
    assert seen("dashtam_up", service="redis") == 0


@pytest.mark.deep
def test_process_answers_over_http_and_stops_when_told(
    server_environment: dict[str, str], engine: Engine, tmp_path: Path, tether: Tether
) -> None:
    port = free_port()
    process = LocalProcess(
        "exporter",
        [sys.executable, "-m", "worker.telemetry.exporter"],
        log=tmp_path / "log",
        env={**server_environment, "DASHTAM_HOME": str(tmp_path), "EXPORTER_PORT": str(port)},
        prompt="exporter_ready",
        tether=tether,
    )
    process.start()
    process.wait_until_ready()

    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
        body = answer.read()
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=60) as answer:
        healthy = answer.status
    with pytest.raises(urllib.error.HTTPError, match="404") as refused:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=60)
    refused.value.close()
    process.stop()

    assert b"dashtam_up" in body
    assert healthy == 200
    assert process.exit_code == 0


def test_exporter_that_is_told_to_count_alone_asks_no_server(own_settings: ExporterSettings) -> None:
    nobody = own_settings.model_copy(
        update={
            "exporter_gauges": False,
            "readonly_database_url": SecretStr("postgresql+psycopg://tests@127.0.0.1:1/none"),
            "redis_url": SecretStr("redis://127.0.0.1:1/0"),
        }
    )

    with closing(Exporter(nobody)) as exporter:
        exporter.connect()
        answer = exporter.answer()

    assert b"dashtam_up" not in answer
    assert b"dashtam_work_waiting" not in answer

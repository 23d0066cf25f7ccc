"""`dashtam doctor` and `dashtam devstack`: each thing that can be wrong is found, and has a mend."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from tests.factories import make_linked_provider
from tests.integration.cli.conftest import json_of
from tests.support.command_line import Dashtam
from tests.support.fixtures import MakeRuntime
from worker.cli.doctor import run_checks
from worker.crud import health as database_health
from worker.crud import heartbeats
from worker.devstack import only_one
from worker.runtime import Runtime, use_runtime
from worker.services import health, host
from worker.services.health import Finding
from worker.settings import get_settings
from worker.tasks import send

Found = Callable[[], dict[str, Finding]]


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers answer at once, or there are none."""
    monkeypatch.setattr(send, "ping_workers", lambda *, seconds: ["refresh@a", "sync@a", "upkeep@a"])


@pytest.fixture
def found(runtime: Runtime, celery_application: object, rows: Session) -> Found:
    """Runs the checks: `found()["beat"]`; beat ticks."""
    heartbeats.beat(rows, name="refresh-due", at=datetime.now(UTC))
    rows.commit()

    def run() -> dict[str, Finding]:
        return {finding.check: finding for finding in run_checks()}

    return run


def test_all_is_well(dashtam: Dashtam, found: Found) -> None:
    result = dashtam("doctor")

    assert result.exit_code == 0, result.output
    assert result.stdout.count("ok ") == len(json_of(dashtam("doctor", "--json")))


def test_servers_that_answer_are_ready_and_one_that_is_away_is_named(
    dashtam: Dashtam, found: Found, make_runtime: MakeRuntime
) -> None:
    ready = dashtam("doctor", "--ready", "--json")
    with use_runtime(make_runtime(database_url="postgresql+psycopg://x:y@127.0.0.1:1/x")):
        away = dashtam("doctor", "--ready")

    assert (ready.exit_code, json_of(ready)) == (0, {"postgres": "ok", "redis": "ok"})
    assert away.exit_code == 4
    assert "Postgres does not run at 127.0.0.1:1" in away.stdout
    assert "not ready: postgres" in away.stderr


@pytest.mark.deep
def test_incomplete_configuration_is_the_only_finding(found: Found, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DASHTAM_ENV_FILE", "/nonexistent")
    monkeypatch.delenv("REDIS_URL")
    get_settings.cache_clear()

    (finding,) = run_checks()

    assert not finding.ok
    assert "REDIS_URL" in finding.found


@pytest.mark.deep
def test_a_schema_that_is_behind_is_found(found: Found, rows: Session) -> None:
    version = rows.execute(text("SELECT version_num FROM alembic_version")).scalar_one()
    rows.execute(text("UPDATE alembic_version SET version_num = '0001'"))
    rows.commit()
    try:
        finding = found()["schema"]
    finally:
        rows.execute(text("UPDATE alembic_version SET version_num = :version"), {"version": version})
        rows.commit()

    assert not finding.ok
    assert finding.mend == "run: dashtam migrate"


@pytest.mark.deep
def test_a_role_that_may_alter_the_audit_log_is_found_in_production(found: Found, make_runtime: MakeRuntime) -> None:
    with use_runtime(make_runtime(DASHTAM_ENV="production")):
        finding = found()["database role"]

    assert not finding.ok
    assert "dashtam database roles" in finding.mend


@pytest.mark.deep
@pytest.mark.parametrize(
    ("standbys", "synchronous", "environment", "ok"),
    [
        (0, False, "production", True),
        (2, True, "production", True),
        (1, False, "development", True),
        (1, False, "production", False),
    ],
)
def test_standbys_that_no_commit_waits_for_are_found_in_production(
    found: Found,
    make_runtime: MakeRuntime,
    monkeypatch: pytest.MonkeyPatch,
    standbys: int,
    synchronous: bool,
    environment: str,
    ok: bool,
) -> None:
    monkeypatch.setattr(database_health, "replication", lambda _: database_health.Replication(standbys, synchronous))

    with use_runtime(make_runtime(DASHTAM_ENV=environment)):
        finding = found()["standbys"]

    assert finding.ok is ok
    assert ("synchronous_standby_names" in finding.mend) is not ok


@pytest.mark.deep
def test_a_clock_that_is_off_is_found(found: Found, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_health, "clock", lambda _: datetime.now(UTC) + timedelta(minutes=5))

    finding = found()["clock"]

    assert not finding.ok
    assert finding.found.startswith(("299 s", "300 s"))


@pytest.mark.deep
def test_a_missing_key_is_found(found: Found, rows: Session, runtime: Runtime) -> None:
    make_linked_provider(rows, runtime.encryption, token={"key_id": "long-gone"})
    rows.commit()

    finding = found()["encryption keys"]

    assert not finding.ok
    assert "long-gone" in finding.found


@pytest.mark.deep
def test_redis_that_may_evict_messages_is_found(found: Found, runtime: Runtime) -> None:
    runtime.redis.config_set("maxmemory-policy", "allkeys-lru")
    try:
        finding = found()["redis"]
    finally:
        runtime.redis.config_set("maxmemory-policy", "noeviction")

    assert not finding.ok
    assert "allkeys-lru" in finding.found


@pytest.mark.deep
def test_a_long_queue_is_found(found: Found, monkeypatch: pytest.MonkeyPatch, runtime: Runtime) -> None:
    monkeypatch.setattr(health, "_BACKLOG_MAX", 1)
    runtime.redis.rpush("sync", "a", "b")

    assert not found()["queues"].ok


@pytest.mark.deep
def test_workers_named_otherwise_are_no_failure(found: Found, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(send, "ping_workers", lambda *, seconds: ["all@a"])

    finding = found()["workers"]

    assert finding.ok
    assert "none is named after refresh, sync, upkeep" in finding.found


@pytest.mark.deep
def test_a_full_disk_is_found(found: Found, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "_FREE_BYTES_MIN", 10**18)

    assert not found()["disk"].ok


@pytest.mark.deep
def test_postgres_that_is_away_is_found_and_the_other_checks_go_on(found: Found, make_runtime: MakeRuntime) -> None:
    away = "postgresql+psycopg://x:y@127.0.0.1:1/x"
    with use_runtime(make_runtime(database_url=away)):
        findings = found()

    assert findings["postgres"].found == "Postgres does not run at 127.0.0.1:1"
    assert findings["postgres"].mend.startswith("start Postgres at 127.0.0.1:1, or correct DATABASE_URL")
    assert findings["schema"].skipped
    assert not findings["schema"].mend
    assert findings["redis"].ok


def test_devstack_beside_a_running_demonstration_leaves_its_environment(
    dashtam: Dashtam, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DASHTAM_HOME", str(tmp_path))
    (tmp_path / "run.env").write_text("DATABASE_URL=as-the-demonstration-wrote-it\n")

    with only_one(tmp_path):
        beside = dashtam("devstack", "up")
    written = (tmp_path / "run.env").read_text()

    assert beside.exit_code == 0, beside.output
    assert written == "DATABASE_URL=as-the-demonstration-wrote-it\n"
    assert dashtam("devstack", "up").exit_code == 0
    assert "as-the-demonstration-wrote-it" not in (tmp_path / "run.env").read_text()


def test_devstack_leaves_servers_of_ones_own_alone_and_notes_where_they_are(
    dashtam: Dashtam, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DASHTAM_HOME", str(tmp_path))

    up = json_of(dashtam("devstack", "up", "--json"))

    assert [server["state"] for server in up["servers"]] == ["external", "external"]
    assert "DATABASE_URL=" in (tmp_path / "run.env").read_text()
    assert "external" in dashtam("devstack", "status").output
    assert dashtam("devstack", "down").exit_code == 0


@pytest.mark.deep
def test_logins_that_send_hooks_and_are_not_here_are_listed(found: Found, rows: Session, runtime: Runtime) -> None:
    add = text(
        "INSERT INTO hook_deliveries (provider_key, delivery_id, kind, external_id, body_sha256, detail)"
        " VALUES ('plaid', :id, 'ITEM/ERROR', :login, '', '{}')"
    )
    for number in range(12):
        rows.execute(add, {"id": f"hook-{number}", "login": f"item-{number % 6}"})
    rows.commit()
    try:
        assert found()["hooks"].found.count("plaid item-") == 5
        assert found()["hooks"].is_trouble
        for number in range(6):
            make_linked_provider(rows, runtime.encryption, provider_key="plaid", external_id=f"item-{number}")
        rows.commit()
        assert not found()["hooks"].is_trouble
    finally:
        rows.execute(text("DELETE FROM hook_deliveries"))
        rows.execute(text("DELETE FROM providers WHERE external_id LIKE 'item-%'"))
        rows.commit()

"""Commands that only look."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from tests.factories import make_account, make_linked_provider, make_transaction
from tests.integration.cli.conftest import json_of
from tests.support.command_line import Dashtam
from worker.cli import ask
from worker.crud import heartbeats
from worker.crud.fleet import overview
from worker.models import IntegrationState, Liability, Provider, Quarantine, SyncRun, TaskFailure, TokenRefresh, new_id
from worker.runtime import Runtime

NOW = datetime.now(UTC)


@pytest.fixture
def provider(rows: Session, runtime: Runtime) -> Provider:
    """One linked login, "Home", with an account and two transactions."""
    made = make_linked_provider(rows, runtime.encryption, alias="Home")
    account = make_account(rows, provider=made)
    make_transaction(rows, account=account)
    make_transaction(rows, account=account)
    make_transaction(rows, account=account, status="removed")
    rows.commit()
    return made


def _run(provider: Provider, **values: object) -> SyncRun:
    defaults: dict[str, object] = {
        "provider_id": provider.id,
        "status": "completed",
        "trigger": "schedule",
        "owner": new_id(),
        "started_at": datetime.now(UTC) - timedelta(minutes=1),
        "heartbeat_at": datetime.now(UTC),
        "finished_at": datetime.now(UTC),
        "added": 3,
        "counts": {"transactions": {"added": 3}},
    }
    return SyncRun(**defaults | values)


@pytest.mark.deep
def test_status_counts_what_is_due_and_who_is_not_well(dashtam: Dashtam, rows: Session, runtime: Runtime) -> None:
    make_linked_provider(rows, runtime.encryption, refresh_due_at=datetime.now(UTC) - timedelta(hours=1))
    make_linked_provider(
        rows, runtime.encryption, refresh_due_at=datetime.now(UTC) + timedelta(hours=1), sync_due_at=None
    )
    make_linked_provider(rows, runtime.encryption, status="needs_reauth")
    heartbeats.beat(rows, name="refresh-due", at=datetime.now(UTC))
    rows.add(IntegrationState(provider_key="schwab", breaker="open"))
    rows.commit()

    data = json_of(dashtam("status", "--json", "--seconds", "0.1"))

    fleet = data["providers"]
    assert (fleet["active"], fleet["needs_reauth"]) == (2, 1)
    assert (fleet["refresh_due"], fleet["refresh_late"], fleet["sync_due"]) == (1, 1, 1)
    assert not data["beat"]["late"]
    assert data["integrations"]["schwab"]["breaker"] == "open"
    assert data["redis"]["backlog"] == {"refresh": 0, "sync": 0, "upkeep": 0}
    assert data["redis"]["workers"] == []


def test_status_for_people_says_that_nobody_works(dashtam: Dashtam, provider: Provider) -> None:
    result = dashtam("status", "--seconds", "0.1")

    assert result.exit_code == 0
    assert "none answers" in result.output
    assert "no tick was ever recorded" in result.output


@pytest.mark.deep
def test_status_of_a_large_fleet_reads_by_indexes(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO users (id, email) VALUES (gen_random_uuid(), 'fleet@example.com')"))
        connection.execute(
            text(
                """
                INSERT INTO providers (id, user_id, provider_key, alias, status, access_expires_at, grant_expires_at,
                    refresh_due_at, sync_due_at)
                SELECT gen_random_uuid(), (SELECT id FROM users), 'schwab', 'alias ' || i,
                    CASE WHEN i % 50 = 0 THEN 'needs_reauth' ELSE 'active' END, now() + i * interval '1 s',
                    now() + i * interval '1 min', now() + i * interval '1 s', now() + i * interval '1 s'
                FROM generate_series(1, 5000) AS i
                """
            )
        )
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE providers"))
        # Other sessions of this server may keep pages from being known as visible to all; Postgres then prefers another
        # index to the one that has all columns. What must hold is that each part of the view has an index.
        connection.execute(text("SET enable_seqscan = off"))
        connection.execute(text("SET enable_bitmapscan = off"))
        parameters = {"now": NOW, "late": NOW, "soon": NOW + timedelta(hours=72)}
        plan = [row[0] for row in connection.execute(text(f"EXPLAIN (COSTS OFF) {overview.FLEET}"), parameters)]
        connection.execute(text("RESET enable_seqscan"))
        connection.execute(text("RESET enable_bitmapscan"))

    looked_through = (" on providers", " on due_times")
    scans = [line.strip().removeprefix("->").strip() for line in plan if any(name in line for name in looked_through)]
    assert scans
    assert all("Index" in scan and "Seq Scan" not in scan for scan in scans), "\n".join(plan)
    assert not [line for line in plan if "transactions" in line]


@pytest.mark.deep
def test_providers_alone_lists(dashtam: Dashtam, provider: Provider) -> None:
    (row,) = json_of(dashtam("providers", "--json"))

    assert row["alias"] == "Home"
    assert row["status"] == "active"
    assert "Home" in dashtam("providers").output


@pytest.mark.deep
def test_providers_can_be_narrowed_down(dashtam: Dashtam, rows: Session, runtime: Runtime) -> None:
    make_linked_provider(rows, runtime.encryption, alias="A", status="needs_reauth")
    make_linked_provider(rows, runtime.encryption, alias="B", provider_key="plaid")
    mine = make_linked_provider(rows, runtime.encryption, alias="C")
    rows.commit()

    def aliases(*options: str) -> list[str]:
        return [row["alias"] for row in json_of(dashtam("providers", "list", *options, "--json"))]

    assert aliases("--status", "needs_reauth") == ["A"]
    assert aliases("--integration", "plaid") == ["B"]
    assert aliases("--user", str(mine.user_id)) == ["C"]
    assert aliases("--limit", "2") == ["A", "B"]


@pytest.mark.deep
@pytest.mark.parametrize("name", ["id", "prefix", "alias"])
def test_a_provider_is_found_by_id_its_beginning_or_alias(dashtam: Dashtam, provider: Provider, name: str) -> None:
    given = {"id": str(provider.id), "prefix": str(provider.id)[:23], "alias": "Home"}[name]

    shown = json_of(dashtam("providers", "show", given, "--json"))

    assert shown["provider"]["id"] == str(provider.id)
    assert shown["stored"] == {"accounts": 1, "transactions": 2, "holdings": 0}


@pytest.mark.deep
def test_showing_a_provider_shows_no_token(dashtam: Dashtam, provider: Provider, rows: Session) -> None:
    ciphertext = rows.execute(text("SELECT access_token FROM provider_tokens")).scalar_one()

    for output in (dashtam("providers", "show", "Home").output, dashtam("providers", "show", "Home", "--json").output):
        assert "access-1" not in output
        assert ciphertext[:20] not in output


@pytest.mark.deep
@pytest.mark.parametrize("command", ["providers show", "explain", "refresh", "sync", "providers pause"])
def test_an_unknown_provider_is_one_line_and_exit_code_2(dashtam: Dashtam, command: str) -> None:
    result = dashtam(*command.split(), "Nowhere")

    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert "Nowhere" in result.stderr


@pytest.mark.deep
def test_sql_as_an_id_is_refused_and_changes_nothing(dashtam: Dashtam, provider: Provider, rows: Session) -> None:
    result = dashtam("providers", "unlink", "'; DROP TABLE providers; --", "--yes")

    assert result.exit_code == 2
    assert rows.get(Provider, provider.id) is not None


@pytest.mark.deep
def test_an_alias_of_two_providers_is_refused_with_both_ids(dashtam: Dashtam, rows: Session, runtime: Runtime) -> None:
    both = [make_linked_provider(rows, runtime.encryption, alias="Home") for _ in range(2)]
    rows.commit()

    result = dashtam("providers", "show", "Home")

    assert result.exit_code == 2
    assert all(str(one.id) in result.stderr for one in both)


def test_runs_are_listed_and_shown(dashtam: Dashtam, provider: Provider, rows: Session) -> None:
    failed = _run(provider, status="failed", error="transient", error_scope="request", error_reason="http_503")
    failed.cursor_before, failed.cursor_after = {"transactions": "c1"}, {"transactions": "c2" + "x" * 100}
    rows.add_all([failed, _run(provider, started_at=NOW - timedelta(hours=1))])
    rows.commit()

    assert [run["status"] for run in json_of(dashtam("runs", "--json"))] == ["failed", "completed"]
    assert len(json_of(dashtam("runs", "list", "--provider", "Home", "--status", "failed", "--json"))) == 1
    shown = dashtam("runs", "show", str(failed.id))
    assert "transient of the request: http_503" in shown.output
    assert "transactions c1" in shown.output
    assert "transactions c2" in shown.output
    assert "x" * 50 not in shown.output
    assert dashtam("runs", "show", str(new_id())).exit_code == 2


@pytest.mark.deep
def test_lists_name_logins_by_alias_and_every_id_by_its_beginning(
    dashtam: Dashtam, provider: Provider, rows: Session
) -> None:
    run = _run(provider)
    entry = Quarantine(provider_id=provider.id, kind="transaction", reason="bad_date", fingerprint=b"x")
    failure = TaskFailure(
        task_id="t-1",
        task_name="worker.tasks.accounts.sync_providers",
        arguments={"args": [[str(provider.id)]], "kwargs": {}},
        reason="delivered too often",
        deliveries=3,
    )
    rows.add_all([run, entry, failure])
    rows.commit()

    for group, row in (("runs", run), ("quarantine", entry), ("failures", failure)):
        output = dashtam(group).output
        assert "Home" in output
        assert str(provider.id) not in output
        (shown,) = [word for word in output.split() if str(row.id).startswith(word) and len(word) > 8]
        assert json_of(dashtam(group, "show", shown, "--json"))["id"] == str(row.id)
        assert json_of(dashtam(group, "show", str(row.id)[:13], "--json"))["id"] == str(row.id)
    assert json_of(dashtam("runs", "--json"))[0]["provider_id"] == str(provider.id)


@pytest.mark.deep
def test_liabilities_show_what_is_due_and_leave_out_what_is_closed(
    dashtam: Dashtam, rows: Session, runtime: Runtime
) -> None:
    login = make_linked_provider(rows, runtime.encryption, alias="Lender")
    account = make_account(rows, provider=login, name="Card")
    terms = {"account_id": account.id, "kind": "credit", "currency": "USD", "details": {}, "content_hash": b""}
    rows.add(
        Liability(**terms, liability_key="open", next_payment_date=date(2025, 3, 28), interest_rate=Decimal("12.5"))
    )
    rows.add(Liability(**terms, liability_key="closed", closed_at=NOW))
    rows.commit()

    (row,) = json_of(dashtam("liabilities", "--provider", "Lender", "--json"))
    shown = dashtam("liabilities", "--provider", "Lender").output

    assert (row["account"], row["kind"], row["next_payment_date"]) == ("Card", "credit", "2025-03-28")
    assert (row["interest_rate"], row["is_overdue"]) == ("12.5", None)
    assert "2025-03-28" in shown


def test_accounts_and_transactions_show_what_was_synced(
    dashtam: Dashtam, provider: Provider, rows: Session, runtime: Runtime
) -> None:
    other = make_account(rows, provider=make_linked_provider(rows, runtime.encryption, alias="Other"))
    make_transaction(rows, account=other, description="[red]café\x1b[2J", posted_date=date(2025, 3, 14))
    rows.commit()

    assert [row["provider"] for row in json_of(dashtam("accounts", "--json"))] == ["Home", "Other"]
    (account,) = json_of(dashtam("accounts", "--provider", "Other", "--json"))
    assert account["id"] == str(other.id)
    (row,) = json_of(dashtam("transactions", "--provider", "Other", "--json"))
    assert (row["account_id"], row["posted_date"]) == (str(other.id), "2025-03-14")
    assert json_of(dashtam("transactions", "--provider", "Other", "--since", "2025-03-15", "--json")) == []
    assert len(json_of(dashtam("transactions", "--provider", "Home", "--json"))) == 2
    assert len(json_of(dashtam("transactions", "--limit", "1", "--json"))) == 1
    shown = dashtam("transactions", "--provider", "Other").output
    assert "[red]café" in shown
    assert "\x1b" not in shown
    assert "Other" in dashtam("accounts").output


def test_aliases_are_completed_from_what_commands_have_seen(
    dashtam: Dashtam, provider: Provider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DASHTAM_HOME", str(tmp_path))
    assert ask.aliases("H") == []

    assert dashtam("providers").exit_code == 0

    assert ask.aliases("H") == ["Home"]
    assert ask.aliases("h") == []
    assert (tmp_path / "names.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.deep
def test_explain_reads_the_facts_of_the_provider(dashtam: Dashtam, provider: Provider, rows: Session) -> None:
    rows.add(_run(provider))
    rows.add(
        TokenRefresh(
            provider_id=provider.id,
            generation=1,
            status="failed",
            trigger="schedule",
            error="transient",
            reason="http_503",
            lease_owner=new_id(),
            started_at=datetime.now(UTC) - timedelta(minutes=5),
        )
    )
    rows.commit()

    told = json_of(dashtam("explain", "Home", "--json"))["explanation"]

    assert any("failed 5 minutes ago" in sentence for sentence in told["refresh"])
    assert any("completed: 3 added" in sentence for sentence in told["sync"])
    assert told["must_act"] == "operator"  # there is no worker
    assert "celery -A worker.app worker --queues refresh,sync,upkeep" in dashtam("explain", "Home").output


def test_quarantine_is_listed_shown_and_dismissed(dashtam: Dashtam, provider: Provider, rows: Session) -> None:
    entry = Quarantine(
        provider_id=provider.id,
        kind="transaction",
        record_key="t-1",
        reason="amount_not_finite",
        payload={"amount": "NaN"},
        fingerprint=b"x",
    )
    rows.add(entry)
    rows.commit()

    (listed,) = json_of(dashtam("quarantine", "list", "--provider", "Home", "--json"))
    assert listed["reason"] == "amount_not_finite"
    assert '"amount": "NaN"' in dashtam("quarantine", "show", str(entry.id)).output
    assert dashtam("quarantine", "dismiss", str(entry.id)).exit_code == 0
    assert json_of(dashtam("quarantine", "--json")) == []
    assert len(json_of(dashtam("quarantine", "list", "--all", "--json"))) == 1


def test_replaying_a_quarantined_record_fetches_its_provider_from_scratch(
    dashtam: Dashtam, provider: Provider, rows: Session, runtime: Runtime
) -> None:
    entry = Quarantine(provider_id=provider.id, kind="transaction", reason="bad_date", fingerprint=b"x")
    rows.add(entry)
    rows.commit()

    assert dashtam("quarantine", "replay", str(entry.id)).exit_code == 0
    message = msgspec.json.decode(runtime.redis.lindex("sync", 0))
    assert message["headers"]["kwargsrepr"] == "{'trigger': 'manual', 'mode': 'full', 'force': True}"

    dashtam("quarantine", "dismiss", str(entry.id))
    assert dashtam("quarantine", "replay", str(entry.id)).exit_code == 3


def test_failures_are_listed_shown_and_sent_again_once(dashtam: Dashtam, rows: Session, runtime: Runtime) -> None:
    failure = TaskFailure(
        task_id="t-1",
        task_name="worker.tasks.accounts.sync_providers",
        arguments={"args": [["x"]], "kwargs": {}},
        reason="delivered too often without an end",
        deliveries=3,
    )
    rows.add(failure)
    rows.commit()

    (listed,) = json_of(dashtam("failures", "--json"))
    assert listed["deliveries"] == 3
    assert '{"args":[["x"]],"kwargs":{}}' in dashtam("failures", "show", str(failure.id)).output

    assert dashtam("failures", "replay", str(failure.id)).exit_code == 0
    assert runtime.redis.llen("sync") == 1
    assert json_of(dashtam("failures", "--json")) == []
    assert dashtam("failures", "replay", str(failure.id)).exit_code == 3
    assert runtime.redis.llen("sync") == 1


def test_integrations_are_paused_and_resumed(dashtam: Dashtam) -> None:
    assert dashtam("integrations", "pause", "schwab", "--reason", "maintenance").exit_code == 0

    by_key = {row["provider_key"]: row for row in json_of(dashtam("integrations", "--json"))}
    assert by_key["schwab"]["paused_reason"] == "maintenance"
    assert by_key["plaid"]["paused_at"] is None

    assert not json_of(dashtam("integrations", "pause", "schwab", "--json"))["changed"]
    assert json_of(dashtam("integrations", "resume", "schwab", "--json"))["changed"]


def test_audit_lists_and_verifies(dashtam: Dashtam, provider: Provider, tmp_path: object) -> None:
    dashtam("providers", "pause", "Home", "--reason", "the user asked")

    (entry,) = json_of(dashtam("audit", "list", "--provider", "Home", "--json"))
    assert (entry["action"], entry["reason"]) == ("paused", "the user asked")
    assert entry["actor"].startswith("operator:")

    heads = f"{tmp_path}/heads.json"
    assert dashtam("audit", "verify", "--save", heads).exit_code == 0
    assert dashtam("audit", "verify", "--against", heads).exit_code == 0


@pytest.mark.deep
def test_audit_verify_finds_an_altered_entry(dashtam: Dashtam, provider: Provider, rows: Session) -> None:
    dashtam("providers", "pause", "Home", "--reason", "the user asked")
    rows.execute(text("ALTER TABLE provider_audit_logs DISABLE TRIGGER USER"))
    rows.execute(text("UPDATE provider_audit_logs SET reason = 'nobody asked'"))
    rows.execute(text("ALTER TABLE provider_audit_logs ENABLE TRIGGER USER"))
    rows.commit()

    result = dashtam("audit", "verify")

    assert result.exit_code == 1
    assert "altered" in result.output


def test_keys_status_rotate_and_retire(dashtam: Dashtam, provider: Provider) -> None:
    (key,) = json_of(dashtam("keys", "status", "--json"))

    assert (key["tokens"], key["writing"]) == (1, True)
    assert dashtam("keys", "rotate").exit_code == 0
    assert dashtam("keys", "retire", key["key_id"]).exit_code == 3
    assert dashtam("keys", "retire", "never-was").exit_code == 2


@pytest.mark.deep
def test_doctor_names_a_mend_for_each_failure(dashtam: Dashtam) -> None:
    result = dashtam("doctor", "--json")

    findings = {finding["check"]: finding for finding in msgspec.json.decode(result.stdout)}
    assert result.exit_code == 1
    assert {name for name, finding in findings.items() if not finding["ok"]} == {"workers", "beat"}
    assert all(finding["mend"] for finding in findings.values() if not finding["ok"] and not finding["skipped"])
    assert findings["schema"]["ok"]
    assert "checks that failed: workers" in result.stderr


def test_doctor_shows_the_configuration_without_secrets(dashtam: Dashtam, runtime: Runtime) -> None:
    shown = json_of(dashtam("doctor", "--config", "--json"))

    assert shown["SYNC_INTERVAL"] == runtime.settings.sync_interval
    assert shown["SCHWAB_REDIRECT_URI"] == "https://127.0.0.1"
    for secret in ("DATABASE_URL", "REDIS_URL", "ENCRYPTION_KEYS", "SCHWAB_APP_SECRET", "PLAID_SECRET"):
        assert shown[secret] == "set, not shown"


@pytest.mark.deep
def test_migrate_twice_is_harmless(dashtam: Dashtam) -> None:
    assert dashtam("migrate").exit_code == 0
    assert dashtam("migrate").exit_code == 0

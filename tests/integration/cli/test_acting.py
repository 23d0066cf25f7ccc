"""Commands that make something happen."""

from __future__ import annotations

import shlex
import socket
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit
from uuid import UUID

import pytest
from kombu.exceptions import OperationalError
from sqlalchemy import select
from sqlalchemy.orm import Session

from tests.factories import make_linked_provider
from tests.integration.cli.conftest import json_of
from tests.support.command_line import Dashtam
from tests.support.fixtures import MakeRuntime
from tests.support.sandbox import SandboxAdmin, SandboxProcess
from tests.unit.integrations.statement_files.test_ofx import sgml, sgml_row
from worker.cli import link
from worker.models import Provider, SyncRun, User, new_id
from worker.models.vocabulary import Trigger
from worker.runtime import Runtime
from worker.sandbox.control import SandboxControl
from worker.services.fleet.asking import REFRESH_TASK
from worker.services.refresh import protocol
from worker.services.sync import batch
from worker.settings import get_settings
from worker.tasks import send
from worker.tasks.send import sender

NOW = datetime.now(UTC)
LATER = NOW + timedelta(days=1)
ADA = ("--user", "ada@example.org", "--create-user")


@pytest.fixture
def provider(rows: Session, runtime: Runtime) -> Provider:
    """One linked login, "Home", of which nothing is due."""
    made = make_linked_provider(rows, runtime.encryption, alias="Home", refresh_due_at=LATER, sync_due_at=LATER)
    rows.commit()
    return made


def _now(rows: Session, provider: Provider) -> Provider:
    rows.expire_all()
    rows.refresh(provider)
    return provider


@pytest.mark.deep
@pytest.mark.parametrize(
    ("command", "queue", "column"), [("refresh", "refresh", "refresh_due_at"), ("sync", "sync", "sync_due_at")]
)
def test_a_manual_trigger_sends_the_schedules_task_and_survives_its_loss(
    dashtam: Dashtam, provider: Provider, rows: Session, runtime: Runtime, command: str, queue: str, column: str
) -> None:
    result = dashtam(command, "Home", "--json")

    assert result.exit_code == 0, result.output
    assert runtime.redis.llen(queue) == 1
    due = getattr(_now(rows, provider), column)
    assert NOW < due <= datetime.now(UTC) + timedelta(seconds=runtime.settings.claim_seconds)


def test_redis_that_goes_away_in_the_middle_leaves_the_row_due(
    dashtam: Dashtam, provider: Provider, rows: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OperationalError("connection lost")

    monkeypatch.setattr(sender, "send_task", refuse)

    assert dashtam("sync", "--all").exit_code == 4
    due = _now(rows, provider).sync_due_at
    assert due is not None
    assert due <= datetime.now(UTC)


def _closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.deep
@pytest.mark.parametrize(("command", "column"), [("refresh", "refresh_due_at"), ("sync", "sync_due_at")])
def test_without_redis_the_row_is_left_due_and_the_exit_code_says_so(
    dashtam: Dashtam,
    provider: Provider,
    rows: Session,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    column: str,
) -> None:
    monkeypatch.setenv("REDIS_URL", f"redis://127.0.0.1:{_closed_port()}/0")
    get_settings.cache_clear()

    result = dashtam(command, "Home")

    assert result.exit_code == 4
    assert result.stderr.count("\n") == 1
    assert getattr(_now(rows, provider), column) <= datetime.now(UTC)


@pytest.mark.deep
@pytest.mark.parametrize("status", ["needs_reauth", "paused", "unlinked", "pending"])
@pytest.mark.parametrize("command", ["refresh", "sync"])
def test_a_provider_that_is_not_active_is_refused_with_what_would_help(
    dashtam: Dashtam, rows: Session, runtime: Runtime, command: str, status: str
) -> None:
    make_linked_provider(rows, runtime.encryption, alias="Home", status=status, status_reason="some_reason")
    rows.commit()

    result = dashtam(command, "Home")

    assert result.exit_code == 3
    assert "dashtam" in result.stderr
    assert runtime.redis.llen(command) == 0


@pytest.mark.deep
def test_a_provider_whose_tokens_are_not_refreshed_is_refused(
    dashtam: Dashtam, rows: Session, runtime: Runtime
) -> None:
    make_linked_provider(rows, runtime.encryption, alias="Home", provider_key="plaid", refresh_token=None)
    rows.commit()

    result = dashtam("refresh", "Home")

    assert result.exit_code == 3
    assert "not refreshed" in result.stderr


def _run(rows: Session, provider: Provider, **values: object) -> SyncRun:
    run = SyncRun(
        **{
            "provider_id": provider.id,
            "trigger": "manual",
            "owner": new_id(),
            "started_at": datetime.now(UTC),
            "heartbeat_at": datetime.now(UTC),
        }
        | values
    )
    rows.add(run)
    rows.commit()
    return run


@pytest.mark.deep
def test_a_second_sync_within_the_least_interval_needs_force(
    dashtam: Dashtam, provider: Provider, rows: Session, runtime: Runtime
) -> None:
    _run(rows, provider, status="completed", finished_at=datetime.now(UTC))

    refused = dashtam("sync", "Home")

    assert refused.exit_code == 3
    assert "--force" in refused.stderr
    assert runtime.redis.llen("sync") == 0
    assert dashtam("sync", "Home", "--force").exit_code == 0


@pytest.mark.deep
def test_sync_all_asks_for_every_active_provider_in_batches(dashtam: Dashtam, rows: Session, runtime: Runtime) -> None:
    size = runtime.settings.sync_batch_size
    for _ in range(size + 1):
        make_linked_provider(rows, runtime.encryption, sync_due_at=LATER)
    make_linked_provider(rows, runtime.encryption, status="paused")
    rows.commit()

    asked = json_of(dashtam("sync", "--all", "--json"))

    assert len(asked["ids"]) == size + 1
    assert runtime.redis.llen("sync") == 2


def test_cancel_asks_the_running_run_to_stop(dashtam: Dashtam, provider: Provider, rows: Session) -> None:
    run = _run(rows, provider, status="running")

    assert dashtam("sync", "Home", "--cancel").exit_code == 0

    rows.refresh(run)
    assert run.cancel_requested


@pytest.mark.deep
@pytest.mark.parametrize("option", [["--full"], ["--since", "2025-01-01"]])
def test_a_sync_from_further_back_is_refused_while_another_run_would_swallow_it(
    dashtam: Dashtam, provider: Provider, rows: Session, option: list[str]
) -> None:
    run = _run(rows, provider, status="running")

    refused = dashtam("sync", "Home", *option)

    assert refused.exit_code == 3
    assert "--cancel" in refused.stderr
    run.heartbeat_at = NOW - timedelta(hours=1)  # its worker has died: the next one takes over
    rows.commit()
    assert dashtam("sync", "Home", *option, "--force").exit_code == 0


def test_cancel_without_a_run_is_refused(dashtam: Dashtam, provider: Provider) -> None:
    assert dashtam("sync", "Home", "--cancel").exit_code == 3


def test_pause_and_resume_move_the_provider_out_of_and_back_into_the_schedule(
    dashtam: Dashtam, provider: Provider, rows: Session
) -> None:
    assert dashtam("providers", "pause", "Home", "--reason", "the user asked").exit_code == 0
    paused = _now(rows, provider)
    assert (paused.status, paused.status_reason) == ("paused", "the user asked")

    assert dashtam("providers", "resume", "Home").exit_code == 0
    resumed = _now(rows, provider)
    assert (resumed.status, resumed.status_reason) == ("active", None)
    assert resumed.sync_due_at is not None
    assert resumed.sync_due_at <= datetime.now(UTC)

    assert not json_of(dashtam("providers", "resume", "Home", "--json"))["changed"]


def test_interval_of_one_provider_brings_its_next_sync_forward_and_is_taken_back(
    dashtam: Dashtam, provider: Provider, rows: Session
) -> None:
    provider.sync_due_at = datetime.now(UTC) + timedelta(days=30)
    rows.commit()

    said = dashtam("providers", "interval", "Home", "--seconds", "600")

    assert (said.exit_code, "every 600 s" in said.stdout) == (0, True)
    often = _now(rows, provider)
    assert often.sync_interval == 600
    assert often.sync_due_at is not None
    assert often.sync_due_at <= datetime.now(UTC) + timedelta(seconds=600)
    assert json_of(dashtam("providers", "show", "Home", "--json"))["provider"]["sync_interval"] == 600
    assert not json_of(dashtam("providers", "interval", "Home", "--seconds", "600", "--json"))["changed"]
    assert dashtam("providers", "interval", "Home", "--usual").exit_code == 0
    assert _now(rows, provider).sync_interval is None


def test_a_provider_that_needs_its_user_cannot_be_resumed(dashtam: Dashtam, rows: Session, runtime: Runtime) -> None:
    provider_id = make_linked_provider(rows, runtime.encryption, alias="Home", status="needs_reauth").id
    rows.commit()

    result = dashtam("providers", "resume", "Home")

    assert result.exit_code == 3
    assert f"dashtam explain {provider_id}" in result.stderr


@pytest.fixture
def control(sandbox: SandboxAdmin, sandbox_process: SandboxProcess) -> SandboxControl:
    """The sandbox as `dashtam run` uses it."""
    return SandboxControl(sandbox_process.base_url, sandbox_process.admin_token)


@pytest.mark.deep
def test_link_schwab_takes_the_callback_address_from_standard_input(
    dashtam: Dashtam, control: SandboxControl, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Whoever pastes the address has opened the one that was printed: here the prompt does both.
    printed: list[str] = []
    monkeypatch.setattr(link._notes, "print", lambda text, **_: printed.append(str(text)))
    monkeypatch.setattr(link, "_asked", lambda _: _consent(control, printed[-1]))

    linked = json_of(dashtam("link", "schwab", *ADA, "--alias", "My Schwab", "--json"))

    assert urlsplit(printed[-1]).path == "/schwab/v1/oauth/authorize"
    assert (linked["status"], linked["alias"]) == ("active", "My Schwab")
    assert linked["grant_expires_at"] is not None


@pytest.mark.deep
def test_link_plaid_takes_the_public_token_from_standard_input(dashtam: Dashtam, control: SandboxControl) -> None:
    token = control.link("plaid-1", {})["public_token"]

    result = dashtam(
        "link",
        "plaid",
        "--user",
        "ada@example.org",
        "--create-user",
        "--alias",
        "My bank",
        "--json",
        stdin=f"{token}\n",
    )

    assert json_of(result)["status"] == "active"
    assert token not in result.output


@pytest.mark.deep
def test_import_says_what_is_in_a_file_and_stores_it(dashtam: Dashtam, rows: Session, tmp_path: Path) -> None:
    file = tmp_path / "march.ofx"
    file.write_bytes(sgml(sgml_row(), sgml_row("2", "20250230")))

    looked = dashtam("import", str(file), "--dry-run")
    stored = dashtam("import", str(file), *ADA)
    again = json_of(dashtam("import", str(file), *ADA, "--json"))

    assert "nothing was stored" in looked.output
    for printed in (looked, stored):
        assert "checking …6789: 2025-03-01 to 2025-03-31, 1 transaction, 100.00 USD" in printed.output
    assert "3 added, 0 changed, 0 unchanged, 1 in quarantine" in stored.output
    assert (again["run"]["added"], again["run"]["changed"]) == (0, 0)


@pytest.mark.deep
def test_import_takes_the_beginning_of_an_id_as_every_other_command_does(dashtam: Dashtam, tmp_path: Path) -> None:
    file = tmp_path / "march.ofx"
    file.write_bytes(sgml(sgml_row()))
    made = json_of(dashtam("import", str(file), *ADA, "--json"))["run"]["provider_id"]

    again = json_of(dashtam("import", str(file), *ADA, "--provider", made[:-4], "--json"))["run"]
    unknown = dashtam("import", str(file), *ADA, "--provider", "01234567-89ab-cdef-0123-456789abcdef")

    assert (again["provider_id"], again["added"]) == (made, 0)
    assert unknown.exit_code == 2
    assert "is no login of this user's files; nothing was stored" in unknown.stderr


@pytest.mark.deep
def test_import_asks_once_what_the_columns_of_a_csv_file_mean(dashtam: Dashtam, tmp_path: Path) -> None:
    march, april = (tmp_path / f"{name}.csv" for name in ("march", "april"))
    march.write_text("Date,Text,Amount\n13/03/2025,Bait,-1.50\n")
    april.write_text("Date,Text,Amount\n13/03/2025,Bait,-1.50\n02/04/2025,Bait,-2.50\n")

    looked = dashtam("import", str(march), "--dry-run")
    unconfirmed = dashtam("import", str(march), *ADA)
    proposed = shlex.split(looked.output.partition("or change it: ")[2])
    known = ("--set", "currency=USD", "--set", "account=4321")
    confirmed = json_of(dashtam("import", str(march), *ADA, *proposed, *known, "--json"))
    later = json_of(dashtam("import", str(april), *ADA, "--json"))

    assert "--set 'order=dmy'" in looked.output
    assert unconfirmed.exit_code == 3
    assert "must be confirmed once; nothing was stored" in unconfirmed.stderr
    assert confirmed["run"]["counts"]["transactions"]["added"] == 1
    assert later["run"]["counts"]["transactions"] == {"added": 1, "unchanged": 1}


@pytest.mark.deep
def test_import_of_what_cannot_be_read_stores_nothing(dashtam: Dashtam, rows: Session, tmp_path: Path) -> None:
    (tmp_path / "cut.ofx").write_bytes(sgml(sgml_row())[:-30])

    cut = dashtam("import", str(tmp_path / "cut.ofx"), *ADA)
    missing = dashtam("import", str(tmp_path / "none.ofx"), *ADA)
    folder = dashtam("import", str(tmp_path), *ADA)
    nobody = dashtam("import", str(tmp_path / "cut.ofx"))

    assert [one.exit_code for one in (cut, missing, folder, nobody)] == [3, 2, 2, 2]
    assert all("nothing was stored" in one.stderr for one in (cut, missing, folder, nobody))
    assert rows.scalars(select(User)).all() == []


@pytest.mark.deep
def test_link_with_a_setup_token_claims_it_once_and_shows_neither_it_nor_the_access_url(
    dashtam: Dashtam, control: SandboxControl
) -> None:
    token = control.link("simplefin-1", {})["setup_token"]

    linked = dashtam("link", "simplefin", *ADA, "--alias", "My banks", "--json", stdin=f"{token}\n")
    again = dashtam("link", "simplefin", *ADA, "--alias", "Others", stdin=f"{token}\n")

    assert json_of(linked)["status"] == "active"
    assert again.exit_code == 3
    assert "was used before. Make a new one" in again.stderr
    assert not any(secret in linked.output + again.output for secret in (token, "https://"))


@pytest.mark.deep
def test_link_asks_for_words_of_a_bank_before_the_consent(dashtam: Dashtam, control: SandboxControl) -> None:
    vague = dashtam("link", "enable_banking", *ADA, "--alias", "Bank", stdin="mock\n")
    none = dashtam("link", "enable_banking", *ADA, "--alias", "Bank", stdin="nowhere\n")
    begun = dashtam(
        "link", "enable_banking", *ADA, "--alias", "Bank", stdin="zweite personal\nhttps://127.0.0.1/?x=1\n"
    )

    assert [one.exit_code for one in (vague, none, begun)] == [3, 3, 3]
    assert "these words fit 3: Mock Bank, FI, personal; Mock Bank, FI, business, app; " in vague.stderr
    assert "no bank has these words in its name; nothing was changed. Give other words" in none.stderr
    assert "/ais/start?sessionid=" in begun.stderr


def test_link_for_an_address_that_nobody_has_must_say_that_a_new_user_is_meant(
    dashtam: Dashtam, rows: Session, runtime: Runtime
) -> None:
    result = dashtam("link", "plaid", "--user", "adda@example.org", "--alias", "My bank", stdin="token\n")

    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert "no user has the e-mail address adda@example.org; nothing was linked" in result.stderr
    assert "--create-user" in result.stderr
    assert rows.scalars(select(User)).all() == []


@pytest.mark.deep
@pytest.mark.parametrize(
    "command",
    [("refresh", "Home"), ("sync", "Home"), ("link", "schwab", *ADA, "--alias", "Another")],
    ids=lambda words: words[0],
)
def test_what_a_paused_integration_would_not_do_is_refused_with_the_command_that_resumes_it(
    dashtam: Dashtam, provider: Provider, runtime: Runtime, command: tuple[str, ...]
) -> None:
    assert dashtam("integrations", "pause", "schwab", "--reason", "maintenance").exit_code == 0

    result = dashtam(*command, stdin="x\n")

    assert result.exit_code == 3
    assert "maintenance" in result.stderr
    assert "dashtam integrations resume schwab" in result.stderr
    assert runtime.redis.llen("refresh") == runtime.redis.llen("sync") == 0


@pytest.mark.deep
def test_link_with_nothing_on_standard_input_links_nothing(dashtam: Dashtam, runtime: Runtime) -> None:
    result = dashtam("link", "plaid", *ADA, "--alias", "My bank", stdin="")

    assert result.exit_code == 2
    assert json_of(dashtam("providers", "--json")) == []


@pytest.mark.deep
@pytest.mark.parametrize("address", ["a@[", "ada@", "ada@example.org\nBcc: eve@example.org"])
def test_link_for_an_address_that_no_mail_can_have_makes_no_user(dashtam: Dashtam, rows: Session, address: str) -> None:
    result = dashtam("link", "plaid", "--user", address, "--create-user", "--alias", "My bank", stdin="token\n")

    assert result.exit_code == 3
    assert result.stderr.startswith("error: no mail can be sent to this e-mail address: ")
    assert rows.scalars(select(User)).all() == []


@pytest.mark.deep
def test_link_finds_the_user_however_the_domain_is_written(
    dashtam: Dashtam, control: SandboxControl, rows: Session
) -> None:
    for name, address in (("plaid-1", "ada@example.org"), ("plaid-2", "ada@Example.ORG")):
        dashtam(
            "link",
            "plaid",
            "--user",
            address,
            "--create-user",
            "--alias",
            name,
            stdin=control.link(name, {})["public_token"],
        )

    assert rows.scalars(select(User.email)).all() == ["ada@example.org"]


@pytest.mark.deep
def test_a_used_public_token_is_a_plain_failure(dashtam: Dashtam, control: SandboxControl) -> None:
    token = control.link("plaid-1", {})["public_token"]
    arguments = ("link", "plaid", *ADA, "--alias", "My bank")
    dashtam(*arguments, stdin=token)

    result = dashtam(*arguments, stdin=token)

    assert result.exit_code in (1, 3)
    assert result.stderr.startswith("error: ")
    assert "Traceback" not in result.output
    assert token not in result.output


def test_unlink_revokes_and_keeps_the_rows(dashtam: Dashtam, control: SandboxControl, rows: Session) -> None:
    dashtam(
        "link",
        "plaid",
        "--user",
        "a@example.org",
        "--create-user",
        "--alias",
        "Home",
        stdin=control.link("plaid-1", {})["public_token"],
    )

    ended = json_of(dashtam("providers", "unlink", "Home", "--yes", "--json"))

    assert ended["revoked"] is True
    (row,) = json_of(dashtam("providers", "--json"))
    assert row["status"] == "unlinked"


@pytest.mark.deep
def test_unlink_asks_first(dashtam: Dashtam, provider: Provider, rows: Session) -> None:
    dashtam("providers", "unlink", "Home", stdin="n\n")

    assert _now(rows, provider).status == "active"


@pytest.fixture
def worker_at_once(monkeypatch: pytest.MonkeyPatch, make_runtime: MakeRuntime) -> None:
    """Works off a task in the moment in which it is sent, as another process would: on a runtime of its own."""
    runtime = make_runtime()

    def work_off(task: str, ids: list[str], *, trigger: str, since: str | None = None, **options: Any) -> str:
        uuids, by = [UUID(id_) for id_ in ids], Trigger(trigger)
        if task == REFRESH_TASK:
            runtime.run(protocol.refresh_providers(runtime, uuids, trigger=by, manual=True, **options))
        else:
            day = None if since is None else date.fromisoformat(since)
            runtime.run(batch.sync_providers(runtime, uuids, trigger=by, since=day, **options))
        return "task"

    monkeypatch.setattr(send, "send", work_off)


def _consent(control: SandboxControl, address: str) -> str:
    return control.link("schwab-1", dict(parse_qsl(urlsplit(address).query)))["callback_url"]


@pytest.fixture
def linked(sandbox: SandboxAdmin, rows: Session, runtime: Runtime) -> Provider:
    """A Schwab login of the sandbox, "Home"."""
    (grant,) = sandbox.mint("schwab-1")
    made = make_linked_provider(
        rows,
        runtime.encryption,
        alias="Home",
        access_token=grant.access_token,
        refresh_token=grant.refresh_token,
    )
    rows.commit()
    return made


@pytest.mark.deep
@pytest.mark.usefixtures("worker_at_once")
def test_refresh_waits_for_the_outcome(dashtam: Dashtam, linked: Provider) -> None:
    attempt = json_of(dashtam("refresh", "Home", "--wait", "--json"))

    assert (attempt["status"], attempt["trigger"], attempt["generation"]) == ("done", "manual", 1)


@pytest.mark.usefixtures("worker_at_once")
def test_refresh_of_a_revoked_grant_is_an_explained_refusal(
    dashtam: Dashtam, linked: Provider, sandbox: SandboxAdmin
) -> None:
    sandbox.revoke("schwab-1")

    result = dashtam("refresh", "Home", "--wait")

    assert result.exit_code == 3
    assert "must link it again" in result.stderr


@pytest.mark.usefixtures("worker_at_once")
def test_sync_waits_and_shows_the_run(dashtam: Dashtam, linked: Provider) -> None:
    (run,) = json_of(dashtam("sync", "Home", "--wait", "--json"))

    assert (run["status"], run["trigger"]) == ("completed", "manual")
    assert run["added"] > 0


@pytest.mark.usefixtures("worker_at_once")
@pytest.mark.deep
def test_a_full_sync_and_one_since_a_day_reach_the_worker(dashtam: Dashtam, linked: Provider) -> None:
    (full,) = json_of(dashtam("sync", "Home", "--full", "--wait", "--json"))
    (since,) = json_of(dashtam("sync", "Home", "--since", "2025-01-01", "--force", "--wait", "--json"))

    assert full["mode"] == "full"
    assert (since["mode"], since["status"]) == ("incremental", "completed")


@pytest.mark.deep
def test_waiting_gives_up_when_no_worker_comes(dashtam: Dashtam, provider: Provider) -> None:
    for command in ("refresh", "sync"):
        result = dashtam(command, "Home", "--wait", "--timeout", "0.3")

        assert result.exit_code == 4
        assert "done later" in result.stderr


@pytest.mark.deep
def test_waiting_ends_when_the_worker_refuses_the_sync(
    dashtam: Dashtam, provider: Provider, rows: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    def first_a_sync_of_the_schedule(*_: object, **__: object) -> str:
        _now(rows, provider).status = "needs_reauth"
        rows.commit()
        return "a-task"

    monkeypatch.setattr(send, "send", first_a_sync_of_the_schedule)

    result = dashtam("sync", "Home", "--force", "--wait", "--timeout", "60")

    assert result.exit_code == 3
    assert "Home is needs_reauth" in result.stderr
    assert "nothing was synced" in result.stderr


@pytest.mark.deep
@pytest.mark.usefixtures("worker_at_once")
def test_waiting_for_all_leaves_out_what_was_synced_a_moment_ago(dashtam: Dashtam, linked: Provider) -> None:
    assert dashtam("sync", "Home", "--wait").exit_code == 0

    result = dashtam("sync", "--all", "--wait", "--timeout", "60")

    assert result.exit_code == 0
    assert "1 login left out" in result.stdout

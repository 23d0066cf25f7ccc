"""`dashtam sandbox` against a real sandbox: what a newcomer breaks, and how it is repaired."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import pytest

from tests.integration.cli.conftest import json_of
from tests.support.command_line import Dashtam
from tests.support.sandbox import SandboxAdmin, SandboxProcess
from worker.cli.demo_logins import USER
from worker.cli.home import write_private
from worker.models.vocabulary import Trigger
from worker.runtime import Runtime
from worker.sandbox.control import SandboxControl, access_file, access_text
from worker.services.sync import batch

pytestmark = pytest.mark.deep


@pytest.fixture
def home(tmp_path: Path, sandbox_process: SandboxProcess, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home of a `dashtam run` whose sandbox is the test's."""
    monkeypatch.setenv("DASHTAM_HOME", str(tmp_path))
    write_private(access_file(tmp_path), access_text(sandbox_process.base_url, sandbox_process.admin_token))
    return tmp_path


@pytest.fixture
def plaid_one(dashtam: Dashtam, home: Path, sandbox: SandboxAdmin) -> UUID:
    """Plaid one, linked as the demonstration links it."""
    token = dashtam("sandbox", "consent", "Plaid one").stdout
    linked = json_of(
        dashtam("link", "plaid", "--user", USER, "--create-user", "--alias", "Plaid one", "--json", stdin=token)
    )
    return UUID(linked["id"])


def _sync(runtime: Runtime, provider_id: UUID) -> None:
    runtime.run(batch.sync_providers(runtime, [provider_id], trigger=Trigger.MANUAL, force=True))


def _status(dashtam: Dashtam) -> tuple[str, str | None]:
    (row,) = json_of(dashtam("providers", "--json"))
    return row["status"], row["status_reason"]


def test_a_revoked_login_needs_its_user_and_may_be_linked_again_with_a_new_public_token(
    dashtam: Dashtam, plaid_one: UUID, runtime: Runtime
) -> None:
    _sync(runtime, plaid_one)
    dashtam("sandbox", "revoke", "Plaid one")
    _sync(runtime, plaid_one)
    assert _status(dashtam)[0] == "needs_reauth"

    token = dashtam("sandbox", "consent", "Plaid one").stdout
    again = dashtam("link", "plaid", "--user", USER, "--alias", "Plaid one", stdin=token)
    _sync(runtime, plaid_one)

    assert again.exit_code == 0, again.output
    assert _status(dashtam) == ("active", None)


def test_enter_completes_a_renewal_whose_link_token_was_printed(
    dashtam: Dashtam, plaid_one: UUID, runtime: Runtime
) -> None:
    printed = dashtam("sandbox", "revoke", "Plaid one").output
    _sync(runtime, plaid_one)
    renewal = ("link", "plaid", "--user", USER, "--alias", "Plaid one")

    too_early = dashtam(*renewal, stdin="\n")
    dashtam("sandbox", "consent", "Plaid one")
    renewed = dashtam(*renewal, stdin="\n")

    assert (too_early.exit_code, renewed.exit_code) == (3, 0)
    assert "link-sandbox-" in renewed.stderr
    assert renewed.stdout.startswith("linked Plaid one")
    link = f'dashtam link plaid --user {USER} --alias "Plaid one"'
    assert f'dashtam sandbox consent "Plaid one" > /dev/null && echo | {link}' in printed
    assert _status(dashtam) == ("active", None)


def test_a_renewal_that_nobody_answers_changes_nothing(dashtam: Dashtam, plaid_one: UUID, runtime: Runtime) -> None:
    dashtam("sandbox", "revoke", "Plaid one")
    _sync(runtime, plaid_one)

    result = dashtam("link", "plaid", "--user", USER, "--alias", "Plaid one", stdin="")

    assert result.exit_code == 2
    assert _status(dashtam)[0] == "needs_reauth"


def test_advance_makes_rows_that_the_next_sync_stores(dashtam: Dashtam, plaid_one: UUID, runtime: Runtime) -> None:
    _sync(runtime, plaid_one)
    before = json_of(dashtam("transactions", "--limit", "5000", "--json"))

    assert dashtam("sandbox", "advance", "Plaid one", "--steps", "30").exit_code == 0
    _sync(runtime, plaid_one)

    assert len(json_of(dashtam("transactions", "--limit", "5000", "--json"))) > len(before)


@pytest.mark.parametrize("kind", ["error", "slow", "silent", "reset", "truncated", "limited"])
def test_every_kind_of_fault_is_one_that_the_sandbox_takes(
    dashtam: Dashtam, home: Path, sandbox: SandboxAdmin, kind: str
) -> None:
    armed = json_of(dashtam("sandbox", "fault", "Schwab one", "--do", kind, "--times", "2", "--json"))

    assert armed == {"fault": kind, "login": "schwab-1", "times": 2}
    assert json_of(dashtam("sandbox", "restore", "--json")) == {"ended": 1}


def test_an_outage_lasts_until_it_is_restored(
    dashtam: Dashtam, plaid_one: UUID, runtime: Runtime, sandbox_process: SandboxProcess
) -> None:
    assert dashtam("sandbox", "outage", "Plaid one").exit_code == 0
    _sync(runtime, plaid_one)
    (failed,) = json_of(dashtam("runs", "--json"))

    assert dashtam("sandbox", "restore").exit_code == 0
    _sync(runtime, plaid_one)
    last, _ = json_of(dashtam("runs", "--json"))

    assert (failed["status"], last["status"]) == ("failed", "completed")
    assert SandboxControl(sandbox_process.base_url, sandbox_process.admin_token).disarm() == 0


def test_a_sandbox_that_is_gone_is_said_with_the_command_that_starts_it(dashtam: Dashtam, home: Path) -> None:
    write_private(access_file(home), access_text("http://127.0.0.1:1", "made-up"))

    result = dashtam("sandbox", "advance", "Plaid one")

    assert result.exit_code == 4
    assert result.stderr.endswith("is not running; nothing was changed. Start it in another terminal: dashtam run\n")

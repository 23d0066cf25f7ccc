from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.command_line import Dashtam
from worker.cli.home import write_private
from worker.sandbox.control import access_file, access_text


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home in which nothing was ever started."""
    monkeypatch.setenv("DASHTAM_HOME", str(tmp_path))
    return tmp_path


COMMANDS = ["revoke", "consent", "advance", "fault", "outage", "storm"]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_login_that_the_sandbox_does_not_have_is_named_with_those_that_it_has(
    dashtam: Dashtam, home: Path, command: str
) -> None:
    result = dashtam("sandbox", command, "Schwab nine")

    assert result.exit_code == 2
    assert result.stderr.startswith("error: the sandbox has no login 'Schwab nine'; nothing was changed.")
    assert '"Plaid one"' in result.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_without_a_sandbox_the_command_that_starts_one_is_named(dashtam: Dashtam, home: Path, command: str) -> None:
    result = dashtam("sandbox", command, "Plaid one")

    assert result.exit_code == 3
    assert result.stderr.endswith("nothing was changed. Start one in another terminal: dashtam run\n")


def test_a_fault_of_an_unknown_kind_is_refused_with_the_kinds(dashtam: Dashtam, home: Path) -> None:
    result = dashtam("sandbox", "fault", "Plaid one", "--do", "melt")

    assert result.exit_code == 2
    assert "--do 'melt' is none of error, slow, silent, reset, truncated, limited" in result.stderr


def test_a_login_that_is_linked_in_a_browser_hands_out_no_token(dashtam: Dashtam, home: Path) -> None:
    result = dashtam("sandbox", "consent", "Schwab one")

    assert result.exit_code == 3
    assert 'dashtam link schwab --user demo@dashtam.localhost --alias "Schwab one"' in result.stderr


def test_where_the_sandbox_is_can_be_read_by_its_owner_alone(tmp_path: Path) -> None:
    write_private(access_file(tmp_path), access_text("http://127.0.0.1:1", "made-up"))

    assert access_file(tmp_path).stat().st_mode & 0o777 == 0o600


def test_the_list_names_the_logins_of_the_demonstration(dashtam: Dashtam) -> None:
    assert "Schwab one" in dashtam("sandbox").output

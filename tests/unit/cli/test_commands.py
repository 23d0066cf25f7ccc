"""What holds for every command, whoever adds one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from tests.support.command_line import Dashtam
from worker.cli import app

_SECRET = re.compile(r"token|secret|password|key$|code")


def _commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    children = getattr(command, "commands", None)
    if children is None:
        yield " ".join(path), command
        return
    for name, child in children.items():
        yield from _commands(child, (*path, name))


COMMANDS = dict(_commands(typer.main.get_command(app)))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_can_print_json(name: str) -> None:
    assert "--json" in {option for parameter in COMMANDS[name].params for option in parameter.opts}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself_with_an_example(name: str) -> None:
    text = COMMANDS[name].help or ""

    assert "Example" in text
    assert re.search(rf"dashtam {name}\b", text), f"the example does not show `dashtam {name}`"


@pytest.mark.parametrize("name", COMMANDS)
def test_no_command_takes_a_secret_as_an_argument(name: str) -> None:
    taking = [
        parameter.name
        for parameter in COMMANDS[name].params
        if not getattr(parameter, "is_flag", False) and _SECRET.search(parameter.name or "")
    ]

    # `integrations pause KEY` and `keys retire KEY_ID` name things; they open nothing.
    assert set(taking) <= {"key", "key_id"}


@pytest.mark.parametrize(
    "group", ["providers", "runs", "quarantine", "failures", "integrations", "keys", "audit", "database", "devstack"]
)
def test_every_group_has_help(dashtam: Dashtam, group: str) -> None:
    result = dashtam(group, "--help")

    assert result.exit_code == 0
    assert "Commands" in result.output


def test_help_names_the_exit_codes(dashtam: Dashtam) -> None:
    assert "Exit codes" in dashtam("--help").output


def test_completion_can_be_installed(dashtam: Dashtam) -> None:
    assert "--install-completion" in dashtam("--help").output


def test_an_unknown_command_is_wrong_usage(dashtam: Dashtam) -> None:
    assert dashtam("nonsense").exit_code == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ("sync",),
        ("sync", "x", "--all"),
        ("sync", "x", "--full", "--since", "2025-01-01"),
        ("sync", "--all", "--since", "yesterday"),
        ("run", "--json"),
        ("integrations", "pause", "nobank"),
        ("providers", "interval", "x"),
        ("providers", "interval", "x", "--seconds", "0"),
        ("providers", "interval", "x", "--seconds", "60", "--usual"),
        ("keys", "generate", "--id", "a:b"),
        ("link", "nobank", "--user", "a@example.com", "--alias", "x"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_done(dashtam: Dashtam, arguments: tuple[str, ...]) -> None:
    result = dashtam(*arguments)

    assert result.exit_code == 2
    assert result.stdout == ""


def test_missing_configuration_names_the_variables(dashtam: Dashtam, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ENCRYPTION_KEYS")
    monkeypatch.setenv("DASHTAM_ENV_FILE", "/nonexistent")

    result = dashtam("status")

    assert result.exit_code == 5
    assert "ENCRYPTION_KEYS" in result.stderr
    assert "Traceback" not in result.output


def test_a_generated_key_is_one_that_encryption_accepts(dashtam: Dashtam) -> None:
    from worker.services.encryption import EncryptionService

    result = dashtam("keys", "generate", "--id", "k7")

    assert EncryptionService(result.stdout.strip()).key_id == "k7"

"""What holds for every command, whoever adds one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import pytest

from tests.support.command_line import Dashtam, command_tree
from worker.cli.times import moment_option
from worker.cli.tree import ENTRIES
from worker.settings import get_settings

_SECRET = re.compile(r"token|secret|password|key$|code")


def _commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    children = getattr(command, "commands", None)
    if children is None:
        yield " ".join(path), command
        return
    for name, child in children.items():
        yield from _commands(child, (*path, name))


TREE = command_tree()
COMMANDS = dict(_commands(TREE))


@pytest.mark.deep
@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_the_list_of_commands_says_what_each_commands_own_help_says(entry: Any) -> None:
    assert " ".join(TREE.commands[entry.name].help.split("\n\n")[0].split()) == entry.summary


@pytest.mark.deep
@pytest.mark.parametrize("name", COMMANDS)
def test_help_names_no_type_for_an_option_that_takes_no_value(dashtam: Dashtam, name: str) -> None:
    assert "<bool>" not in dashtam(*name.split(), "--help").output


@pytest.mark.deep
@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_can_print_json(name: str) -> None:
    assert "--json" in {option for parameter in COMMANDS[name].params for option in parameter.opts}


@pytest.mark.deep
@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself_with_an_example(name: str) -> None:
    text = COMMANDS[name].help or ""

    assert "Example" in text
    assert re.search(rf"dashtam {name}\b", text), f"the example does not show `dashtam {name}`"


@pytest.mark.deep
@pytest.mark.parametrize("name", COMMANDS)
def test_no_command_takes_a_secret_as_an_argument(name: str) -> None:
    taking = [
        parameter.name
        for parameter in COMMANDS[name].params
        if not getattr(parameter, "is_flag", False) and _SECRET.search(parameter.name or "")
    ]

    # `integrations pause KEY` and `keys retire KEY_ID` name things; they open nothing.
    assert set(taking) <= {"key", "key_id"}


@pytest.mark.deep
@pytest.mark.parametrize(
    "group",
    [
        "providers",
        "runs",
        "quarantine",
        "failures",
        "integrations",
        "keys",
        "api-keys",
        "simplefin",
        "audit",
        "database",
        "devstack",
        "sandbox",
    ],
)
def test_every_group_has_help(dashtam: Dashtam, group: str) -> None:
    result = dashtam(group, "--help")

    assert result.exit_code == 0
    assert "Commands" in result.output


@pytest.mark.deep
def test_help_names_the_exit_codes(dashtam: Dashtam) -> None:
    assert "Exit codes" in dashtam("--help").output


@pytest.mark.deep
def test_a_group_alone_prints_its_help(dashtam: Dashtam) -> None:
    assert "Commands" in dashtam("keys").output


@pytest.mark.deep
def test_completion_can_be_installed(dashtam: Dashtam) -> None:
    assert "--install-completion" in dashtam("--help").output


def test_the_version_is_that_of_the_package(dashtam: Dashtam) -> None:
    result = dashtam("--version")

    assert (result.exit_code, result.stdout) == (0, f"dashtam {version('dashtam-worker')}\n")


@pytest.mark.deep
@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ("nonsense", "error: No such command 'nonsense'. See: dashtam --help"),
        ("syc", "error: No such command 'syc'. Did you mean 'sync'? See: dashtam --help"),
        ("--nonsense", "error: No such option: --nonsense. See: dashtam --help"),
        ("providers nonsense", "error: No such command 'nonsense'. See: dashtam providers --help"),
        ("explain", "error: Missing argument 'PROVIDER'. See: dashtam explain --help"),
        ("explain a b", "error: Got unexpected extra argument(s) (b). See: dashtam explain --help"),
        ("runs --nonsense", "error: No such option: --nonsense. See: dashtam runs --help"),
    ],
)
def test_wrong_usage_is_one_line_that_names_the_help(dashtam: Dashtam, arguments: str, line: str) -> None:
    result = dashtam(*arguments.split())

    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr == f"{line}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("sync",),
        ("sync", "x", "--all"),
        ("sync", "x", "--full", "--since", "2025-01-01"),
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


@pytest.mark.parametrize("command", ["sync --all", "transactions", "export --user a@example.com --output x"])
@pytest.mark.parametrize("day", ["yesterday", "2026-13-01", "2026-02-30"])
def test_a_day_that_does_not_exist_is_named_with_an_example(dashtam: Dashtam, command: str, day: str) -> None:
    result = dashtam(*command.split(), "--since", day)

    assert (result.exit_code, result.stdout) == (2, "")
    assert f"Invalid value for '--since': '{day}' is not a day; write it as in 2026-01-31." in result.stderr


@pytest.mark.parametrize("command", ["audit list", "hooks replay 0199a"])
def test_a_moment_that_does_not_exist_is_named_with_an_example(dashtam: Dashtam, command: str) -> None:
    result = dashtam(*command.split(), "--since", "2026-01-31T25:00")

    assert (result.exit_code, result.stdout) == (2, "")
    assert "'2026-01-31T25:00' is not a moment; write it as in 2026-01-31 or 2026-01-31T10:00:00" in result.stderr


@pytest.mark.parametrize(
    ("given", "moment"),
    [
        ("2026-01-31", datetime(2026, 1, 31, tzinfo=UTC)),
        ("2026-01-31T10:00:00", datetime(2026, 1, 31, 10, tzinfo=UTC)),
        ("2026-01-31T10:00:00+02:00", datetime(2026, 1, 31, 8, tzinfo=UTC)),
    ],
)
def test_a_moment_is_read_in_utc(given: str, moment: datetime) -> None:
    assert moment_option("").parser(given) == moment


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


def test_a_generated_key_has_an_id_that_no_configured_key_has(
    dashtam: Dashtam, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = dashtam("keys", "generate", "--id", "k1").stdout.strip()
    monkeypatch.setenv("ENCRYPTION_KEYS", taken)
    for name, value in {"DATABASE_URL": "postgresql://u:p@127.0.0.1/x", "REDIS_URL": "redis://127.0.0.1"}.items():
        monkeypatch.setenv(name, value)
    get_settings.cache_clear()
    try:
        result = dashtam("keys", "generate")
    finally:
        get_settings.cache_clear()

    assert result.stdout.startswith("k2:"), result.output

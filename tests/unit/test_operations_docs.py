"""Commands in docs/operations.md exist and take the options that they are given."""

from __future__ import annotations

import json
import re
import shlex
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.command_line import command_tree

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/operations.md").read_text()
LINES = [
    line for block in re.findall(r"^```sh\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL) for line in block.splitlines()
]
INLINE = [span for span in re.findall(r"`([^`]+)`", TEXT.replace("\n", " ")) if span.startswith("dashtam ")]
COMPOSE = yaml.load((ROOT / "docker-compose.yml").read_text(), Loader=yaml.CSafeLoader)
KNOWN = {"dashtam", "docker-compose", "python", "cp", "honcho", "pg_dump", "pg_restore", "curl", "find"}


@cache
def our_cli() -> Any:
    return command_tree()


def dashtam(line: str) -> None:
    """Fails unless the command line has this command with these options."""
    words = [word for word in shlex.split(line.partition(" < ")[0])[1:] if word != "…"]
    command = our_cli()
    while words and words[0] in getattr(command, "commands", {}):
        command = command.commands[words.pop(0)]
    if hasattr(command, "commands"):
        assert command.invoke_without_command, f"{line}: which command?"
        assert not [word for word in words if not word.startswith("-")], line
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    assert {word for word in words if word.startswith("--")} <= known | {"--help"}, line


@pytest.mark.deep
@pytest.mark.parametrize("line", [line for line in LINES if line.startswith("dashtam ")] + INLINE)
def test_command_of_ours_exists_with_its_options(line: str) -> None:
    dashtam(line)


@pytest.mark.deep
@pytest.mark.parametrize("line", [line for line in LINES if line.startswith("docker-compose ")])
def test_compose_commands_name_what_the_file_has(line: str) -> None:
    services = set(COMPOSE["services"])
    profiles = {profile for service in COMPOSE["services"].values() for profile in service.get("profiles", [])}
    words = shlex.split(line)

    if "--profile" in words:
        assert words[words.index("--profile") + 1] in profiles
    if "--rm" in words:
        assert words[words.index("--rm") + 1] in services
    if "--scale" in words:
        assert words[words.index("--scale") + 1].split("=")[0] in services
    if " dashtam " in line:
        dashtam("dashtam " + line.partition(" dashtam ")[2])


def test_every_other_command_is_one_that_is_known_here() -> None:
    assert {line.split()[0] for line in LINES} <= KNOWN


def test_example_of_a_manual_trigger_is_json_for_a_task_that_exists() -> None:
    from worker.app import app

    app.loader.import_default_modules()
    (line,) = [line for line in LINES if line.startswith("curl")]
    words = shlex.split(line)

    assert json.loads(words[words.index("--json") + 1])["args"]
    assert words[-1].rpartition("/")[2] in app.tasks


def test_files_that_are_named_exist() -> None:
    for path in re.findall(r"`((?:ops|worker|docs)/[\w./]+)`", TEXT) + re.findall(r"\]\(([\w/]+\.\w+)\)", TEXT):
        assert (ROOT / path).exists() or (ROOT / "docs" / path).exists() or (ROOT / path.rstrip("/")).is_dir(), path


def test_links_within_the_page_lead_somewhere() -> None:
    found = re.findall(r"^#+ (.*)$", TEXT, re.MULTILINE)
    headings = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in found}

    assert set(re.findall(r"\]\(#([\w-]+)\)", TEXT)) <= headings

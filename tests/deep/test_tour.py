"""The commands of docs/tour.md, run as they are printed against one real `make run`."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.environment import ROOT
from tests.support.waiting import PATIENCE_S, wait_for

# All of them in one process: they share a `make run`.
pytestmark = [pytest.mark.xdist_group("tour"), pytest.mark.long]

TEXT = (ROOT / "docs/tour.md").read_text()
TOURS = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL))
INTRODUCTION = TEXT.partition("\n## ")[0]
_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_MARK = "\x1e"


@dataclass(frozen=True)
class Step:
    """One printed command.

    Attributes:
        exits: the exit codes that it may have.
        prints: pieces of its output, in their order.
    """

    command: str
    exits: frozenset[int]
    prints: tuple[str, ...]


def steps(text: str) -> list[Step]:
    """The commands in the blocks of a text."""
    found = []
    for block in _BLOCK.findall(text):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            line, _, printed = part.partition("\n")
            command, _, comment = line.partition("  # exits ")
            exits = frozenset(map(int, re.findall(r"\d+", comment))) or frozenset({0})
            pieces = tuple(piece.strip() for piece in printed.split("…") if piece.strip())
            found.append(Step(command.strip(), exits, pieces))
    return found


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory like a checkout, in which `make run` is up and everything was synced once."""
    place = tmp_path_factory.mktemp("tour")
    for entry in ROOT.iterdir():
        if entry.name not in (".dashtam", ".venv", ".env", ".git"):
            (place / entry.name).symlink_to(entry)
    (place / ".venv").symlink_to(sys.prefix)
    (make,) = [step.command for step in steps(INTRODUCTION) if step.command.startswith("make")]
    # The environment is the one that the tests run in: it is not made anew.
    command = [*make.split(), "-o", ".venv/.complete"]
    with (place / "make.out").open("w") as output:
        process = subprocess.Popen(
            command, cwd=place, env=_environment(), stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            wait_for(lambda: _all_synced(place), what="all logins to be synced", every=0.5)
            yield place
        finally:
            os.killpg(process.pid, signal.SIGINT)
            assert process.wait(PATIENCE_S) in (0, 2, 130, -signal.SIGINT), (place / "make.out").read_text()


def _environment() -> dict[str, str]:
    """Nothing of the test session's own settings reaches the tour."""
    ours = ("DASHTAM_", "DATABASE_", "REDIS_", "ENCRYPTION_", "TEST_", "PLAID_", "SCHWAB_", "FLOWER_", "WEB_", "MAKE")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return kept | {"COLUMNS": "200"}


def _all_synced(place: Path) -> bool:
    done = subprocess.run(
        [".venv/bin/dashtam", "providers", "--json"], cwd=place, env=_environment(), capture_output=True, check=False
    )
    logins = json.loads(done.stdout) if done.returncode == 0 else []
    return len(logins) == 4 and all(login["synced_at"] for login in logins)


def run(tour: list[Step], place: Path) -> list[tuple[int, str]]:
    """Exit code and output of each command, all in one shell."""
    lines = [f"{step.command}\nprintf '{_MARK}%s{_MARK}' $?" for step in tour]
    done = subprocess.run(
        ["/usr/bin/env", "bash", "-c", "\n".join(lines)],
        cwd=place,
        env=_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    outputs = done.stdout.split(_MARK)
    return [(int(code), output) for output, code in zip(outputs[::2], outputs[1::2], strict=False)]


def _flat(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("name", TOURS)
def test_every_command_of_a_tour_works_as_printed(name: str, checkout: Path) -> None:
    tour = [step for step in steps(INTRODUCTION) if not step.command.startswith("make")] + steps(TOURS[name])

    happened = run(tour, checkout)

    assert len(happened) == len(tour)
    for step, (code, output) in zip(tour, happened, strict=True):
        assert code in step.exits, f"{step.command} exited {code}:\n{output}"
        rest = _flat(output)
        for piece in step.prints:
            assert _flat(piece) in rest, f"{step.command} did not print {piece!r}:\n{output}"
            rest = rest.partition(_flat(piece))[2]


def test_there_are_four_tours() -> None:
    assert list(TOURS) == ["First steps", "Trouble at night", "Building on it", "Looking at it"]

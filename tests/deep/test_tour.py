"""The commands of docs/tour.md, run as they are printed against one real `make run`."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.demonstration import clean_environment
from tests.support.environment import ROOT

# All of them in one process: they share a `make run`.
pytestmark = [pytest.mark.xdist_group("tour"), pytest.mark.long]

TEXT = (ROOT / "docs/tour.md").read_text()
TOURS = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL))
README = (ROOT / "README.md").read_text()
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


def run(tour: list[Step], place: Path) -> list[tuple[int, str]]:
    """Exit code and output of each command, all in one shell."""
    lines = [f"{step.command}\nprintf '{_MARK}%s{_MARK}' $?" for step in tour]
    done = subprocess.run(
        ["/usr/bin/env", "bash", "-c", "\n".join(lines)],
        cwd=place,
        env=clean_environment(),
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
        _require(step, code, output)


def _require(step: Step, code: int, output: str) -> None:
    """Fails unless a command ended as it is printed."""
    assert code in step.exits, f"{step.command} exited {code}:\n{output}"
    rest = _flat(output)
    for piece in step.prints:
        assert _flat(piece) in rest, f"{step.command} did not print {piece!r}:\n{output}"
        rest = rest.partition(_flat(piece))[2]


IDS = 'import json, sys; print(*(row["id"] for row in json.load(sys.stdin)), sep="\\n")'


def test_the_four_ways_out_of_the_readme_work_as_printed(checkout: Path) -> None:
    section = README.partition("\n## Where your data goes\n")[2].partition("\n## ")[0]
    ways = steps(section)
    assert len(ways) == 12, "four ways, each in three lines"

    # Nobody listens at the address of the hook: the other tests of this world must not find deliveries that wait.
    clean = Step(f"dashtam hooks list --json | python -c '{IDS}' | xargs -n1 dashtam hooks remove", frozenset({0}), ())

    begin = Step(". .venv/bin/activate", frozenset({0}), ())
    happened = run([begin, *ways, clean], checkout)[1:]

    assert len(happened) == len(ways) + 1
    for step, (code, output) in zip([*ways, clean], happened, strict=True):
        _require(step, code, output)


def test_there_are_four_tours() -> None:
    assert list(TOURS) == ["First steps", "Trouble at night", "Building on it", "Looking at it"]


def test_tours_begin_with_what_their_world_was_started_by() -> None:
    assert [step.command for step in steps(INTRODUCTION) if step.command.startswith("make")] == ["make run"]

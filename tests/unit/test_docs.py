"""Documentation that names things names things that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.command_line import command_tree

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
_LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)#\s]+)")
_COMMAND = re.compile(r"^\s*(?:\$ )?dashtam ([a-z-]+)(?: ([a-z]+))?", re.MULTILINE)
_TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.deep
@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_links_lead_somewhere(page: Path) -> None:
    missing = [link for link in _LINK.findall(page.read_text()) if not (page.parent / link).exists()]

    assert not missing


@pytest.fixture(scope="module")
def groups() -> dict[str, set[str]]:
    return {name: set(getattr(command, "commands", {})) for name, command in command_tree().commands.items()}


@pytest.mark.deep
@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_commands_exist(page: Path, groups: dict[str, set[str]]) -> None:
    for command, rest in _COMMAND.findall(page.read_text()):
        assert command in groups, f"dashtam {command}"
        if groups[command] and rest:
            assert rest in groups[command], f"dashtam {command} {rest}"


@pytest.mark.deep
def test_every_promise_names_tests_that_exist() -> None:
    promises = (ROOT / "docs" / "promises.md").read_text().split("\n## ")[1:]

    assert len(promises) == 21
    for promise in promises:
        tests = _TEST.findall(promise)
        assert tests, promise.partition("\n")[0]
        for path, function in tests:
            assert re.search(rf"def {function}\(", (ROOT / path).read_text()), f"{path}::{function}"


def test_architecture_names_every_folder_of_the_worker() -> None:
    tree = (ROOT / "docs" / "architecture.md").read_text().split("## Where things are")[1].split("```")[1]
    named = set(re.findall(r"\b(\w+)/", tree))
    folders = {
        path.parent.name
        for path in (ROOT / "worker").rglob("__init__.py")
        if not {"versions", "stand_in", "contract"} & set(path.parts)
    }

    assert folders - named == set()
    assert named - folders - {"schedules", "tests", "stand_in"} == set()


@pytest.mark.deep
@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_files_of_the_worker_that_are_named_exist(page: Path) -> None:
    named = re.findall(r"`((?:worker|schedules)/[\w/]+\.py)", page.read_text())

    assert [name for name in named if not (ROOT / name).exists()] == []

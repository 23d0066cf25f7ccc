"""Every schedule entry runs something, and no tick outlives the next."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import schedules
from tests.support.environment import ROOT
from worker.app import app
from worker.settings import get_settings
from worker.settings.celery import TASK_MODULES, celery_settings

MODULES = sorted((ROOT / "schedules").glob("[!_]*.py"))


@pytest.fixture(scope="module")
def registered() -> set[str]:
    app.loader.import_default_modules()
    return set(app.tasks)


@pytest.mark.parametrize("name", sorted(schedules.ENTRIES))
def test_entry_names_a_registered_task(name: str, registered: set[str]) -> None:
    assert schedules.ENTRIES[name][0] in registered


@pytest.mark.deep
@pytest.mark.parametrize("scale", [1.0, 0.05, 4.0])
@pytest.mark.parametrize("name", sorted(schedules.ENTRIES))
def test_tick_expires_before_the_next_one(name: str, scale: float) -> None:
    entry = schedules.beat_schedule(scale=scale)[name]

    assert 0 < entry["options"]["expires"] < entry["schedule"]


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.stem)
def test_entries_of_every_schedule_file_are_in_the_schedule(module: Path) -> None:
    own = next(
        ast.literal_eval(node.value)
        for node in ast.parse(module.read_text()).body
        if isinstance(node, ast.AnnAssign) and node.value is not None
    )

    assert own
    assert own.items() <= schedules.ENTRIES.items()


def test_no_two_files_use_one_name() -> None:
    names = [name for file in (schedules.tokens, schedules.accounts, schedules.upkeep) for name in file.ENTRIES]

    assert len(names) == len(set(names)) == len(schedules.ENTRIES)


def test_every_task_module_is_included() -> None:
    modules = {f"worker.tasks.{path.stem}" for path in (ROOT / "worker" / "tasks").glob("[!_]*.py")}

    assert modules - {"worker.tasks.base", "worker.tasks.send"} == set(TASK_MODULES)


def test_celery_runs_the_schedule_at_the_configured_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TICK_SCALE", "0.5")

    beat = celery_settings(get_settings())["beat_schedule"]

    assert {name: entry["schedule"] for name, entry in beat.items()} == {
        name: seconds / 2 for name, (_, seconds) in schedules.ENTRIES.items()
    }

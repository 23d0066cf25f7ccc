"""A tick is named once: its task, interval, expiry and heartbeat follow from that name."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from schedules import ENTRIES, beat_schedule, tick_seconds
from tests.support.environment import ROOT
from worker.app import app
from worker.tasks import ticks

NOW = datetime(2025, 3, 14, 12, tzinfo=UTC)
TASKS = ROOT / "worker" / "tasks"


class FakeRuntime:
    """Runs what it is given at once; its time stands still."""

    def run(self, work: Any) -> Any:
        return work

    def now(self) -> datetime:
        return NOW


@pytest.fixture
def beats(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, datetime]]]:
    kept: list[tuple[str, datetime]] = []
    monkeypatch.setattr(ticks, "get_runtime", FakeRuntime)
    monkeypatch.setattr(ticks, "upkeep", SimpleNamespace(beat=lambda _, name, at: kept.append((name, at))))
    monkeypatch.setitem(ENTRIES, "made-up", ("worker.tasks.upkeep.made_up", 40))
    yield kept
    app.tasks.pop("worker.tasks.upkeep.made_up", None)


def test_tick_has_the_name_of_its_entry_everywhere(beats: list[tuple[str, datetime]]) -> None:
    called_at = []

    @ticks.tick("made-up")
    def made_up(_: Any, now: datetime) -> None:
        called_at.append(now)

    made_up()

    assert made_up.name == "worker.tasks.upkeep.made_up"
    assert (called_at, beats) == ([NOW], [("made-up", NOW)])
    assert beat_schedule(scale=0.5)["made-up"] == {
        "task": made_up.name,
        "schedule": tick_seconds("made-up", scale=0.5),
        "options": {"expires": pytest.approx(18)},
    }


def test_tick_that_fails_leaves_no_heartbeat(beats: list[tuple[str, datetime]]) -> None:
    @ticks.tick("made-up")
    def made_up(_: Any, __: datetime) -> None:
        raise RuntimeError("the work failed")

    with pytest.raises(RuntimeError, match="the work failed"):
        made_up()

    assert beats == []


def test_tick_without_an_entry_in_the_schedule_is_refused() -> None:
    with pytest.raises(KeyError, match="no-such-entry"):
        ticks.tick("no-such-entry")


def test_every_entry_of_the_schedule_is_one_tick() -> None:
    named = [
        ast.literal_eval(decorator.args[0])
        for path in sorted(TASKS.glob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
        for decorator in node.decorator_list
        if isinstance(decorator, ast.Call) and isinstance(decorator.func, ast.Name) and decorator.func.id == "tick"
    ]

    assert sorted(named) == sorted(ENTRIES)

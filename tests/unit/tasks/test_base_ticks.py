"""A tick is named once: its task, interval, expiry and heartbeat follow from that name."""

from __future__ import annotations

import ast
import asyncio
import math
from collections.abc import Coroutine, Iterator
from datetime import UTC, datetime
from typing import Any, ClassVar

import pytest

from schedules import ENTRIES, beat_schedule, tick_seconds
from tests.support.environment import ROOT
from worker.app import app
from worker.crud import heartbeats
from worker.tasks import base

NOW = datetime(2025, 3, 14, 12, tzinfo=UTC)
TASKS = ROOT / "worker" / "tasks"


class FakeRuntime:
    """Runs what it is given at once, and keeps heartbeats; its time stands still."""

    kept: ClassVar[list[tuple[str, datetime]]] = []
    spool_told_at = math.inf

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run(work)

    async def now(self) -> datetime:
        return NOW

    async def db(self, step: Any, *, name: str, at: datetime) -> None:
        assert step is heartbeats.beat
        self.kept.append((name, at))


@pytest.fixture
def beats(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, datetime]]]:
    kept: list[tuple[str, datetime]] = []
    monkeypatch.setattr(FakeRuntime, "kept", kept)
    monkeypatch.setattr(base, "get_runtime", FakeRuntime)
    monkeypatch.setitem(ENTRIES, "made-up", ("worker.tasks.upkeep.made_up", 40))
    yield kept
    app.tasks.pop("worker.tasks.upkeep.made_up", None)


def test_tick_has_the_name_of_its_entry_everywhere(beats: list[tuple[str, datetime]]) -> None:
    called_at = []

    @base.tick("made-up")
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
    @base.tick("made-up")
    def made_up(_: Any, __: datetime) -> None:
        raise RuntimeError("the work failed")

    with pytest.raises(RuntimeError, match="the work failed"):
        made_up()

    assert beats == []


def test_tick_without_an_entry_in_the_schedule_is_refused() -> None:
    with pytest.raises(KeyError, match="no-such-entry"):
        base.tick("no-such-entry")


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

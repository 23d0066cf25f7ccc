"""`dashtam run`, its processes and servers left out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.command_line import Dashtam
from worker.cli import run
from worker.cli.exits import Interrupted
from worker.cli.run import environment
from worker.devstack import Urls


@pytest.fixture
def cycle(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> SimpleNamespace:
    """What a cycle is to come to (`result` or `error`), and what was asked of it (`asked`)."""
    told = SimpleNamespace(asked=[], result={"ok": True, "seconds": 1.0, "providers": [], "missing": []}, error=None)

    def once(**_: float) -> dict[str, Any]:
        if told.error is not None:
            raise told.error
        return dict(told.result)

    @contextmanager
    def started(_: object, **options: Any) -> Iterator[SimpleNamespace]:
        told.asked.append(options)
        yield SimpleNamespace(once=once, watch=lambda console: told.asked.append("watched"))

    @contextmanager
    def session(_: object) -> Iterator[Urls]:
        yield Urls("postgresql://here", "redis://here")

    monkeypatch.setenv("DASHTAM_HOME", str(tmp_path))
    monkeypatch.setattr(run.Devstack, "session", session)
    monkeypatch.setattr(run.schema, "upgrade", lambda: told.asked.append("migrated"))
    monkeypatch.setattr(run, "started", started)
    monkeypatch.setattr(environment, "prepare", lambda *_, **__: None)
    return told


def test_once_prints_the_summary_alone_as_json(dashtam: Dashtam, cycle: SimpleNamespace) -> None:
    result = dashtam("run", "--once", "--json")

    assert result.exit_code == 0
    assert '"ok": true' in result.stdout
    assert cycle.asked[0] == "migrated"
    assert cycle.asked[1]["live"] is False


def test_once_fails_when_something_did_not_happen(dashtam: Dashtam, cycle: SimpleNamespace) -> None:
    cycle.result = {"ok": False, "seconds": 55.0, "providers": [], "missing": ["Schwab one: no sync"]}

    result = dashtam("run", "--once")

    assert result.exit_code == 1
    assert "did not happen: Schwab one: no sync" in result.stdout


def test_once_that_was_interrupted_says_so(dashtam: Dashtam, cycle: SimpleNamespace) -> None:
    cycle.error = Interrupted("stopped before the cycle was whole")

    assert dashtam("run", "--once").exit_code == 130


def test_without_once_it_watches_with_books_that_move(dashtam: Dashtam, cycle: SimpleNamespace) -> None:
    assert dashtam("run").exit_code == 0

    assert cycle.asked[1]["live"] is True
    assert cycle.asked[2] == "watched"


def test_the_life_of_tokens_can_be_chosen(dashtam: Dashtam, cycle: SimpleNamespace) -> None:
    dashtam("run", "--access-seconds", "90")

    assert cycle.asked[1]["access_seconds"] == 90

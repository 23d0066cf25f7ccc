"""How Flower is configured, without starting it."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import pytest

from worker.errors import ConfigurationError
from worker.settings import Settings, load
from worker.telemetry.flower import Ticks, flower_options, ids_only


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DASHTAM_HOME", str(tmp_path))


def test_without_a_password_there_are_no_options() -> None:
    with pytest.raises(ConfigurationError, match="FLOWER_PASSWORD: is required"):
        flower_options(load(Settings))


def test_it_listens_on_loopback_and_only_looks(tmp_path: Path) -> None:
    options = flower_options(load(Settings, flower_password="p" * 12))

    assert options["address"] == "127.0.0.1"
    assert options["read_only"] is True
    assert options["basic_auth"] == ["operator:" + "p" * 12]
    assert options["enable_events"]
    assert options["natural_time"]
    assert Path(options["db"]).parent == tmp_path / "flower"
    assert (tmp_path / "flower").stat().st_mode & 0o077 == 0


def test_triggers_are_a_choice() -> None:
    assert flower_options(load(Settings, flower_password="p" * 12, flower_allow_triggers=True))["read_only"] is False


def test_event_keeps_ids_and_loses_other_arguments() -> None:
    ids = [str(uuid4()) for _ in range(7)]
    event = {"type": "task-received", "args": f"[{ids}, 'word']", "kwargs": "{'token': 'abc'}", "uuid": ids[0]}

    clean = ids_only(event)

    assert clean["args"] == ", ".join(ids[:5]) + " and 2 more"
    assert clean["kwargs"] == ""
    assert (clean["type"], clean["uuid"]) == ("task-received", ids[0])
    assert event["kwargs"] == "{'token': 'abc'}"


def test_event_s_texts_are_redacted() -> None:
    event = {"type": "task-failed", "exception": "Refused('password=abc')", "traceback": "token='abc'", "result": None}

    clean = ids_only(event)

    assert "abc" not in str(clean)
    assert clean["result"] is None


TICK = "worker.tasks.tokens.refresh_due"


def _shown(*events: tuple[str, str, str | None]) -> list[tuple[str, str]]:
    """Type and id of what is shown of events, which are given by type, id and name."""
    ticks = Ticks({TICK})
    came = [{"type": f"task-{kind}", "uuid": task_id, "name": name} for kind, task_id, name in events]
    return [(shown["type"], shown["uuid"]) for event in came for shown in ticks.let_through(event)]


def test_a_tick_that_succeeded_is_not_shown() -> None:
    tick = [("sent", "1", TICK), ("received", "1", TICK), ("started", "1", None), ("succeeded", "1", None)]

    assert _shown(*tick) == []


@pytest.mark.parametrize("end", ["failed", "retried", "revoked", "rejected"])
def test_a_tick_that_did_not_succeed_is_shown_from_its_beginning(end: str) -> None:
    shown = _shown(("received", "1", TICK), ("started", "1", None), (end, "1", None))

    assert shown == [("task-received", "1"), ("task-started", "1"), (f"task-{end}", "1")]


def test_other_tasks_are_shown_as_their_events_come() -> None:
    other = "worker.tasks.tokens.refresh_providers"

    shown = _shown(
        ("received", "1", TICK), ("received", "2", other), ("succeeded", "2", None), ("succeeded", "1", None)
    )

    assert shown == [("task-received", "2"), ("task-succeeded", "2")]


def test_events_of_workers_are_shown() -> None:
    assert Ticks({TICK}).let_through({"type": "worker-heartbeat"}) == [{"type": "worker-heartbeat"}]


def test_ticks_whose_end_is_never_reported_take_no_room_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.telemetry.flower._TICKS_HELD", 10)
    ticks = Ticks({TICK})

    for number in range(50):
        ticks.let_through({"type": "task-received", "uuid": str(number), "name": TICK})

    assert len(ticks._held) == 10

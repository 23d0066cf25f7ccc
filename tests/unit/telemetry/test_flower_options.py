"""How Flower is configured, without starting it."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import pytest

from worker.errors import ConfigurationError
from worker.settings import Settings, load
from worker.telemetry.flower import flower_options, ids_only


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

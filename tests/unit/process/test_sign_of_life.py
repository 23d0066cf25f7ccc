from __future__ import annotations

import os
from pathlib import Path

import pytest

from worker.process import sign_of_life
from worker.process.sign_of_life import EVERY_S, SignOfLife


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The clock of this process; the test sets it."""
    clock = [1000.0]
    monkeypatch.setattr(sign_of_life.time, "monotonic", lambda: clock[0])
    return clock


def age(path: Path) -> None:
    """Makes the file look old."""
    os.utime(path, (0, 0))


def is_fresh(path: Path) -> bool:
    return path.exists() and path.stat().st_mtime > 0


def test_file_is_touched_at_most_every_five_seconds(tmp_path: Path, now: list[float]) -> None:
    alive = tmp_path / "alive"
    life = SignOfLife()
    life.begin(alive)
    age(alive)

    now[0] += EVERY_S - 1
    life.works()
    assert not is_fresh(alive)

    now[0] += 1
    life.works()
    assert is_fresh(alive)


def test_second_file_is_touched_only_while_the_broker_is_connected(tmp_path: Path, now: list[float]) -> None:
    alive, connected = tmp_path / "alive", tmp_path / "alive.connected"
    life = SignOfLife()

    life.begin(alive)
    assert is_fresh(alive)
    assert not connected.exists()

    now[0] += EVERY_S
    age(alive)
    life.is_connected()
    assert is_fresh(alive)
    assert is_fresh(connected)


def test_without_the_setting_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    life = SignOfLife()

    life.is_connected()
    life.begin(None)
    life.is_connected()

    assert list(tmp_path.iterdir()) == []


def test_folder_that_is_missing_stops_nothing(tmp_path: Path) -> None:
    SignOfLife().begin(tmp_path / "missing" / "alive")

    assert list(tmp_path.iterdir()) == []


def test_process_that_was_forked_shows_no_life_in_the_name_of_its_parent(
    tmp_path: Path, now: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    alive = tmp_path / "alive"
    life = SignOfLife()
    life.begin(alive)
    age(alive)
    now[0] += EVERY_S

    monkeypatch.setattr(sign_of_life.os, "getpid", lambda: -1)
    life.works()

    assert not is_fresh(alive)

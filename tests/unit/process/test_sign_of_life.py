from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from worker.process import sign_of_life
from worker.process.sign_of_life import EVERY_S, SignOfLife, show_life_between_attempts


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
    life = SignOfLife(alive)
    life.works()
    age(alive)

    now[0] += EVERY_S - 1
    life.works()
    assert not is_fresh(alive)

    now[0] += 1
    life.works()
    assert is_fresh(alive)


def test_second_file_is_touched_only_while_the_broker_is_connected(tmp_path: Path, now: list[float]) -> None:
    alive, connected = tmp_path / "alive", tmp_path / "alive.connected"
    life = SignOfLife(alive)

    life.works()
    assert is_fresh(alive)
    assert not connected.exists()

    now[0] += EVERY_S
    age(alive)
    life.is_connected()
    assert is_fresh(alive)
    assert is_fresh(connected)


def test_without_the_setting_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    SignOfLife(None).is_connected()

    assert list(tmp_path.iterdir()) == []


def test_folder_that_is_missing_stops_nothing(tmp_path: Path) -> None:
    SignOfLife(tmp_path / "missing" / "alive").is_connected()

    assert list(tmp_path.iterdir()) == []


def test_process_that_waits_for_its_broker_shows_life_and_still_asks_whether_to_stop(tmp_path: Path) -> None:
    alive, asked = tmp_path / "alive", []

    class Connection:
        def ensure_connection(self, *args: Any, callback: Any = None, **kwargs: Any) -> tuple[Any, ...]:
            callback()
            return args, kwargs

    connection = Connection()
    show_life_between_attempts(connection, SignOfLife(alive))

    given = connection.ensure_connection("errback", None, callback=lambda: asked.append(True), timeout=3)

    assert given == (("errback", None), {"timeout": 3})
    assert asked == [True]
    assert is_fresh(alive)
    assert not (tmp_path / "alive.connected").exists()

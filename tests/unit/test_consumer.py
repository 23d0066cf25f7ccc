from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kombu.exceptions import OperationalError

from worker.app import app
from worker.process.sign_of_life import LIFE


@pytest.fixture
def alive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    file = tmp_path / "alive"
    LIFE.begin(file)
    os.utime(file, (0, 0))
    LIFE._touched.clear()
    yield file
    LIFE.begin(None)


def test_each_attempt_to_connect_shows_life(alive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(*_: Any) -> None:
        raise OSError("timed out")

    connection = app.connection_for_write("memory://")
    monkeypatch.setattr(connection.transport, "establish_connection", silent)

    with pytest.raises((OSError, OperationalError)):
        connection.connect()

    assert alive.stat().st_mtime > 0
    assert not alive.with_name("alive.connected").exists()

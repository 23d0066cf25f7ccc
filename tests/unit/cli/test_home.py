from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from worker.cli.home import adopt_environment, write_environment


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home, and an environment that says nothing of servers."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DASHTAM_HOME", str(tmp_path))
    for name in ("DATABASE_URL", "DATABASE_URL_FILE", "DASHTAM_ENV_FILE", "REDIS_URL"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    return tmp_path


def test_commands_find_the_servers_of_the_home(home: Path) -> None:
    write_environment(home, {"DATABASE_URL": "postgresql://here", "REDIS_URL": "redis://here"})

    adopt_environment()

    assert os.environ["DATABASE_URL"] == "postgresql://here"
    assert os.environ["REDIS_URL"] == "redis://here"


def test_the_environment_goes_before_the_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_environment(home, {"DATABASE_URL": "postgresql://home", "REDIS_URL": "redis://home"})
    monkeypatch.setenv("DATABASE_URL", "postgresql://mine")

    adopt_environment()

    assert os.environ["DATABASE_URL"] == "postgresql://mine"
    assert "REDIS_URL" not in os.environ


def test_a_dotenv_file_goes_before_the_home(home: Path) -> None:
    write_environment(home, {"DATABASE_URL": "postgresql://home"})
    (home / ".env").write_text("DATABASE_URL=postgresql://mine\n")

    adopt_environment()

    assert "DATABASE_URL" not in os.environ


def test_without_a_home_nothing_changes(home: Path) -> None:
    adopt_environment()

    assert "DATABASE_URL" not in os.environ


def test_the_file_is_for_its_owner_alone(home: Path) -> None:
    path = write_environment(home, {"DATABASE_URL": "postgresql://here"})

    assert stat.S_IMODE(path.stat().st_mode) == 0o600

from __future__ import annotations

from pathlib import Path

import pytest

from worker.settings.given import is_given


@pytest.fixture(autouse=True)
def _nothing_is_given(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DASHTAM_ENV_FILE", str(tmp_path / "env"))
    monkeypatch.delenv("CREDENTIALS_DIR", raising=False)
    (tmp_path / "env").write_text("MADE_UP_EMPTY=\nMADE_UP_WRITTEN=x\n")


@pytest.mark.parametrize("name", ["MADE_UP", "MADE_UP_FILE"])
def test_variable_of_the_environment_is_given(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    assert not is_given("MADE_UP")

    monkeypatch.setenv(name, "x")

    assert is_given("MADE_UP")


def test_variable_of_the_env_file_is_given_if_it_is_not_empty() -> None:
    assert is_given("MADE_UP_WRITTEN")
    assert not is_given("MADE_UP_EMPTY")


def test_file_in_the_credentials_directory_is_given_if_it_is_not_empty(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CREDENTIALS_DIR", str(tmp_path))
    (tmp_path / "made_up").write_text("")
    assert not is_given("MADE_UP")

    (tmp_path / "made_up").write_text("x")

    assert is_given("MADE_UP")

"""The devstack's decisions that need no server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from worker.devstack import Devstack, DevstackError, ServerStatus, Urls, default_home
from worker.devstack.__main__ import main

pytestmark = pytest.mark.unit

EXTERNAL = {"DATABASE_URL": "postgresql+psycopg://db.test/x", "REDIS_URL": "redis://redis.test/0"}


def test_up_starts_nothing_when_the_environment_names_both_servers(tmp_path: Path) -> None:
    home = tmp_path / "home"

    urls = Devstack(home, durable=True, environ=EXTERNAL).up()

    assert urls == Urls(EXTERNAL["DATABASE_URL"], EXTERNAL["REDIS_URL"])
    assert not home.exists()


def test_external_address_may_come_from_a_file(tmp_path: Path) -> None:
    secret = tmp_path / "database-url"
    secret.write_text("postgresql+psycopg://db.test/y\n")
    environ = {"DATABASE_URL_FILE": str(secret), "REDIS_URL": EXTERNAL["REDIS_URL"]}

    assert Devstack(tmp_path, durable=True, environ=environ).up().database_url == "postgresql+psycopg://db.test/y"


def test_unreadable_address_file_names_its_variable(tmp_path: Path) -> None:
    environ = {"DATABASE_URL_FILE": str(tmp_path / "none")}

    with pytest.raises(DevstackError, match="DATABASE_URL_FILE"):
        Devstack(tmp_path, durable=True, environ=environ).up()


def test_status_tells_external_servers_from_those_that_are_down(tmp_path: Path) -> None:
    stack = Devstack(tmp_path / "home", durable=True, environ={"REDIS_URL": "redis://redis.test/0"})

    assert stack.status() == [ServerStatus("postgres", "down"), ServerStatus("redis", "external")]


def test_down_without_a_home_makes_none(tmp_path: Path) -> None:
    home = tmp_path / "home"

    Devstack(home, durable=True, environ={}).down()
    Devstack(home, durable=True, environ={}).erase()

    assert not home.exists()


def test_urls_hide_their_passwords_in_a_repr() -> None:
    assert "hush" not in repr(Urls("postgresql+psycopg://u:hush@h/d", "redis://:hush@h/0"))


def test_home_is_the_named_directory(tmp_path: Path) -> None:
    assert default_home({"DASHTAM_HOME": str(tmp_path / "named")}) == tmp_path / "named"


@pytest.mark.parametrize("marker", ["pyproject.toml", ".dashtam/x"])
def test_home_is_in_the_project_above(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, marker: str) -> None:
    (tmp_path / marker).parent.mkdir(exist_ok=True)
    (tmp_path / marker).write_text("")
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)

    assert default_home({}) == tmp_path / ".dashtam"


def test_command_status_prints_json_without_passwords(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["status", "--json", "--home", str(tmp_path)])

    assert code == 0
    assert [server["name"] for server in json.loads(capsys.readouterr().out)] == ["postgres", "redis"]


def test_command_says_an_error_in_words_and_exits_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("DATABASE_URL", "DATABASE_URL_FILE", "REDIS_URL", "REDIS_URL_FILE"):
        monkeypatch.delenv(variable, raising=False)
    (tmp_path / "file").write_text("")

    code = main(["up", "--home", str(tmp_path / "file" / "home")])

    captured = capsys.readouterr()
    assert (code, captured.out) == (1, "")
    assert captured.err.startswith("devstack: error: cannot write to")

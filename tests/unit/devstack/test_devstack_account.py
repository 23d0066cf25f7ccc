"""Who runs Postgres, and where its data goes when that user is shut out."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from worker.devstack import DevstackError, account, postgres
from worker.devstack.account import Account
from worker.devstack.postgres import PostgresServer
from worker.devstack.state import ServerState

pytestmark = pytest.mark.unit

OURSELVES = Account(name="us", uid=os.geteuid(), gid=os.getegid(), switch=False)


def as_user(uid: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(account.os, "geteuid", lambda: uid)


def server(home: Path, state: ServerState | None = None) -> PostgresServer:
    return PostgresServer(
        home, state or ServerState(), lambda: None, durable=True, settings={}, say=lambda message: None
    )


def test_ordinary_user_runs_postgres_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    as_user(1000, monkeypatch)

    found = account.server_account()

    assert (found.uid, found.switch, found.popen_arguments()) == (1000, False, {})


def test_root_without_an_unprivileged_user_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    as_user(0, monkeypatch)

    def no_such_user(name: str) -> pwd.struct_passwd:
        raise KeyError(name)

    monkeypatch.setattr(account.pwd, "getpwnam", no_such_user)

    with pytest.raises(DevstackError, match=r"nobody, daemon, postgres.*DATABASE_URL"):
        account.server_account()


def test_root_passes_over_a_user_that_it_may_not_become(monkeypatch: pytest.MonkeyPatch) -> None:
    as_user(0, monkeypatch)
    entries = {
        name: pwd.struct_passwd((name, "x", uid, uid, "", "/", "/bin/sh"))
        for name, uid in (("nobody", 65534), ("daemon", 1), ("postgres", 70))
    }
    monkeypatch.setattr(account.pwd, "getpwnam", entries.__getitem__)
    monkeypatch.setattr(Account, "can_run", lambda self, argv: self.name == "daemon")

    assert account.server_account() == Account(name="daemon", uid=1, gid=1, switch=True)


def test_switching_drops_all_groups() -> None:
    assert Account(name="n", uid=5, gid=6, switch=True).popen_arguments() == {
        "user": 5,
        "group": 6,
        "extra_groups": [],
    }


@pytest.mark.deep
def test_program_that_is_missing_cannot_be_run() -> None:
    assert not OURSELVES.can_run(["/no/such/program"])


def test_servers_do_not_get_our_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCHWAB_CLIENT_SECRET", "hush")

    assert "SCHWAB_CLIENT_SECRET" not in OURSELVES.run(["/usr/bin/env"]).stdout


def test_place_that_somebody_else_made_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "SHARED_TEMP", tmp_path)
    monkeypatch.setattr(postgres, "ROOT", os.geteuid() + 1)

    with pytest.raises(DevstackError, match="so it is not used"):
        postgres.private_place(tmp_path / "home", OURSELVES)


def test_link_in_the_way_of_the_place_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "SHARED_TEMP", tmp_path)
    monkeypatch.setattr(postgres, "ROOT", os.geteuid())
    place = postgres.private_place(tmp_path / "home", OURSELVES)
    place.rmdir()
    (tmp_path / "trap").mkdir()
    place.symlink_to(tmp_path / "trap")

    with pytest.raises(DevstackError, match="so it is not used"):
        postgres.private_place(tmp_path / "home", OURSELVES)


def test_directory_that_holds_no_postgres_data_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "server_account", lambda: OURSELVES)
    (tmp_path / "postgres").mkdir()
    (tmp_path / "postgres" / "letter.txt").write_text("dear")

    with pytest.raises(DevstackError, match=r"no Postgres data directory\. Nothing was changed"):
        server(tmp_path).up()

    assert (tmp_path / "postgres" / "letter.txt").read_text() == "dear"


def test_data_of_another_user_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "server_account", lambda: OURSELVES)
    monkeypatch.setattr(Account, "can_enter", lambda self, directory: False)
    data = tmp_path / "elsewhere"
    data.mkdir()

    with pytest.raises(DevstackError, match=r"belongs to .* and us cannot use it. Nothing was changed"):
        server(tmp_path, ServerState(data=str(data))).up()


def test_initdb_that_fails_shows_why_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "server_account", lambda: OURSELVES)
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "initdb").write_text("#!/bin/sh\necho 'no space left' >&2\nexit 1\n")
    (programs / "initdb").chmod(0o755)
    monkeypatch.setattr(postgres, "find_postgres", lambda *arguments: postgres.PostgresBinaries(programs, "16.1"))

    with pytest.raises(DevstackError, match=r"could not make its data directory .*\n.*no space left"):
        server(tmp_path).up()

    assert {path.name for path in tmp_path.iterdir()} == {"bin"}


def test_single_user_mode_that_fails_never_shows_the_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "server_account", lambda: OURSELVES)
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, script in (("initdb", "exit 0"), ("postgres", "echo 'FATAL: broken' >&2; cat >&2; exit 1")):
        (programs / name).write_text(f"#!/bin/sh\n{script}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setattr(postgres, "find_postgres", lambda *arguments: postgres.PostgresBinaries(programs, "16.1"))

    with pytest.raises(DevstackError, match="FATAL: broken") as caught:
        server(tmp_path, ServerState(password="hush")).up()

    assert "hush" not in str(caught.value)

"""What the devstack remembers, and how it knows a process again."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
from pathlib import Path

import pytest

from worker.devstack import DevstackError, processes, state
from worker.devstack.account import Account
from worker.devstack.state import ServerState, State

pytestmark = pytest.mark.unit

OURSELVES = Account(name="us", uid=os.geteuid(), gid=os.getegid(), switch=False)


def silent(message: str) -> None:
    raise AssertionError(message)


def test_state_survives_a_round_trip(tmp_path: Path) -> None:
    before = State(durable=False, postgres=ServerState(port=5433, password="p", data="/d"), redis=ServerState(pid=7))

    state.save(tmp_path, before)

    assert state.load(tmp_path, silent) == before


def test_state_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    state.save(tmp_path, State())

    assert stat.S_IMODE((tmp_path / state.STATE_FILE).stat().st_mode) == 0o600


def test_missing_state_is_a_fresh_one(tmp_path: Path) -> None:
    assert state.load(tmp_path, silent) == State()


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"durable": true}', '{"durable": 1, "postgres": {"x": 1}}'])
def test_unreadable_state_is_kept_aside_and_said(tmp_path: Path, text: str) -> None:
    said: list[str] = []
    (tmp_path / state.STATE_FILE).write_text(text)

    loaded = state.load(tmp_path, said.append)

    assert loaded == State()
    assert (tmp_path / "devstack.json.broken").read_text() == text
    assert "could not be read" in said[0]


def test_password_does_not_show_in_a_repr() -> None:
    assert "hush" not in repr(State(postgres=ServerState(password="hush")))


def test_home_that_cannot_be_made_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(DevstackError, match="DASHTAM_HOME"), state.locked(tmp_path / "file" / "home"):
        pass


def test_lock_held_too_long_names_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "LOCK_SECONDS", 0.0)

    with state.locked(tmp_path), pytest.raises(DevstackError, match=r"devstack\.lock"), state.locked(tmp_path):
        pass


def test_process_with_our_pid_but_another_identity_is_not_running() -> None:
    assert not ServerState(pid=os.getpid(), identity="earlier").running


def test_process_is_known_again_by_its_identity() -> None:
    server = ServerState()

    server.started(os.getpid())

    assert server.running


def test_no_process_has_no_identity() -> None:
    assert processes.identity(0) is None
    assert not ServerState().running


def test_stop_leaves_a_process_alone_that_took_over_the_pid() -> None:
    # The signal would end this very process.
    assert processes.stop(os.getpid(), "earlier", [(signal.SIGKILL, 1.0)]) is None


def test_last_lines_of_a_missing_log_say_so(tmp_path: Path) -> None:
    assert "nothing was logged" in processes.last_lines(tmp_path / "none.log")


def test_text_since_reads_a_log_that_was_started_anew(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("new")

    assert processes.text_since(log, 1000) == "new"
    assert processes.text_since(log, 1) == "ew"
    assert processes.text_since(tmp_path / "none", 0) == ""


def test_long_log_starts_anew_with_the_next_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "LOG_BYTES_MAX", 3)
    log = tmp_path / "server.log"
    log.write_text("long")

    pid = processes.start_detached(["/bin/echo", "new"], OURSELVES, log)

    assert pid > 0
    assert processes.wait_until(lambda: log.read_text() == "new\n", 10)
    assert (tmp_path / "server.log.1").read_text() == "long"


def test_program_that_outlives_all_signals_is_named() -> None:
    with subprocess.Popen(["/bin/sleep", "60"]) as deaf:
        known = processes.identity(deaf.pid) or ""
        try:
            with pytest.raises(DevstackError, match=f"process {deaf.pid} did not end after SIGCONT"):
                processes.stop(deaf.pid, known, [(signal.SIGCONT, 0.0)])
        finally:
            deaf.kill()


def test_identity_without_proc_comes_from_ps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not Path(processes._PS).exists():  # in an image that has none, one that knows what is asked here does
        stand_in = tmp_path / "ps"
        stand_in.write_text('#!/bin/sh\n[ -d "/proc/$4" ] && echo "S    $(cut -d " " -f 22 "/proc/$4/stat")"\n')
        stand_in.chmod(0o700)
        monkeypatch.setattr(processes, "_PS", str(stand_in))
    with subprocess.Popen(["/bin/sleep", "60"]) as process:
        known = processes._identity_from_ps(process.pid)
        again = processes._identity_from_ps(process.pid)
        process.kill()

    assert known is not None
    assert known == again
    assert processes._identity_from_ps(process.pid) is None


def test_program_that_cannot_be_started_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **more: object) -> None:
        raise PermissionError(1, "not permitted")

    monkeypatch.setattr(processes.subprocess, "run", refuse)

    with pytest.raises(DevstackError, match=r"could not start postgres as us: .*not permitted"):
        processes.start_detached(["postgres"], OURSELVES, tmp_path / "server.log")


def test_process_of_another_user_is_left_to_that_user(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pid: int, number: int) -> None:
        raise PermissionError

    monkeypatch.setattr(processes.os, "kill", refuse)

    with pytest.raises(DevstackError, match="belongs to another user; stop it as that user"):
        processes.stop(os.getpid(), processes.identity(os.getpid()) or "", [(signal.SIGTERM, 1.0)])
    assert processes.exists(os.getpid())


def test_process_that_ends_by_itself_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(pid: int, number: int) -> None:
        raise ProcessLookupError

    monkeypatch.setattr(processes.os, "kill", gone)

    assert processes.stop(os.getpid(), processes.identity(os.getpid()) or "", [(signal.SIGTERM, 1.0)]) is None
    assert not processes.exists(os.getpid())


def test_state_of_another_user_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> str:
        raise PermissionError

    monkeypatch.setattr(Path, "read_text", refuse)

    with pytest.raises(DevstackError, match="belongs to another user"):
        state.load(tmp_path, silent)


def test_a_directory_nobody_works_in() -> None:
    assert not processes.any_works_in(Path("/no/such/directory"))
    assert processes.any_works_in(Path.cwd())


def test_our_own_pid_exists() -> None:
    assert processes.exists(os.getpid())

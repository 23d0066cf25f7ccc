"""What the devstack remembers, and how it knows a process again."""

from __future__ import annotations

import os
import signal
import stat
from pathlib import Path

import pytest

from worker.devstack import DevstackError, processes, state
from worker.devstack.state import ServerState, State

pytestmark = pytest.mark.unit


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

"""The live table: what is wrong first, in words, and on 80 columns too."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from tests.support.fleet_rows import NOW, PROVIDER
from worker.cli.demo_logins import LOGINS
from worker.cli.output import SafeConsole
from worker.cli.run.demo import Story
from worker.cli.run.environment import Demonstration
from worker.cli.run.lookout import Seen
from worker.cli.run.watch import screen
from worker.devstack import ProcessState, ProcessStatus
from worker.models.fleet import Stored
from worker.services.findings import Finding

AWAY = Finding("redis", False, "Redis does not run at 127.0.0.1:6379; pending work is kept", "start it: dashtam run")
ROW = replace(
    PROVIDER,
    alias="Schwab one",
    access_expires_at=NOW + timedelta(seconds=44),
    refreshed_at=NOW - timedelta(minutes=10, seconds=12),
    refresh_due_at=NOW + timedelta(minutes=12, seconds=33),
    synced_at=NOW - timedelta(minutes=58, seconds=59),
    sync_due_at=NOW - timedelta(seconds=32),
)
SEEN = Seen([Story(LOGINS[0], ROW, refreshable=True, stored=Stored(3, 1234, 5))], NOW)
NAMES = ("sandbox", "worker-refresh", "worker-sync", "worker-upkeep", "beat", "flower", "web")


def _shown(
    tmp_path: Path, seen: Seen, *, width: int = 80, state: ProcessState = ProcessState.RUNNING, with_key: bool = False
) -> list[str]:
    password = tmp_path / "flower.password"
    password.write_text("made-up-password\n")
    demo = Demonstration(
        home=Path("/home/ada/dashtam/.dashtam"),
        sandbox_url="http://127.0.0.1:1",
        sandbox_token="made-up",
        flower_url="http://127.0.0.1:5555",
        flower_user="operator",
        flower_password_file=password,
        web_url="http://127.0.0.1:8000",
        api_key_file=tmp_path / "api.key",
        variables={},
        env_file=tmp_path / "run.env",
    )
    processes = [ProcessStatus(name, state, 1, 0, 1.0, None) for name in NAMES]
    out = io.StringIO()
    SafeConsole(file=out, width=width).print(screen(demo, seen, processes, width=width, now=NOW, with_key=with_key))
    return out.getvalue().splitlines()


def _row(lines: list[str]) -> str:
    return next(line for line in lines if ROW.alias in line and "explain" not in line)


@pytest.mark.deep
@pytest.mark.parametrize("width", [80, 120])
def test_table_fits_and_nothing_in_it_is_cut(tmp_path: Path, width: int) -> None:
    lines = _shown(tmp_path, SEEN, width=width)

    row = _row(lines)
    assert all(len(line) <= width for line in lines)
    assert "…" not in "".join(lines)
    assert all(word in row for word in ("Schwab one", "active", "10m 12s ago", "in 12m 33s", "58m 59s ago", "now"))
    assert ("1234" in row) == (width == 120)


@pytest.mark.parametrize("width", [80, 120])
def test_address_of_the_status_page_logs_in_by_itself_on_a_terminal_alone(tmp_path: Path, width: int) -> None:
    key = f"dashtam_1f2e3d4c_{'a' * 43}"
    without = _shown(tmp_path, SEEN, width=width, with_key=True)
    (tmp_path / "api.key").write_text(f"{key}\n")

    on_a_terminal, in_a_file = (_shown(tmp_path, SEEN, width=width, with_key=one) for one in (True, False))

    assert "Status    http://127.0.0.1:8000/status" in without
    assert f"http://127.0.0.1:8000/login#{key}" in "".join(on_a_terminal)
    assert all(len(line) <= width for line in on_a_terminal)
    assert "dashtam_" not in "".join(in_a_file)


def test_what_is_wrong_comes_first_in_words_with_its_command(tmp_path: Path) -> None:
    lines = _shown(tmp_path, replace(SEEN, troubles=[AWAY]))

    assert lines[0].startswith("trouble   redis: Redis does not run at 127.0.0.1:6379")
    assert any("start it: dashtam run" in line for line in lines[1:4])


def test_more_troubles_than_fit_are_counted(tmp_path: Path) -> None:
    lines = _shown(tmp_path, replace(SEEN, troubles=[AWAY] * 5), width=200)

    assert any("and 2 more: dashtam status" in line for line in lines)


@pytest.mark.deep
@pytest.mark.parametrize(
    ("status", "words"), [("needs_reauth", "needs its user"), ("paused", "paused"), ("unlinked", "unlinked")]
)
def test_a_login_that_is_not_worked_on_has_no_next_time(tmp_path: Path, status: str, words: str) -> None:
    story = replace(SEEN.stories[0], provider=replace(ROW, status=status))

    row = _row(_shown(tmp_path, Seen([story], NOW)))

    assert words in row
    assert "now" not in row
    assert "in 12m" not in row


def test_logins_of_an_integration_that_is_held_up_wait(tmp_path: Path) -> None:
    paused = Finding(
        "schwab", True, "paused by operator:ada (no reason was given)", "dashtam integrations resume schwab"
    )

    lines = _shown(tmp_path, replace(SEEN, troubles=[paused]))

    assert lines[0].startswith("note      schwab: paused by operator:ada")
    assert "waits" in _row(lines)
    assert "in 12m" not in _row(lines)


def test_processes_are_named_by_their_state(tmp_path: Path) -> None:
    assert any(line.startswith("up        sandbox, worker-refresh") for line in _shown(tmp_path, SEEN))
    ended = _shown(tmp_path, SEEN, state=ProcessState.BACKOFF)
    assert any(line.startswith("ended, starts again sandbox") for line in ended)


def test_what_postgres_told_long_ago_is_said_to_be_old(tmp_path: Path) -> None:
    lines = _shown(tmp_path, replace(SEEN, read_at=NOW - timedelta(seconds=42)))

    assert any("as it was 42s ago" in line for line in lines)

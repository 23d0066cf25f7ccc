"""`dashtam run` as a person starts it after `pip install`: in an empty folder, with nothing left behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.support.sandbox import SandboxAdmin
from tests.support.waiting import wait_for
from worker.devstack import Devstack
from worker.devstack.processes import free_port

Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """An empty home; its servers are stopped and its data removed at the end, whatever happened."""
    path = tmp_path / "home"
    yield path
    Devstack(path, durable=True, environ={}).erase()


@pytest.fixture
def environment(home: Path, installed: dict[str, str]) -> dict[str, str]:
    """As a newcomer's shell: nothing is configured, but for ports that no other test takes meanwhile."""
    plain = {name: value for name, value in os.environ.items() if name in ("HOME", "LANG", "TMPDIR")}
    ports = {name: str(free_port()) for name in ("FLOWER_PORT", "WEB_PORT")}
    return plain | installed | {"DASHTAM_HOME": str(home), "DASHTAM_TEST_RUN": str(home)} | ports


@pytest.fixture
def start(environment: dict[str, str], tmp_path: Path) -> Iterator[Start]:
    """Starts `dashtam run`; what a failed test leaves is ended."""
    started: list[subprocess.Popen[bytes]] = []

    empty = tmp_path / "empty"
    empty.mkdir()
    program = shutil.which("dashtam", path=environment["PATH"])
    assert program is not None

    def run(*options: str) -> subprocess.Popen[bytes]:
        command = (program, "run", *options)
        with (tmp_path / "out").open("wb") as output:
            process = subprocess.Popen(command, cwd=empty, env=environment, stdout=output, stderr=subprocess.PIPE)
        started.append(process)
        return process

    yield run
    for process in started:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(120)
        assert process.stderr is not None
        process.stderr.close()


def _once(start: Start, tmp_path: Path) -> dict[str, Any]:
    process = start("--once", "--json", "--timeout", "150")  # of a machine that does other things, too
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors.decode() + (tmp_path / "out").read_text()
    result: dict[str, Any] = json.loads((tmp_path / "out").read_text())
    return result


def _processes(home: Path) -> list[psutil.Process]:
    """Everything that was started for this home, by its environment."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("DASHTAM_TEST_RUN") == str(home) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


@pytest.mark.long
def test_a_newcomers_first_cycle_and_a_second_that_changes_nothing(start: Start, home: Path, tmp_path: Path) -> None:
    first = _once(start, tmp_path)

    assert len(first["providers"]) == 4
    for provider in first["providers"]:
        assert provider["synced_by_schedule"] >= 1
        assert provider["refreshed_by_schedule"] >= 1 or not provider["refreshable"]
        assert provider["stored"] == provider["served"] == provider["books"]
    assert first["rows"]["added"] > 1000
    assert first["restarts"] == {}
    assert "Visit me at" in (home / "log" / "flower.log").read_text()
    assert _processes(home) == []

    second = _once(start, tmp_path)

    assert {name: second["rows"][name] for name in ("added", "changed", "removed")} == dict.fromkeys(
        ("added", "changed", "removed"), 0
    )
    assert [p["stored"] for p in second["providers"]] == [p["stored"] for p in first["providers"]]
    assert [p["id"] for p in second["providers"]] == [p["id"] for p in first["providers"]]
    assert _processes(home) == []


@pytest.mark.release
def test_a_worker_killed_in_the_middle_of_a_page_is_started_again_and_the_cycle_completes(
    start: Start, home: Path, tmp_path: Path
) -> None:
    running = start("--once", "--json", "--timeout", "150")
    with _sandbox(home) as sandbox, sandbox.paused_in_mid_body(profile="plaid", path="/transactions/sync") as page:
        wait_for(page.waiting, what="a sync in the middle of a page")
        _sync_worker(home, running.pid).kill()
    _, errors = running.communicate(timeout=200)

    result = json.loads((tmp_path / "out").read_text())
    assert running.returncode == 0, errors.decode()
    assert result["restarts"] == {"worker-sync": 1}
    assert _processes(home) == []


def _sandbox(home: Path) -> SandboxAdmin:
    """The switches of a `dashtam run` that has just been started, as soon as there are any."""

    def control() -> SandboxAdmin | None:
        with suppress(OSError, KeyError, httpx.HTTPError):
            variables = dict(line.split("=", 1) for line in (home / "run.env").read_text().splitlines())
            url = variables["SCHWAB_BASE_URL"].removesuffix("/schwab")
            httpx.get(f"{url}/admin/ready", trust_env=False)
            return SandboxAdmin(url, variables["DASHTAM_SANDBOX_ADMIN_TOKEN"])
        return None

    return wait_for(control, what="the sandbox")


def _sync_worker(home: Path, supervisor: int) -> psutil.Process:
    (worker,) = [p for p in _processes(home) if p.ppid() == supervisor and "sync@%h" in p.cmdline()]
    return worker


@pytest.mark.long
def test_ctrl_c_stops_everything_in_order(start: Start, home: Path) -> None:
    running = start()
    log = home / "log" / "beat.log"
    size = log.stat().st_size if log.exists() else 0
    wait_for(lambda: log.exists() and log.stat().st_size > size, what="beat")

    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=120)

    assert running.returncode == 0, errors.decode()
    stopped = [line.split()[0] for line in errors.decode().splitlines() if line.endswith("stopped")]
    assert stopped[-1] == "sandbox"
    assert _processes(home) == []
    assert {server.state for server in Devstack(home, durable=True, environ={}).status()} == {"down"}


@pytest.mark.release
def test_a_cycle_that_does_not_happen_names_what_is_missing(start: Start, home: Path, tmp_path: Path) -> None:
    # Tokens that live for an hour are not refreshed within a minute, and a file stands where Flower keeps its state.
    home.mkdir()
    (home / "flower").touch()
    for seconds in ("15", "30", "60"):  # a busy machine takes more than one to start everything and link
        process = start("--once", "--json", "--access-seconds", "3600", "--timeout", seconds)
        process.communicate(timeout=120 + float(seconds))
        assert process.returncode == 1
        result = json.loads((tmp_path / "out").read_text())
        if result["providers"]:
            break

    assert any("no scheduled task has refreshed its token" in what for what in result["missing"])
    assert any("flower keeps ending" in what or "Flower does not answer" in what for what in result["missing"])
    assert _processes(home) == []

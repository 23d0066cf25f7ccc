"""Starting, listening and stopping."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import httpx
import pytest

from tests.support.sandbox import SandboxProcess
from tests.support.waiting import wait_for

pytestmark = pytest.mark.deep  # each test starts a sandbox of its own


def test_address_off_loopback_is_refused() -> None:
    command = [sys.executable, "-m", "worker.sandbox", "--host", "0.0.0.0", "--port", "0"]  # noqa: S104 - must be refused
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 2
    assert "loopback" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_taken_port_ends_the_process_with_a_reason() -> None:
    with SandboxProcess() as first:
        command = [sys.executable, "-m", "worker.sandbox", "--port", str(first.port), "--admin-token", "t"]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode != 0
    assert "address already in use" in ended.stderr


def test_stop_leaves_no_process_even_with_a_request_at_a_barrier() -> None:
    process = SandboxProcess().start()
    with process.admin() as admin, httpx.Client(timeout=httpx.Timeout(60, read=0.2), trust_env=False) as client:
        admin.raise_barrier("before_answer")
        with pytest.raises(httpx.ReadTimeout):
            client.get(f"{process.url('schwab')}/trader/v1/accounts")
        pid = process.pid
        process.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


def test_live_books_move_by_themselves_and_start_options_hold_after_a_reset() -> None:
    options = ("--live", "--live-seconds", "0.05", "--access-seconds", "60", "--logins", "1")
    with SandboxProcess(*options) as process, process.admin() as admin:
        assert set(admin.reset(3)) >= {"schwab-1", "plaid-1"}
        assert admin.mint("schwab-1")[0].expires_in == 60
        wait_for(lambda: admin.get("ready")["steps"] >= 2, what="books that move")

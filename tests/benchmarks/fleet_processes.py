"""What processes need beside a large fleet: memory of a worker and of beat, connections, and the cost of a refresh."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from uuid import UUID

import psutil
from sqlalchemy import Engine, text

from tests.benchmarks.bench_refresh import endpoint, measure, seed, worker
from tests.support.environment import ROOT
from tests.support.waiting import wait_for

_REFRESHES = 2000


def measured(engine: Engine, home: Path) -> dict[str, object]:
    """Runs a worker with two processes and a beat, and lets the worker refresh 2,000 of the logins."""
    with ExitStack() as stack:
        os.environ["SCHWAB_BASE_URL"] = stack.enter_context(endpoint())
        os.environ |= {
            "SCHWAB_APP_KEY": "sandbox-app",
            "SCHWAB_APP_SECRET": "sandbox-secret",
            "SCHWAB_REDIRECT_URI": "https://127.0.0.1",
            "INTEGRATIONS": "schwab",
        }
        argv = ["-A", "worker.app", "worker", "-Q", "refresh", "-c", "2"]
        process = stack.enter_context(worker("fleet", argv, home))
        beat = stack.enter_context(_beat(home))
        wait_for(lambda: _beats(engine), what="a tick")
        measure(engine, process, seed(engine, 200, "warm"), _send)
        cost = measure(engine, process, seed(engine, _REFRESHES, "fleet"), _send)
        return {
            "worker_mb": [_pss_mb(one) for one in (process, *process.children(recursive=True))],
            "beat_mb": _pss_mb(beat),
            "connections": _connections(engine),
            "refresh_cpu_us": round(cost.cpu_us),
        }


def _send(ids: Sequence[UUID]) -> None:
    from worker.settings import get_settings
    from worker.tasks.tokens import refresh_providers

    size = get_settings().batch_size
    for start in range(0, len(ids), size):
        refresh_providers.apply_async(args=[[str(id_) for id_ in ids[start : start + size]]])


@contextmanager
def _beat(home: Path) -> Iterator[psutil.Process]:
    with (home / "beat.log").open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "celery", "-A", "worker.app", "beat"], cwd=ROOT, stdout=output, stderr=output
        )
    try:
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait()


def _beats(engine: Engine) -> bool:
    with engine.connect() as connection:
        return bool(connection.execute(text("SELECT count(*) FROM heartbeats")).scalar_one())


def _pss_mb(process: psutil.Process) -> float:
    """Memory of one process; what it shares with others counts in parts."""
    return round(process.memory_full_info().pss / 2**20, 1)


def _connections(engine: Engine) -> int:
    with engine.connect() as connection:
        sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'dashtam' AND pid <> pg_backend_pid()"
        return int(connection.execute(text(sql)).scalar_one())

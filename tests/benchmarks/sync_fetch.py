"""Fetch to commit: whole syncs against the sandbox, in a process of their own so that memory means something.

    python -m tests.benchmarks.sync_fetch PROFILE LOGIN SMALL_LOGIN ADMIN_URL ADMIN_TOKEN FEED_URL

Its environment comes from `bench_sync`; the last line is JSON. The feeds are read once before each pass, so that the
server that replays them has all answers ready.
"""

from __future__ import annotations

import gc
import json
import sys
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import text

from tests.benchmarks import replay
from tests.benchmarks.sync_setup import link, read_through, timed
from tests.support.sandbox import SandboxAdmin
from worker.integrations.registry import build_integrations
from worker.models import SyncRun
from worker.models.vocabulary import RunStatus, Trigger
from worker.runtime import Runtime, tune_interpreter
from worker.services.sync import batch
from worker.settings import Settings, load


def sync(runtime: Runtime, provider_id: UUID, **options: Any) -> Any:
    run_id = runtime.run(batch.sync_provider(runtime, provider_id, trigger=Trigger.SCHEDULE, **options))
    with runtime.transaction() as session:
        run = session.get_one(SyncRun, run_id)
    if run.status != RunStatus.COMPLETED:
        raise SystemExit(f"sync ended {run.status}: {run.error} {run.error_reason} {run.problems}")
    return run


def resident_mib(field: str) -> float:
    """`VmRSS` is what is used now, `VmHWM` the most since `forget_peak`."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    raise LookupError(field)


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def start_feeds_again(runtime: Runtime, provider_id: UUID) -> None:
    """The next sync reads everything once more, without being a full one."""
    with runtime.transaction() as session:
        session.execute(
            text("DELETE FROM sync_cursors WHERE provider_id = :id AND feed <> 'accounts'"), {"id": provider_id}
        )


def main(profile: str, login: str, small: str, admin_url: str, admin_token: str, feed_url: str) -> None:
    tune_interpreter()  # as in a worker
    settings = load(Settings)
    runtime = Runtime(settings, integrations=build_integrations((profile,), settings, gate=None))
    with SandboxAdmin(admin_url, admin_token) as admin:
        warm = link(runtime, admin, profile, small)
        for _ in range(2):
            sync(runtime, warm)
            start_feeds_again(runtime, warm)
        provider_id = link(runtime, admin, profile, login)
        runtime.run(read_through(runtime, provider_id))
        gc.collect()
        forget_peak()
        idle = resident_mib("VmRSS")
        found: dict[str, float] = {}

        def load_all() -> None:
            found["rows"] = sync(runtime, provider_id).counts["transactions"]["added"]

        seconds, cpu = timed(load_all)
        peak = resident_mib("VmHWM")
        booked = admin.books(login)["transactions"]
        for row in booked[::100]:
            admin.modify_transaction(login, row["id"], description="CHANGED")
        start_feeds_again(runtime, provider_id)
        replay.forget(feed_url)
        runtime.run(read_through(runtime, provider_id))

        def read_again() -> None:
            counts = sync(runtime, provider_id).counts["transactions"]
            found["read"] = counts["unchanged"] + counts["changed"]

        again, again_cpu = timed(read_again)
    runtime.close()
    assert found["rows"] == len(booked), (found, len(booked))
    sys.stdout.write(
        json.dumps(
            {
                "rows": found["rows"],
                "load_rows_per_s": found["rows"] / seconds,
                "load_cpu_us_per_row": cpu / found["rows"] * 1e6,
                "resync_rows_per_s": found["read"] / again,
                "resync_cpu_us_per_row": again_cpu / found["read"] * 1e6,
                "idle_mib": idle,
                "peak_extra_mib": peak - idle,
            }
        )
        + "\n"
    )


if __name__ == "__main__":
    main(*sys.argv[1:])

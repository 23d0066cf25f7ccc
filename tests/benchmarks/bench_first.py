"""How long the first sync of a login takes, from its message to the end of its run, one login after another.

    python -m tests.benchmarks.bench_first [--n 60] [--rows 300]

Everything runs for real: a private Postgres with fsync, Redis, a Celery worker, and the quotas. The provider's answers
are replayed, so that its time does not count. The last line is JSON: milliseconds by the clock (median, and the best
one) and of CPU, of the worker and of Postgres, for each login.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

import psutil
from sqlalchemy import text

from tests.benchmarks.bench_idle import PROFILES, Counters, make, ours, set_environment
from tests.benchmarks.bench_refresh import say, worker
from tests.benchmarks.sync_setup import Bench, bench, median, read_through
from tests.support.waiting import wait_for

_WARMING = 10
"""Logins that are synced before the measured ones: the worker opens its connections and compiles what it runs."""


def read_beforehand(given: Bench, ids: Sequence[UUID]) -> None:
    """Reads every login's answers once, so that the server that replays them has them."""
    runtime = given.runtime()
    for id_ in ids:
        runtime.run(read_through(runtime, id_))
    runtime.close()


def durations(given: Bench, ids: Sequence[UUID], rows: int) -> list[float]:
    """Milliseconds from sending each login's message to the commit that ends its run; then the next one is sent."""
    found = []
    with given.engine().connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        query = text(
            "SELECT pg_xact_commit_timestamp(xmin), status, added FROM sync_runs"
            " WHERE provider_id = :id AND finished_at IS NOT NULL"
        )
        for id_ in ids:
            sent = datetime.now(UTC)
            ours([id_])
            wait_for(lambda id_=id_: connection.execute(query, {"id": id_}).first(), every=0.02, what="a sync")
            ended_at, status, added = connection.execute(query, {"id": id_}).one()
            if status != "completed" or added < rows:
                raise SystemExit(f"a sync ended {status} with {added} new rows")
            found.append((ended_at - sent).total_seconds() * 1000)
    return found


def measure(
    given: Bench, counters: Counters, process: psutil.Process, ids: Sequence[UUID], rows: int
) -> dict[str, float]:
    """What one first sync takes and costs."""
    read_beforehand(given, ids)
    durations(given, ids[:_WARMING], rows)
    before = counters.read(process)
    times = durations(given, ids[_WARMING:], rows)
    cost = counters.read(process).each_since(before, len(times))
    return {"median_ms": round(median(times), 1), "best_ms": round(min(times), 1)} | {
        name: cost[name] for name in ("cpu_ms", "pg_cpu_ms", "tx", "wal_bytes")
    }


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=60, help="measured logins of each provider")
    parser.add_argument("--rows", type=int, default=300, help="transactions of each login")
    options = parser.parse_args()
    say(f"load average {os.getloadavg()[0]:.1f}")
    found = {}
    with bench(track_commit_timestamp="on") as given:
        set_environment(given)
        counters = Counters(given.engine())
        with worker("ours", ["-A", "worker.app", "worker", "-Q", "sync", "-c", "1"], given.home) as process:
            for profile in PROFILES:
                ids = list(make(given, profile, options.n + _WARMING, options.rows))
                found[profile] = measure(given, counters, process, ids, options.rows)
                say(f"{profile}: {found[profile]}")
        counters.close()
    say(json.dumps(found))


if __name__ == "__main__":
    main()

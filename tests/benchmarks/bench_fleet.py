"""What a fleet of N logins costs Postgres, and a simulated day of it through the real claims.

    make bench-fleet ARGS="--n 1000000 [--hours 24] [--outage-of daily] [--skip processes,overdue]"

The fleet has a Postgres and a Redis of its own, without fsync: times of claims have no wait for a disk in them.

1. The fleet is stored with COPY. Sizes of tables and indexes are divided by their rows.
2. A worker refreshes 2,000 of its logins beside them; memory, connections and CPU are read.
3. A day passes on a fast clock (`fleet_day`). One integration is down for two hours, from 06:00 on.
4. Everything is overdue at once, as after an outage of Postgres, and is claimed until nothing is left.

69 of 100 logins have tokens that are never refreshed (as Plaid's), 30 have tokens of a day, 1 of half an hour (as
Schwab's). Progress is told on standard error; the last line of the output is JSON.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import sys
import tempfile
import time
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
from cryptography.fernet import Fernet
from sqlalchemy import Engine, create_engine, text

from tests.benchmarks import fleet_processes
from tests.benchmarks.fleet_day import STEP_S, Day, Outage, Seen
from tests.benchmarks.fleet_fill import KINDS, Fleet, bytes_of_new, fill, make, sizes, vacuum
from tests.benchmarks.sync_setup import wal_position
from tests.support.databases import migrate
from worker.crud import providers
from worker.devstack import Devstack
from worker.runtime import Runtime
from worker.settings import Settings, load

_SERVER = {"shared_buffers": "2GB", "max_wal_size": "8GB", "checkpoint_timeout": "15min"}
_OUTAGE_HOURS = (6, 8)
_SYNC_TICK_S = 30
_SPARE = 1.5
"""Workers can do so many times the syncs that fall due on average."""
_CLAIM_SPARE = 2
"""A tick may claim so many times what falls due between two ticks."""


def say(line: str) -> None:
    """Progress, on standard error."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def quantiles(seconds: list[float]) -> dict[str, float]:
    """Median, 99th percentile and maximum, in milliseconds."""
    ordered = sorted(seconds)
    at = {"p50_ms": 0.5, "p99_ms": 0.99, "max_ms": 1.0}
    return {
        name: round(ordered[min(len(ordered) - 1, int(len(ordered) * share))] * 1000, 2) for name, share in at.items()
    }


def claim_limit(count: int, interval: int) -> int:
    """`CLAIM_LIMIT` for a fleet of this size: twice what falls due of the largest integration in one tick."""
    default = Settings.model_fields["claim_limit"].default
    due = count * max(kind.share for kind in KINDS) * _SYNC_TICK_S / interval
    return max(default, math.ceil(due * _CLAIM_SPARE))


def server_cpu(engine: Engine) -> float:
    """CPU seconds of all of Postgres's processes since its start, those that have ended included."""
    with engine.connect() as connection:
        postmaster = psutil.Process(connection.execute(text("SELECT pg_backend_pid()")).scalar_one()).parent()
    assert postmaster is not None
    ended = postmaster.cpu_times()
    living = [one.cpu_times() for one in postmaster.children(recursive=True)]
    return float(ended.children_user + ended.children_system + sum(one.user + one.system for one in living))


def simulate(engine: Engine, runtime: Runtime, fleet: Fleet, options: argparse.Namespace) -> dict[str, object]:
    """The day, and what became of the logins in it."""
    hours = [min(hour, options.hours) * 3600 for hour in _OUTAGE_HOURS]
    rate = options.syncs_per_s or _SPARE * len(fleet.ids) / runtime.settings.sync_interval
    day = Day(runtime, fleet, Outage(options.outage_of, *hours), syncs_per_s=rate)
    began, cpu, wal = time.monotonic(), server_cpu(engine), wal_position(engine)
    hours = day.run(options.hours, minutes=options.minutes)
    end = hours * 3600
    cpu, wal = server_cpu(engine) - cpu, wal_position(engine) - wal
    done = sum(seen.done + seen.failed for seen in (*day.syncs.values(), *day.refreshes.values()))
    overdue = [end - due for due in fleet.sync_due if due < end]
    return {
        "hours": round(hours, 2),
        "outage_of": options.outage_of,
        "syncs_per_s_at_most": round(rate, 1),
        "seconds": round(time.monotonic() - began),
        "pg_cpu_us_each": round(cpu / done * 1e6),
        "wal_bytes_each": round(wal / done),
        "syncs": {key: told(seen, day.outage) for key, seen in day.syncs.items()},
        "refreshes": {key: told(seen, day.outage) for key, seen in day.refreshes.items() if seen.done},
        "left_overdue": len(overdue),
        "left_overdue_at_most_s": round(max(overdue, default=0.0)),
        "most_waiting": day.most_waiting,
        "messages_dropped": day.dropped,
        "refresh_peak_to_mean": round(max(day.per_tick.values()) / sum(day.per_tick.values()) * end / STEP_S, 2),
        "claim_refresh": quantiles(day.claim_s["refresh"]),
        "claim_sync": quantiles(day.claim_s["sync"]),
    }


def told(seen: Seen, outage: Outage) -> dict[str, object]:
    """The figures of one integration; those of the outage only if it had one."""
    found: dict[str, object] = {
        "done": seen.done,
        "again": seen.again,
        "late_at_most_s": round(seen.late),
        "expired": seen.expired,
    }
    if seen.late_in_outage:
        found |= {
            "failed_calls": seen.failed,
            "late_in_outage_at_most_s": round(seen.late_in_outage),
            "expired_in_outage": seen.expired_in_outage,
            "caught_up_s_after_outage": max(0, round(seen.caught_up - outage.ends)),
        }
    return found


def overdue(engine: Engine, runtime: Runtime) -> dict[str, object]:
    """Claims the whole fleet, all of it overdue, as ticks do after an outage of Postgres."""
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(
            text(
                "UPDATE providers SET sync_due_at = now() - random() * interval '4 hours', refresh_due_at ="
                " CASE WHEN access_expires_at IS NULL THEN NULL ELSE now() - random() * interval '30 minutes' END"
            )
        )
    vacuum(engine, "providers", "due_times")
    found: dict[str, object] = {}
    now = datetime.now(UTC)
    for name, claim, limit in (
        ("refresh", providers.claim_refresh_due, runtime.settings.refresh_claim_limit),
        ("sync", providers.claim_sync_due, runtime.settings.claim_limit),
    ):
        times, claimed = [], 0
        for kind in KINDS:
            while True:
                began = time.perf_counter()
                with runtime.transaction() as session:
                    ids = claim(session, provider_key=kind.key, now=now, limit=limit, claim=timedelta(hours=1))
                if not ids:
                    break
                times.append(time.perf_counter() - began)
                claimed += len(ids)
        found[name] = {
            "claimed": claimed,
            "limit": limit,
            "us_each": round(sum(times) / claimed * 1e6),
            **quantiles(times),
        }
        say(f"overdue, {name}: {found[name]}")
    before = sizes(engine)
    began = time.perf_counter()
    vacuum(engine, "providers", "due_times")
    left = {f"{name}_before_vacuum": before[name] for name in ("providers", "due_times")}
    return found | left | {"vacuum_s": round(time.perf_counter() - began, 1)}


def run(options: argparse.Namespace) -> dict[str, object]:
    """All measurements."""
    skipped = options.skip.split(",")
    with ExitStack() as stack:
        home = Path(tempfile.mkdtemp(prefix="dashtam-bench-", dir="/tmp"))
        stack.callback(shutil.rmtree, home, ignore_errors=True)
        servers = Devstack(home / "servers", durable=False, environ={}, postgres_settings=_SERVER)
        urls = stack.enter_context(servers.session(erase=True))
        os.environ.update(
            DATABASE_URL=urls.database_url,
            REDIS_URL=urls.redis_url,
            ENCRYPTION_KEYS=f"k1:{Fernet.generate_key().decode()}",
            CLAIM_LIMIT=str(options.claim_limit or claim_limit(options.n, options.sync_interval)),
            SYNC_INTERVAL=str(options.sync_interval),
            DASHTAM_HOME=str(home / "home"),
            DASHTAM_ENV_FILE=os.devnull,
            LOG_LEVEL="ERROR",
        )
        migrate(urls.database_url)
        engine = create_engine(urls.database_url.replace("postgresql://", "postgresql+psycopg://", 1))
        stack.callback(engine.dispose)
        runtime = Runtime(load(Settings), integrations={kind.key: kind.integration() for kind in KINDS})
        began = time.monotonic()
        fleet = make(options.n, sync_interval=runtime.settings.sync_interval)
        fill(engine, fleet)
        found: dict[str, object] = {
            "n": options.n,
            "load": round(os.getloadavg()[0], 1),
            "claim_limit": runtime.settings.claim_limit,
            "fill_s": round(time.monotonic() - began),
            "sizes": sizes(engine),
        }
        say(f"filled: {json.dumps(found)}")
        if "processes" not in skipped:
            found["processes"] = fleet_processes.measured(engine, home)
            say(f"processes: {found['processes']}")
        if "day" not in skipped:
            before = sizes(engine)
            found["day"] = simulate(engine, runtime, fleet, options)
            found["sizes_after_day"] = after = sizes(engine)
            found["bytes_of_new"] = bytes_of_new(before, after)
            say(f"day: {json.dumps(found['day'])}")
        if "overdue" not in skipped:
            found["overdue"] = overdue(engine, runtime)
        return found | {"load_after": round(os.getloadavg()[0], 1)}


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=10_000, help="logins")
    parser.add_argument("--hours", type=float, default=24, help="length of the simulated day")
    parser.add_argument("--minutes", type=float, default=120, help="ends the day early after so many real minutes")
    parser.add_argument("--outage-of", choices=[kind.key for kind in KINDS], default="daily")
    parser.add_argument("--sync-interval", type=int, default=4 * 3600, help="seconds between two syncs of a login")
    parser.add_argument("--syncs-per-s", type=float, default=0, help="what all workers can do; default 1.5 x the need")
    parser.add_argument("--claim-limit", type=int, default=0, help="default: 1,000, or twice the need")
    parser.add_argument("--skip", default="", help="processes, day, overdue; comma-separated")
    sys.stdout.write(json.dumps(run(parser.parse_args())) + "\n")


if __name__ == "__main__":
    main()

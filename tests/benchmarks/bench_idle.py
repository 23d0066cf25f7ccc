"""What a sync costs that finds nothing new, against a plain one and its HTTP calls alone, and one that finds a row.

    python -m tests.benchmarks.bench_idle [--n 200] [--rows 300] [--rounds 3] [--only plaid,schwab,news,naive,floor]

Everything runs for real: a private Postgres with fsync, Redis, a Celery worker, the sandbox, and the quotas, which are
set so high that they refuse nothing. Each login makes four calls. The logins are synced until no row differs any more;
what is counted after that is divided by the number of syncs. `news` are syncs of Plaid's logins of which each finds one
changed row, and then eleven, so that what each further row writes is known, too. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import psutil
from sqlalchemy import Engine, text

from tests.benchmarks.bench_refresh import cpu_seconds, say, worker
from tests.benchmarks.idle_news import change_rows, row_bytes, run_bytes
from tests.benchmarks.sync_setup import Bench, bench, link
from tests.support.waiting import wait_for

PROFILES = {"plaid": 4, "schwab": 2}
"""Accounts of each login: so many that a sync makes four calls."""
_ROUNDS_BEFORE = 3
_NEWS = (1, 11)
"""Rows that change in each login before a sync."""
_STATISTICS_S = 11.0
"""After this time even connections that stand idle have reported what they did."""

Send = Callable[[Sequence[UUID]], None]


@dataclass(frozen=True)
class Counted:
    """Counters of the worker and of Postgres, all since their start."""

    cpu_s: float
    pg_cpu_s: float
    tx: int
    wal_bytes: int
    updated: int
    inserted: int

    def each_since(self, before: Counted, syncs: int) -> dict[str, float]:
        """What each of `syncs` syncs has cost since `before`."""
        return {
            "cpu_ms": round((self.cpu_s - before.cpu_s) / syncs * 1000, 2),
            "pg_cpu_ms": round((self.pg_cpu_s - before.pg_cpu_s) / syncs * 1000, 2),
            "tx": round((self.tx - before.tx) / syncs, 2),
            "wal_bytes": round((self.wal_bytes - before.wal_bytes) / syncs),
            "updated": round((self.updated - before.updated) / syncs, 2),
            "inserted": round((self.inserted - before.inserted) / syncs, 2),
        }


class Counters:
    """Reads the counters. Its own connection is not counted."""

    def __init__(self, engine: Engine) -> None:
        self._connection = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        self._own_pid = int(self._ask("SELECT pg_backend_pid()"))
        self._postmaster = psutil.Process(self._own_pid).parent()
        self._own_tx = 0

    def _ask(self, statement: str, **values: Any) -> Any:
        self._own_tx = getattr(self, "_own_tx", 0) + 1
        return self._connection.execute(text(statement), values).scalar_one()

    def read(self, process: psutil.Process) -> Counted:
        """Waits until Postgres's statistics are complete, and reads all counters."""
        cpu, server = cpu_seconds(process), self._server_cpu()
        wal = int(self._ask("SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint"))
        time.sleep(_STATISTICS_S)
        self._ask("SELECT 1 FROM (SELECT pg_stat_force_next_flush()) AS flushed")
        of_rows = "SELECT coalesce(sum({}), 0)::bigint FROM pg_stat_user_tables"
        return Counted(
            cpu_s=cpu,
            pg_cpu_s=server,
            wal_bytes=wal,
            updated=int(self._ask(of_rows.format("n_tup_upd + n_tup_del"))),
            inserted=int(self._ask(of_rows.format("n_tup_ins"))),
            tx=int(
                self._ask("SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()")
            )
            - self._own_tx,
        )

    def _server_cpu(self) -> float:
        assert self._postmaster is not None
        total = 0.0
        for one in self._postmaster.children(recursive=True):
            if one.pid != self._own_pid:
                times = one.cpu_times()
                total += times.user + times.system
        return total

    def finished(self) -> int:
        return int(self._ask("SELECT count(*) FROM sync_runs WHERE finished_at IS NOT NULL"))

    def differing(self, runs: int) -> int:
        """How many of the latest runs were no success or found a row that differs."""
        return int(
            self._ask(
                "SELECT count(*) FROM (SELECT * FROM sync_runs ORDER BY started_at DESC LIMIT :runs) AS latest"
                " WHERE status <> 'completed' OR added + changed + removed + quarantined > 0",
                runs=runs,
            )
        )

    def changed(self, runs: int) -> set[int]:
        """How many rows each of the latest runs has changed."""
        latest = "SELECT status, changed FROM sync_runs ORDER BY started_at DESC LIMIT :runs"
        found = "SELECT array_agg(DISTINCT CASE status WHEN 'completed' THEN changed ELSE -1 END) FROM "
        return set(self._ask(f"{found} ({latest}) AS latest", runs=runs))

    def close(self) -> None:
        self._connection.close()


def sync_all(counters: Counters, ids: Sequence[UUID], send: Send) -> None:
    """Syncs all logins once."""
    expected = counters.finished() + len(ids)
    send(ids)
    wait_for(lambda: counters.finished() >= expected, every=0.25, seconds=600, what=f"{len(ids)} syncs")


def measure(
    counters: Counters, process: psutil.Process, ids: Sequence[UUID], send: Send, rounds: int
) -> dict[str, float]:
    """What one sync costs once no row differs any more."""
    for _ in range(_ROUNDS_BEFORE):
        sync_all(counters, ids, send)
    if differing := counters.differing(len(ids)):
        raise SystemExit(f"{differing} of {len(ids)} logins still differ after {_ROUNDS_BEFORE} syncs")
    before = counters.read(process)
    for _ in range(rounds):
        sync_all(counters, ids, send)
    after = counters.read(process)
    if differing := counters.differing(len(ids) * rounds):
        raise SystemExit(f"{differing} syncs were not idle")
    return after.each_since(before, len(ids) * rounds)


def measure_news(
    given: Bench, counters: Counters, process: psutil.Process, logins: dict[UUID, str], rounds: int
) -> dict[str, float]:
    """What one sync costs that finds a changed row, and bytes of WAL of each further row."""
    found = []
    for rows in _NEWS:
        before = counters.read(process)
        for number in range(rounds):
            change_rows(given, list(logins.values()), rows, f"Changed {rows} {number}")
            sync_all(counters, list(logins), ours)
        found.append(counters.read(process).each_since(before, len(logins) * rounds))
        if (changed := counters.changed(len(logins) * rounds)) != {rows}:
            raise SystemExit(f"{rows} rows of each login were changed, and its sync has changed {changed}")
    one, more = found
    each = (more["wal_bytes"] - one["wal_bytes"]) / (_NEWS[1] - _NEWS[0])
    return one | {"wal_bytes_each_further_row": round(each), "run_bytes": run_bytes(given.engine(), repeats=False)}


def ours(ids: Sequence[UUID]) -> None:
    from worker.settings import get_settings
    from worker.tasks.accounts import sync_providers

    size = get_settings().sync_batch_size
    for start in range(0, len(ids), size):
        sync_providers.apply_async(args=[[str(id_) for id_ in ids[start : start + size]]])


def naive(ids: Sequence[UUID]) -> None:
    from tests.benchmarks import plain_sync

    for id_ in ids:
        plain_sync.sync.apply_async(args=[str(id_)], queue="plain_sync")


def floor(profile: str, ids: Sequence[UUID]) -> float:
    """CPU in milliseconds of the HTTP calls alone."""
    command = [sys.executable, "-m", "tests.benchmarks.idle_floor", profile, *map(str, ids)]
    done = subprocess.run(command, env=os.environ, stdout=subprocess.PIPE, check=True, text=True)
    return float(done.stdout.splitlines()[-1])


def make(given: Bench, profile: str, count: int, rows: int) -> dict[UUID, str]:
    """Linked logins with about `rows` transactions each, and their names in the sandbox."""
    accounts = PROFILES[profile]
    logins = given.admin.create_logins(profile, count, accounts=accounts, transactions=rows)
    runtime = given.runtime()
    ids = {link(runtime, given.admin, profile, login): login for login in logins}
    runtime.close()
    return ids


def set_environment(given: Bench) -> None:
    """What the worker gets besides: its home, and quotas that refuse nothing."""
    os.environ.update(
        QUOTA_SCALE="1000000",
        DASHTAM_HOME=str(given.home / "home"),
        DASHTAM_ENV_FILE=os.devnull,
        LOG_LEVEL="INFO",
        INTEGRATIONS=",".join(PROFILES),
    )


def run(given: Bench, options: argparse.Namespace) -> dict[str, object]:
    """All measurements."""
    set_environment(given)
    only = options.only.split(",")
    logins = {profile: make(given, profile, options.n, options.rows) for profile in PROFILES}
    ids = {profile: list(logins[profile]) for profile in PROFILES}
    counters = Counters(given.engine())
    found: dict[str, Any] = {}
    with worker("ours", ["-A", "worker.app", "worker", "-Q", "sync", "-c", "1"], given.home) as process:
        for profile in [name for name in PROFILES if name in only]:
            found[profile] = measure(counters, process, ids[profile], ours, options.rounds)
            found[profile]["run_bytes"] = run_bytes(given.engine(), repeats=True)
            say(f"{profile}: {found[profile]}")
        found["row_bytes"] = row_bytes(given.engine())
        say(f"row_bytes: {found['row_bytes']}")
        if "news" in only and "plaid" in found:
            found["news"] = measure_news(given, counters, process, logins["plaid"], options.rounds)
            say(f"news: {found['news']}")
    if "floor" in only:
        for profile in [name for name in PROFILES if name in only]:
            name = "http_floor_ms" if profile == "plaid" else f"http_floor_{profile}_ms"
            found[name] = round(floor(profile, ids[profile]), 2)
            say(f"{name}: {found[name]}")
    if "naive" in only and "plaid" in found:
        argv = ["-A", "tests.benchmarks.plain_sync", "worker", "-Q", "plain_sync", "-c", "2"]
        with worker("naive", argv, given.home) as process:
            plain = measure(counters, process, ids["plaid"], naive, options.rounds)
        say(f"naive: {plain}")
        found["naive_cpu_ms"] = plain["cpu_ms"]
        found["ratio_vs_naive"] = round(plain["cpu_ms"] / found["plaid"]["cpu_ms"], 2)
    counters.close()
    return found


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=200, help="logins of each provider")
    parser.add_argument("--rows", type=int, default=300, help="transactions of each login")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="plaid,schwab,news,floor,naive")
    options = parser.parse_args()
    say(f"load average {os.getloadavg()[0]:.1f}")
    with bench() as given:
        found = run(given, options)
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()

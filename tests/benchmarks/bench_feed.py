"""What the change feed costs those who write, and rows a second for those who read.

    python -m tests.benchmarks.bench_feed [--rows 200000] [--rounds 5] [--only write,read]

Writing: a first load and a sync of unchanged rows, with the triggers of the feed on and off in turn, in one run. CPU is
that of this process and of Postgres together: other work on the machine disturbs it less than the clock. Reading: one
process reads all rows, and then all rows again as changes, by the iterator and over HTTP; `rows_per_cpu_s` counts the
reader's own CPU, without Postgres's. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import httpx
import psutil
from sqlalchemy import Engine, text

from tests.benchmarks.sync_apply import ApplyBench, Fetched, fetch
from tests.benchmarks.sync_setup import Bench, bench, median, settle
from worker.devstack.processes import free_port
from worker.models.vocabulary import KeyScope
from worker.runtime import Runtime
from worker.services import feed
from worker.services.access import keys

TABLES = ("accounts", "balances", "holdings", "transactions", "securities")


@dataclass(frozen=True)
class Cost:
    """Seconds of CPU, and on the clock."""

    cpu_s: float
    clock_s: float


class Clock:
    """Measures the CPU of this process and of all of Postgres."""

    def __init__(self, engine: Engine) -> None:
        with engine.connect() as connection:
            self._postmaster = psutil.Process(connection.scalar(text("SELECT pg_backend_pid()"))).parent()

    def _cpu(self) -> float:
        assert self._postmaster is not None
        times = [one.cpu_times() for one in (self._postmaster, *self._postmaster.children(recursive=True))]
        return time.process_time() + sum(one.user + one.system for one in times)

    def cost(self, work: Callable[[], object]) -> Cost:
        """What `work` costs."""
        cpu, clock = self._cpu(), time.perf_counter()
        work()
        return Cost(self._cpu() - cpu, time.perf_counter() - clock)


def switch(engine: Engine, *, on: bool) -> None:
    """Turns the triggers of the feed on or off; those of foreign keys stay on."""
    with engine.begin() as connection:
        for table in TABLES:
            connection.execute(text(f"ALTER TABLE {table} {'ENABLE' if on else 'DISABLE'} TRIGGER USER"))


def measure_writing(passes: ApplyBench, fetched: Fetched, rounds: int) -> dict[str, float]:
    """The cost without the feed over the cost with it: 0.9 means that the feed takes a tenth."""
    clock = Clock(passes.engine)
    costs: dict[tuple[str, bool], list[Cost]] = {}
    for number in range(2 * rounds):
        on = number % 4 in (1, 2)  # off, on, on, off: neither comes first more often
        switch(passes.engine, on=on)
        passes.empty("transactions", "change_log")
        costs.setdefault(("load", on), []).append(clock.cost(lambda: passes.apply(is_first=True)))
        settle(passes.engine)
        costs.setdefault(("resync", on), []).append(clock.cost(passes.apply))
    switch(passes.engine, on=True)
    found: dict[str, float] = {}
    for what in ("load", "resync"):
        of, without = costs[what, True], costs[what, False]
        found[f"{what}_cpu_ratio"] = median([one.cpu_s for one in without]) / median([one.cpu_s for one in of])
        found[f"{what}_clock_ratio"] = min(one.clock_s for one in without) / min(one.clock_s for one in of)
        found[f"{what}_rows_per_cpu_s"] = fetched.count / median([one.cpu_s for one in of])
    return found


@dataclass(frozen=True)
class Reading:
    """Rows, the last cursor, seconds on the clock, and seconds of CPU of this process."""

    rows: int
    cursor: str
    clock_s: float
    cpu_s: float


def read_all(runtime: Runtime, user_id: UUID | None, cursor: str | None) -> Reading:
    """Reads to the end."""

    async def read() -> tuple[int, str]:
        count, last = 0, cursor or ""
        async for found in feed.changes(runtime, user_id=user_id, cursor=cursor):
            count, last = count + len(found.items), found.cursor
        return count, last

    cpu, began = time.process_time(), time.perf_counter()
    count, last = runtime.run(read())
    return Reading(count, last, time.perf_counter() - began, time.process_time() - cpu)


@contextmanager
def server(runtime: Runtime) -> Iterator[httpx.Client]:
    """The HTTP API in a process of its own, and a client with an operator's key."""
    port = free_port()
    made = runtime.run(
        keys.create(
            runtime,
            name="bench",
            scopes=tuple(KeyScope),
            user_id=None,
            lifetime=timedelta(hours=1),
            actor="operator:bench",
        )
    )
    environment = os.environ | {"WEB_PORT": str(port), "LOG_LEVEL": "WARNING"}
    environment |= {"WEB_KEY_RATE": "1000000/minute", "WEB_ADDRESS_RATE": "1000000/minute"}
    process = subprocess.Popen([sys.executable, "-m", "worker.web"], env=environment)
    try:
        headers = {"Authorization": f"Bearer {made.key}"}
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=60) as client:
            _wait(client)
            yield client
    finally:
        process.terminate()
        process.wait()


def _wait(client: httpx.Client) -> None:
    for _ in range(300):
        try:
            if client.get("/healthz").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise SystemExit("the HTTP API did not start")


def read_http(client: httpx.Client) -> tuple[int, float]:
    """Reads all rows over HTTP; number of rows, seconds."""
    query: dict[str, Any] = {"limit": 1000}
    count, has_more, began = 0, True, time.perf_counter()
    while has_more:
        answer = client.get("/api/v1/changes", params=query)
        answer.raise_for_status()
        told = json.loads(answer.content)
        count, has_more = count + len(told["items"]), told["has_more"]
        query["cursor"] = told["cursor"]
    return count, time.perf_counter() - began


def measure_reading(runtime: Runtime, engine: Engine, rounds: int) -> dict[str, float]:
    """Rows a second; of each the best round counts."""
    with engine.begin() as connection:
        user_id = connection.execute(
            text("SELECT p.user_id FROM accounts a JOIN providers p ON p.id = a.provider_id LIMIT 1")
        ).scalar_one()
    found: dict[str, list[float]] = {}

    def note(name: str, read: Reading) -> None:
        found.setdefault(f"{name}_rows_per_s", []).append(read.rows / read.clock_s)
        found.setdefault(f"{name}_rows_per_cpu_s", []).append(read.rows / read.cpu_s)

    with server(runtime) as client:
        for _ in range(rounds):
            first = read_all(runtime, None, None)
            note("first_read", first)
            note("first_read_of_a_user", read_all(runtime, user_id, None))
            with engine.begin() as connection:
                connection.execute(text("UPDATE transactions SET fees = coalesce(fees, 0) + 1"))
            settle(engine)
            note("changes", read_all(runtime, None, first.cursor))
            count, seconds = read_http(client)
            found.setdefault("http_rows_per_s", []).append(count / seconds)
    return {name: max(rates) for name, rates in found.items()}


def run(given: Bench, options: argparse.Namespace) -> dict[str, float]:
    """All measurements."""
    (login,) = given.admin.create_logins("plaid", accounts=2, transactions=options.rows, warm=True)
    runtime = given.runtime()
    fetched = fetch(runtime, given, login)
    passes = ApplyBench(given, runtime, fetched)
    found: dict[str, float] = {"rows": fetched.count}
    if "write" in options.only:
        found |= measure_writing(passes, fetched, options.rounds)
    if "read" in options.only:
        passes.empty("transactions", "change_log")
        passes.apply(is_first=True)
        settle(passes.engine)
        found |= measure_reading(runtime, passes.engine, options.rounds)
    runtime.close()
    passes.engine.dispose()
    return found


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="write,read")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    sys.stdout.write(f"load average {os.getloadavg()[0]:.1f}\n")
    with bench() as given:
        found = run(given, options)
    for name, value in found.items():
        sys.stdout.write(f"{name:34} {value:14,.3f}\n")
    sys.stdout.write(json.dumps({name: round(value, 3) for name, value in found.items()}) + "\n")


if __name__ == "__main__":
    main()

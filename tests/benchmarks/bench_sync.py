"""Rows a second into Postgres, against plain COPY, the ORM, and the peers that `make bench-peers` has installed.

    python -m tests.benchmarks.bench_sync [--rows 200000] [--rounds 3] [--no-peers]

Everything is measured in one run on one machine: trust the ratios, not the rates. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys

from tests.benchmarks import peers
from tests.benchmarks.sync_apply import fetch, measure
from tests.benchmarks.sync_setup import Bench, bench


def fetch_to_commit(given: Bench, profile: str, rows: int) -> dict[str, float]:
    """One profile's whole syncs, in a process of their own."""
    # Both of the first two accounts of a Plaid login are in its transactions feed.
    (login,) = given.admin.create_logins(profile, accounts=2, transactions=rows, warm=True)
    (small,) = given.admin.create_logins(profile, accounts=2, transactions=3000)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.benchmarks.sync_fetch",
            profile,
            login,
            small,
            given.sandbox_url,
            given.admin_token,
            given.feed_url,
        ],
        env=os.environ | {"LOG_LEVEL": "ERROR"},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-peers", action="store_true")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    say(f"load average {os.getloadavg()[0]:.1f}: other work on this machine costs what runs in several processes most")
    with bench() as given:
        whole: dict[str, dict[str, float]] = {}
        for profile in ("plaid", "schwab"):
            whole[profile] = fetch_to_commit(given, profile, options.rows)
            show(f"fetch to commit, {profile}", whole[profile])
        (login,) = given.admin.create_logins("plaid", accounts=2, transactions=options.rows, warm=True)
        runtime = given.runtime()
        fetched = fetch(runtime, given, login)
        applied = measure(given, runtime, fetched, rounds=options.rounds)
        runtime.close()
        show("apply only", applied)
        compared = {} if options.no_peers else peers.measure(given, options.rows)
        for name, rates in compared.items():
            show(name, rates)
    answer = {name: applied[name] for name in _ANSWER}
    answer["peak_extra_mib"] = max(found["peak_extra_mib"] for found in whole.values())
    plaid = whole["plaid"]
    for peer, rates in compared.items():
        answer[f"load_vs_{peer}"] = plaid["load_rows_per_s"] / rates["load_rows_per_s"]
        answer[f"resync_vs_{peer}"] = plaid["resync_rows_per_s"] / rates["resync_rows_per_s"]
    say(json.dumps({name: round(value, 3) for name, value in answer.items()}))


_ANSWER = (
    "apply_load_vs_copy",
    "apply_resync_vs_copy",
    "wal_bytes_per_unchanged_row",
    "dead_tuples_per_changed_row",
    "load_vs_orm",
)


def show(title: str, figures: dict[str, float]) -> None:
    say(f"{title}:")
    for name, value in figures.items():
        say(f"  {name:34} {value:14,.2f}")


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()

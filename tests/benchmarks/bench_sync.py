"""Rows a second into Postgres, against plain COPY, the ORM, and the peers that `make bench-peers` has installed.

    python -m tests.benchmarks.bench_sync [--rows 200000] [--rounds 3] [--fetch-rounds 2] [--no-peers]

Everything is measured in one run on one machine: trust the ratios, not the rates. Whole syncs and the peers take turns,
and of each the best round counts, which other work on the machine has disturbed least. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
from collections.abc import Sequence

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


Rates = dict[str, float]


def measure_round(given: Bench, rows: int, *, peers_too: bool) -> dict[str, Rates]:
    """One whole sync of a Plaid login, and the peers with the same."""
    ours = {"plaid": fetch_to_commit(given, "plaid", rows)}
    return ours | (peers.measure(given, rows) if peers_too else {})


def best(rounds: Sequence[Rates]) -> Rates:
    """The highest rates, and the highest of everything else too: the least memory is not what is asked for."""
    return {name: max(one[name] for one in rounds) for name in rounds[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--fetch-rounds", type=int, default=2)
    parser.add_argument("--no-peers", action="store_true")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    say(f"load average {os.getloadavg()[0]:.1f}: other work on this machine costs what runs in several processes most")
    with bench() as given:
        rounds = [
            measure_round(given, options.rows, peers_too=not options.no_peers) for _ in range(options.fetch_rounds)
        ]
        found = {name: best([one[name] for one in rounds]) for name in rounds[0]}
        found["schwab"] = fetch_to_commit(given, "schwab", options.rows)
        for name, rates in found.items():
            show(f"fetch to commit, {name}", rates)
        (login,) = given.admin.create_logins("plaid", accounts=2, transactions=options.rows, warm=True)
        runtime = given.runtime()
        fetched = fetch(runtime, given, login)
        applied = measure(given, runtime, fetched, rounds=options.rounds)
        runtime.close()
        show("apply only", applied)
    answer = {name: applied[name] for name in _ANSWER}
    answer["peak_extra_mib"] = max(found[profile]["peak_extra_mib"] for profile in ("plaid", "schwab"))
    for peer in peers.REQUIREMENTS:
        for measured in ("load", "resync") if peer in found else ():
            rate = f"{measured}_rows_per_s"
            answer[f"{measured}_vs_{peer}"] = found["plaid"][rate] / found[peer][rate]
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

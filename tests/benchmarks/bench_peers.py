"""Makes the peers' environments and measures them alone; `bench_sync` then compares with them in its own run.

    python -m tests.benchmarks.bench_peers [--rows 200000]

The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import logging

from tests.benchmarks import peers
from tests.benchmarks.bench_sync import say
from tests.benchmarks.sync_apply import fetch
from tests.benchmarks.sync_setup import bench


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    for name in peers.REQUIREMENTS:
        say(f"{name}: {peers.make(name)}")
    with bench() as given:
        (login,) = given.admin.create_logins("plaid", accounts=2, transactions=options.rows, warm=True)
        runtime = given.runtime()
        fetched = fetch(runtime, given, login)
        runtime.close()
        found = peers.measure(given, fetched)
    say(json.dumps({name: {rate: round(value) for rate, value in rates.items()} for name, rates in found.items()}))


if __name__ == "__main__":
    main()

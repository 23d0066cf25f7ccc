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
from tests.benchmarks.sync_setup import bench


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    for name in peers.REQUIREMENTS:
        say(f"{name}: {peers.make(name)}")
    with bench() as given:
        found = peers.measure(given, options.rows)
    say(json.dumps({name: {rate: round(value) for rate, value in rates.items()} for name, rates in found.items()}))


if __name__ == "__main__":
    main()

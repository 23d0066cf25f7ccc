"""The peers' side of `bench_sync`: dlt and Singer's target-postgres, fed the same rows in environments of their own."""

from __future__ import annotations

from tests.benchmarks.sync_apply import Fetched
from tests.benchmarks.sync_setup import Bench


def measure(bench: Bench, fetched: Fetched) -> dict[str, float]:
    return {}


def by_peer(found: dict[str, float]) -> dict[str, dict[str, float]]:
    return {}

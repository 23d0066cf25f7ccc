"""Several processes count; the exporter reads one sum, also when they have ended."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector

from tests.support.environment import ROOT
from worker.telemetry import metric_files

pytestmark = pytest.mark.deep

COUNT = """
import sys
from pathlib import Path
from worker import metric_files, metrics
metric_files.share_with_exporter(Path(sys.argv[1]))
metrics.observe_refresh("schwab", "refreshed", lag_s=2.0)
"""


def count_in_a_process(home: Path) -> None:
    subprocess.run([sys.executable, "-c", COUNT, str(home)], check=True, cwd=ROOT)


def exported(home: Path) -> dict[str, float]:
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=str(metric_files.directory(home)))  # type: ignore[no-untyped-call]
    return {
        f"{sample.name}{sample.labels.get('le', '')}": sample.value
        for metric in registry.collect()
        for sample in metric.samples
    }


def test_ended_processes_are_folded_into_one_file_and_nothing_is_lost(tmp_path: Path) -> None:
    for _ in range(2):
        count_in_a_process(tmp_path)
    before = exported(tmp_path)

    assert metric_files.fold_dead(metric_files.directory(tmp_path)) == 4
    assert metric_files.fold_dead(metric_files.directory(tmp_path)) == 0

    assert exported(tmp_path) == before
    assert before["dashtam_refresh_attempts_total"] == 2
    assert before["dashtam_refresh_lag_seconds_bucket5.0"] == 2
    assert len(list(metric_files.directory(tmp_path).glob("*.db"))) == 2

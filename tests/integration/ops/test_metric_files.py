"""Several processes count; the exporter reads one sum, also when they have ended."""

from __future__ import annotations

import os
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
import socket, sys
from pathlib import Path
socket.gethostname = lambda: sys.argv[2]
from worker.telemetry import metric_files, metrics
metric_files.share_with_exporter(Path(sys.argv[1]))
metrics.observe_refresh("schwab", "refreshed", lag_s=2.0)
if len(sys.argv) > 3:
    print("counted", flush=True)
    sys.stdin.read()
    metrics.observe_refresh("schwab", "refreshed", lag_s=2.0)
"""


def count_in_a_process(home: Path, host: str = "here") -> None:
    subprocess.run([sys.executable, "-c", COUNT, str(home), host], check=True, cwd=ROOT)


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


def test_containers_made_anew_leave_no_file_of_their_own(tmp_path: Path) -> None:
    for number in range(3):
        count_in_a_process(tmp_path, host=f"container-{number}")
        metric_files.fold_dead(metric_files.directory(tmp_path))

    names = sorted(path.name for path in metric_files.directory(tmp_path).iterdir())
    assert names == ["counter_ended.db", "histogram_ended.db", "lock"]
    assert exported(tmp_path)["dashtam_refresh_attempts_total"] == 3


def test_files_that_an_earlier_release_left_are_folded(tmp_path: Path) -> None:
    count_in_a_process(tmp_path)
    directory = metric_files.directory(tmp_path)
    for file in directory.glob("*.db"):
        file.rename(directory / f"{file.stem.partition('_')[0]}_gone-container-0.db")

    metric_files.fold_dead(directory)

    assert not list(directory.glob("*_gone-*"))
    assert exported(tmp_path)["dashtam_refresh_attempts_total"] == 1


def test_process_of_another_container_that_lives_keeps_its_files(tmp_path: Path) -> None:
    command = [sys.executable, "-c", COUNT, str(tmp_path), "other-container", "stay"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == "counted\n"

        assert metric_files.fold_dead(metric_files.directory(tmp_path)) == 0
        other.stdin.close()

    assert metric_files.fold_dead(metric_files.directory(tmp_path)) == 2
    assert exported(tmp_path)["dashtam_refresh_attempts_total"] == 2


def test_worker_of_the_release_before_finds_the_process_s_number_where_it_looks(tmp_path: Path) -> None:
    name = metric_files._Identity(tmp_path)()

    assert int(name.rpartition("-")[2]) == os.getpid()

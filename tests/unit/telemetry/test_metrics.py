"""Counting: right names, closed labels, harmless, and bounded files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import values

from worker.telemetry import metric_files, metrics


@pytest.fixture(autouse=True)
def _own_counts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(values, "ValueClass", values.MutexValue)
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "")
    metrics.reset()
    yield
    metrics.reset()


def counted(name: str, **labels: str) -> float:
    return sum(item.value for item in metrics.counted() if item.name == name and labels.items() <= item.labels.items())


def test_refresh_counts_outcome_lag_and_whether_it_was_in_time() -> None:
    metrics.observe_refresh("schwab", "refreshed", lag_s=3.0, in_time=True)
    metrics.observe_refresh("schwab", "refreshed", lag_s=400.0, in_time=False)
    metrics.observe_refresh("schwab", "needs_reauth")

    assert counted("dashtam_refresh_attempts_total", integration="schwab", outcome="refreshed") == 2
    assert counted("dashtam_refresh_attempts_total", outcome="needs_reauth") == 1
    assert counted("dashtam_tokens_refreshed_total", in_time="yes") == 1
    assert counted("dashtam_tokens_refreshed_total", in_time="no") == 1
    assert counted("dashtam_refresh_lag_seconds_count", integration="schwab") == 2


@pytest.mark.deep
@pytest.mark.parametrize(
    ("answer", "label"), [(200, "2xx"), (503, "5xx"), (429, "429"), (401, "401"), (404, "4xx"), ("timeout", "timeout")]
)
def test_http_answers_are_counted_by_class(answer: int | str, label: str) -> None:
    metrics.observe_http_call("plaid", "transactions_sync", answer, 0.1)

    assert counted("dashtam_http_calls_total", endpoint="transactions_sync", answer=label) == 1


def test_sync_counts_rows_by_outcome() -> None:
    metrics.observe_sync("plaid", "completed", seconds=2.5, rows={"added": 3, "unchanged": 497})

    assert counted("dashtam_sync_runs_total", integration="plaid", status="completed") == 1
    assert counted("dashtam_sync_rows_total", outcome="unchanged") == 497
    assert counted("dashtam_sync_run_seconds_sum") == 2.5


def test_task_that_never_failed_has_a_failure_counter_at_zero() -> None:
    metrics.observe_task("t", seconds=0.1)
    assert [item.value for item in metrics.counted() if item.name == "dashtam_task_failures_total"] == [0]

    metrics.observe_task("t", seconds=0.1, failed=True)
    assert counted("dashtam_task_failures_total", task="t") == 1


def test_no_metric_has_a_label_for_one_provider() -> None:
    metrics.observe_refresh("schwab", "refreshed", lag_s=1, in_time=True)
    metrics.observe_quota("schwab", admitted=True)
    metrics.observe_queue_delay("refresh", 1)
    metrics.observe_beat("t")

    labels = {label for item in metrics.counted() for label in item.labels}
    assert labels <= {"integration", "outcome", "in_time", "le", "answer", "queue", "task", "status", "endpoint"}


def test_counting_on_a_full_disk_raises_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def full() -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(metrics, "_metrics", full)

    metrics.observe_refresh("schwab", "refreshed")
    monkeypatch.undo()


def test_file_of_a_living_process_is_left_alone(tmp_path: Path) -> None:
    metric_files.share_with_exporter(tmp_path)
    metrics.observe_refresh("schwab", "refreshed")

    assert metric_files.fold_dead(metric_files.directory(tmp_path)) == 0
    assert list(metric_files.directory(tmp_path).glob(f"counter_*-*-{os.getpid()}.db"))


def test_counts_are_private(tmp_path: Path) -> None:
    assert metric_files.directory(tmp_path).stat().st_mode & 0o077 == 0

"""All metrics, each declared here once, and the functions that count them.

Services call the `observe_…` functions. Labels come from fixed sets of values and are never an id. Processes count in
memory, or, after `metric_files.share_with_exporter`, in files that `worker.telemetry.exporter` adds up. Counting never
raises an error: a full disk must not make us lose a token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache, wraps
from typing import Any, NamedTuple, ParamSpec

from prometheus_client import CollectorRegistry, Counter, Histogram

from worker.process.logger import Logger

log = Logger(__name__)
P = ParamSpec("P")

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 60)
_LONG_SECONDS = (1, 5, 15, 60, 300, 900, 3600)
_LAG_SECONDS = (1, 5, 15, 30, 60, 120, 300, 600, 1800, 3600)


class _Metrics:
    """All metrics of worker processes. They are made at the first use, when it is known where they are kept."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.refresh_attempts = self._counter(
            "dashtam_refresh_attempts", "Token refreshes that ended, by outcome", "integration", "outcome"
        )
        self.refresh_lag = self._histogram(
            "dashtam_refresh_lag_seconds", "From due to refreshed", _LAG_SECONDS, "integration"
        )
        self.tokens_refreshed = self._counter(
            "dashtam_tokens_refreshed", "New tokens stored; in_time: before the old one ended", "integration", "in_time"
        )
        self.http_calls = self._counter(
            "dashtam_http_calls", "Calls to providers, by what came back", "integration", "endpoint", "answer"
        )
        self.http_seconds = self._histogram(
            "dashtam_http_call_seconds", "Calls to providers, to the last byte", _SECONDS, "integration"
        )
        self.sync_runs = self._counter("dashtam_sync_runs", "Sync runs that ended, by status", "integration", "status")
        self.sync_seconds = self._histogram(
            "dashtam_sync_run_seconds", "Sync runs from start to end", _LONG_SECONDS, "integration"
        )
        self.sync_rows = self._counter(
            "dashtam_sync_rows", "Rows of finished pages, by what became of them", "integration", "outcome"
        )
        self.quota_calls = self._counter(
            "dashtam_quota_calls", "Calls admitted or put off by our own quotas", "integration", "answer"
        )
        self.task_seconds = self._histogram("dashtam_task_seconds", "Tasks from start to end", _LONG_SECONDS, "task")
        self.task_failures = self._counter("dashtam_task_failures", "Tasks that raised, or were dropped", "task")
        self.queue_delay = self._histogram(
            "dashtam_queue_delay_seconds", "From published to started", _LAG_SECONDS, "queue"
        )
        self.hooks = self._counter(
            "dashtam_hooks",
            "Hooks of providers, by answer and by what became of them",
            "integration",
            "status",
            "outcome",
        )
        self.hook_seconds = self._histogram(
            "dashtam_hook_seconds", "Hooks of providers, from received to answered", _SECONDS, "integration"
        )
        self.sent_hooks = self._counter(
            "dashtam_sent_hooks", "Attempts to send our own hooks, by what became of them", "event", "outcome"
        )
        self.sent_hook_seconds = self._histogram(
            "dashtam_sent_hook_seconds", "Attempts to send our own hooks, to the answer", _SECONDS
        )
        self.beat_ticks = self._counter("dashtam_beat_ticks", "Tasks that beat has sent", "task")

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(name, text, labels, buckets=buckets, registry=self.registry)


@cache
def _metrics() -> _Metrics:
    return _Metrics()


@cache
def _one(name: str, *labels: str) -> Any:
    """The metric `name` of `_Metrics` with these labels. Found once: looking for it takes longer than counting."""
    return getattr(_metrics(), name).labels(*labels)


def _harmless(observe: Callable[P, None]) -> Callable[P, None]:
    @wraps(observe)
    def observed(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            observe(*args, **kwargs)
        except OSError as error:
            log.warning("not_counted", what=observe.__name__, error=type(error).__name__)

    return observed


@_harmless
def observe_refresh(
    provider_key: str, outcome: str, *, lag_s: float | None = None, in_time: bool | None = None
) -> None:
    """Counts one refresh that has ended.

    Args:
        provider_key: the integration.
        outcome: a value of the service's `Outcome`.
        lag_s: for a stored token: seconds from the time at which it was due until it was stored.
        in_time: for a stored token: whether the old access token was still valid.
    """
    _one("refresh_attempts", provider_key, str(outcome)).inc()
    if lag_s is not None:
        _one("refresh_lag", provider_key).observe(max(0.0, lag_s))
    if in_time is not None:
        _one("tokens_refreshed", provider_key, "yes" if in_time else "no").inc()


@_harmless
def observe_http_call(provider_key: str, endpoint: str, answer: int | str, seconds: float) -> None:
    """Counts one call to a provider that has ended.

    Args:
        provider_key: the integration.
        endpoint: the endpoint's name in our code, never a path.
        answer: HTTP status, or the kind of error that came instead of an answer.
        seconds: time until the last byte of the answer.
    """
    _one("http_calls", provider_key, endpoint, _answer_class(answer)).inc()
    _one("http_seconds", provider_key).observe(seconds)


@cache
def _answer_class(answer: int | str) -> str:
    if isinstance(answer, str):
        return answer
    return str(answer) if answer in (401, 403, 429) else f"{answer // 100}xx"


@_harmless
def observe_sync(provider_key: str, status: str, *, seconds: float, rows: Mapping[str, int]) -> None:
    """Counts one run that has ended.

    Args:
        provider_key: the integration.
        status: a `RunStatus`.
        seconds: time from start to end.
        rows: number of rows by outcome: added, changed, unchanged, removed, quarantined.
    """
    _one("sync_runs", provider_key, str(status)).inc()
    _one("sync_seconds", provider_key).observe(seconds)
    for outcome, number in rows.items():
        _one("sync_rows", provider_key, outcome).inc(number)


@_harmless
def observe_quota(provider_key: str, *, admitted: bool, calls: int = 1) -> None:
    """Counts calls that our own quota admitted or delayed."""
    _one("quota_calls", provider_key, "admitted" if admitted else "deferred").inc(calls)


@_harmless
def observe_task(task: str, *, seconds: float, failed: bool = False) -> None:
    """Counts one task that has ended."""
    _one("task_seconds", task).observe(seconds)
    _one("task_failures", task).inc(1 if failed else 0)


@_harmless
def observe_queue_delay(queue: str, seconds: float) -> None:
    """Counts a task that starts, with the seconds since it was sent."""
    _one("queue_delay", queue).observe(max(0.0, seconds))


@_harmless
def observe_hook(provider_key: str, status: int, outcome: str, seconds: float) -> None:
    """Counts one hook that was answered.

    Args:
        provider_key: the integration.
        status: the HTTP status of the answer.
        outcome: what became of it, or the reason for which it was refused.
        seconds: time from received to answered.
    """
    _one("hooks", provider_key, str(status), outcome).inc()
    _one("hook_seconds", provider_key).observe(seconds)


@_harmless
def observe_sent_hook(event: str, outcome: str, seconds: float) -> None:
    """Counts one attempt to send a hook of ours.

    Args:
        event: a word of `EventType`.
        outcome: `received`, `failed` (it is tried again) or `parked` (it is given up).
        seconds: time until the answer.
    """
    metrics = _metrics()
    metrics.sent_hooks.labels(event, outcome).inc()
    metrics.sent_hook_seconds.observe(seconds)


@_harmless
def observe_beat(task: str) -> None:
    """Records that beat has sent a task."""
    _one("beat_ticks", task).inc()


class Value(NamedTuple):
    """One value of a metric, with its name and labels."""

    name: str
    labels: dict[str, str]
    value: float


def counted() -> Iterator[Value]:
    """The values that only this process has counted."""
    for metric in _metrics().registry.collect():
        yield from (Value(sample.name, sample.labels, sample.value) for sample in metric.samples)


def reset() -> None:
    """Deletes what this process has counted, for tests."""
    _metrics.cache_clear()
    _one.cache_clear()

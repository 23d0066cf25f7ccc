"""Gauges that the exporter reads from Postgres, Redis and RabbitMQ when Prometheus scrapes it.

The values are kept for a few seconds, or longer if reading them takes longer, so that scrapes use at most 5 % of a
server's time.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Protocol

import redis
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import Engine

from worker.crud import heartbeats
from worker.crud.database import transaction
from worker.crud.fleet import breakers, gauges
from worker.crud.fleet.gauges import FleetGauges
from worker.crud.outbox import deliveries
from worker.errors import ConfigurationError, Unavailable
from worker.models.vocabulary import ProviderStatus
from worker.process.logger import Logger
from worker.process.rabbitmq import RabbitMQ
from worker.process.redis_client import ask_lengths, told_lengths
from worker.process.redis_names import JOURNAL, Lengths

log = Logger(__name__)

BREAKER_STATES = ("closed", "open", "half_open")
_KEPT_SECONDS = 5.0
_SHARE = 20
_EMPTY = FleetGauges(
    0, dict.fromkeys(gauges.TOKEN_SECONDS, 0), dict.fromkeys(gauges.FRESH_SECONDS, 0), 0, 0, 0.0, 0, 0, 0.0, 0.0, 0.0, 0
)


class Source(Protocol):
    """Reads some gauges."""

    def __call__(self) -> Iterator[Metric]:
        """Reads the gauges.

        Raises:
            Unavailable: the server cannot be reached.
        """
        ...


class Kept(Collector):
    """Gauges of one server; they are read again when they are too old. One of them says whether the server answered.

    Args:
        service: the server's name in `dashtam_up`.
        read: reads the gauges from the server.
        clock: returns seconds that only increase.
    """

    def __init__(self, service: str, read: Source, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._service = service
        self._read = read
        self._clock = clock
        self._metrics: list[Metric] = []
        self._until = 0.0
        self._reading = threading.Lock()

    def describe(self) -> list[Metric]:
        """Returns nothing, so that registering works without the server."""
        return []

    def collect(self) -> Iterator[Metric]:
        """The gauges, at most a few seconds old."""
        with self._reading:
            begun = self._clock()
            if begun >= self._until:
                self._metrics = list(self._fresh())
                took = self._clock() - begun
                self._until = begun + max(_KEPT_SECONDS, took * _SHARE)
            yield from self._metrics

    def _fresh(self) -> Iterator[Metric]:
        begun, metrics = self._clock(), list[Metric]()
        try:
            metrics = list(self._read())
            reached = True
        except Unavailable as error:
            log.warning("gauges_not_read", service=self._service, error=str(error))
            reached = False
        up = GaugeMetricFamily("dashtam_up", "Whether the exporter reached the server", labels=["service"])
        up.add_metric([self._service], float(reached))
        took = GaugeMetricFamily("dashtam_gauges_read_seconds", "Time to read its gauges", labels=["service"])
        took.add_metric([self._service], self._clock() - begun)
        yield from (up, took, *metrics)


class DatabaseGauges:
    """Gauges that are read from Postgres."""

    def __init__(self, engine: Engine, integrations: tuple[str, ...]) -> None:
        self._engine = engine
        self._integrations = integrations

    def __call__(self) -> Iterator[Metric]:
        """Reads all gauges in one transaction."""
        now = datetime.now(UTC)
        with transaction(self._engine) as session:
            fleet = dict.fromkeys(self._integrations, _EMPTY) | gauges.fleet(session, now=now)
            not_active = gauges.not_active(session)
            work = gauges.work_waiting(session)
            waiting = gauges.backlogs(session)
            outbox = deliveries.backlog(session)
            beats = heartbeats.read_heartbeats(session)
            states = breakers.read_states(session)
            quota_days = gauges.quota_days(session, day=now.date())
        yield from _fleet(fleet, not_active)
        numbers: dict[str, float] = {queue: found.due + found.claimed for queue, found in work.items()}
        yield _by("dashtam_work_waiting", "Logins that are due, or claimed and not yet done", "queue", numbers)
        oldest = {queue: found.oldest_s for queue, found in work.items()}
        yield _by("dashtam_work_waiting_seconds", "How long the first of them has been due", "queue", oldest)
        yield _plain("dashtam_quarantine_open", "Records in quarantine", waiting.quarantine)
        yield _plain("dashtam_task_failures_open", "Dead letters that nobody has resolved", waiting.failures)
        yield _plain("dashtam_notices_waiting", "Notices that have not left", waiting.notices)
        yield _plain("dashtam_outbox_waiting", "Hooks of ours that have not been received", outbox.waiting)
        yield _plain("dashtam_outbox_oldest_seconds", "Age of the oldest of them", outbox.oldest_s)
        yield _plain("dashtam_outbox_parked", "Hooks of ours that were given up", outbox.parked)
        yield _plain("dashtam_sync_runs_running", "Sync runs at work", waiting.runs_running)
        yield _plain("dashtam_refreshes_unknown", "Refreshes of unknown outcome", waiting.unknown_refreshes)
        yield _plain("dashtam_book_drifts", "Figures on which books and provider disagree", waiting.drifts)
        yield _by(
            "dashtam_heartbeat_timestamp_seconds",
            "When a tick last ran to its end",
            "tick",
            {name: at.timestamp() for name, at in beats.items()},
        )
        used = dict.fromkeys(fleet, 0) | quota_days
        yield _by("dashtam_quota_day_used", "Calls of the fullest daily quota today", "integration", used)
        breaker = GaugeMetricFamily(
            "dashtam_breaker_state", "1 for the state that the breaker is in", labels=["integration", "state"]
        )
        for key in fleet:
            current = states[key].breaker if key in states else "closed"
            for state in BREAKER_STATES:
                breaker.add_metric([key, state], float(state == current))
        yield breaker
        paused = {key: float(key in states and states[key].paused_at is not None) for key in fleet}
        yield _by("dashtam_integration_paused", "1 while an integration is paused", "integration", paused)
        alarmed = {key: float(key in states and states[key].alarm is not None) for key in fleet}
        yield _by("dashtam_integration_alarm", "1 while client credentials are refused", "integration", alarmed)


def _fleet(fleet: dict[str, FleetGauges], not_active: dict[tuple[str, str], int]) -> Iterator[Metric]:
    providers = GaugeMetricFamily("dashtam_providers", "Linked logins", labels=["integration", "status"])
    expiring = GaugeMetricFamily(
        "dashtam_tokens_expiring", "Access tokens that end within so many seconds", labels=["integration", "within"]
    )
    fresh = GaugeMetricFamily(
        "dashtam_providers_synced", "Logins that were synced within so many seconds", labels=["integration", "within"]
    )
    for key, found in fleet.items():
        for status in ProviderStatus:
            number = found.active if status is ProviderStatus.ACTIVE else not_active.get((key, status), 0)
            providers.add_metric([key, status], number)
        for seconds, number in found.expiring.items():
            expiring.add_metric([key, str(seconds)], number)
        for seconds, number in found.fresh.items():
            fresh.add_metric([key, str(seconds)], number)
    yield from (providers, expiring, fresh)
    for name, text, attribute in (
        ("dashtam_refresh_due", "Refreshes that are due", "refresh_due"),
        ("dashtam_refresh_late", "Refreshes due for more than a minute", "refresh_late"),
        ("dashtam_refresh_overdue_seconds", "How long the oldest due refresh has been due", "refresh_overdue_s"),
        ("dashtam_sync_due", "Syncs that are due", "sync_due"),
        ("dashtam_sync_late", "Syncs due for more than a minute", "sync_late"),
        ("dashtam_sync_overdue_seconds", "How long the oldest due sync has been due", "sync_overdue_s"),
        ("dashtam_token_age_seconds", "Age of the oldest token that is refreshed", "token_age_s"),
        ("dashtam_sync_age_seconds", "How long ago the least fresh login was synced", "sync_age_s"),
        ("dashtam_grants_ending", "Users' consents that end within 72 hours", "grants_ending"),
    ):
        yield _by(name, text, "integration", {key: getattr(found, attribute) for key, found in fleet.items()})


class RedisGauges:
    """Gauges that are read from Redis: what waits in the journal, and in the queues if Redis is the broker.

    Args:
        client: asks Redis.
        is_broker: whether the queues are there.
    """

    def __init__(self, client: redis.Redis, *, is_broker: bool) -> None:
        self._client = client
        self._is_broker = is_broker

    def __call__(self) -> Iterator[Metric]:
        """Reads all gauges in one round trip."""
        try:
            with self._client.pipeline(transaction=False) as pipeline:
                if self._is_broker:
                    ask_lengths(pipeline)
                pipeline.hlen(JOURNAL)
                *lengths, journal = pipeline.execute()
        except redis.RedisError as error:
            raise Unavailable(f"Redis: {type(error).__name__}") from error
        if lengths:
            yield from _queues(told_lengths(lengths))
        yield _plain("dashtam_journal_entries", "Token answers that wait to be stored", journal)


class RabbitGauges:
    """Gauges that are read from RabbitMQ: what waits in the queues.

    Args:
        broker: asks RabbitMQ.
    """

    def __init__(self, broker: RabbitMQ) -> None:
        self._broker = broker

    def __call__(self) -> Iterator[Metric]:
        """Asks for each queue."""
        try:
            lengths = self._broker.lengths()
        except ConfigurationError as error:
            raise Unavailable(str(error)) from error
        yield from _queues(lengths)


def _queues(lengths: Lengths) -> Iterator[Metric]:
    waiting: dict[str, float] = dict(lengths.waiting)
    yield _by("dashtam_queue_depth", "Messages that wait", "queue", waiting)
    if lengths.in_flight is not None:
        yield _plain("dashtam_messages_unacked", "Messages that workers hold", lengths.in_flight)


def _plain(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)


def _by(name: str, text: str, label: str, values: dict[str, float] | dict[str, int]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family

"""Traces are off, and nothing of them is imported, unless an endpoint is set."""

from __future__ import annotations

import sys

import pytest

from worker.errors import ConfigurationError
from worker.settings import Settings, get_settings, load
from worker.settings.celery import celery_settings
from worker.telemetry import tracing


def test_missing_packages_refuse_startup_by_the_variable_s_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)

    with pytest.raises(ConfigurationError, match=r"OTEL_EXPORTER_OTLP_ENDPOINT: .*\[tracing\]"):
        tracing.begin(load(Settings, otel_exporter_otlp_endpoint="http://127.0.0.1:4318"))


def test_without_an_endpoint_nothing_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)

    tracing.begin(load(Settings))
    tracing.end()


def test_another_broker_takes_the_queues_and_leaves_redis_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROKER_URL", "amqps://worker:secret@rabbit.example/dashtam")

    config = celery_settings(get_settings())

    assert config["broker_url"].startswith("amqps://")
    assert config["broker_transport_options"] == {"confirm_publish": True, "queue_type": "quorum"}
    assert config["broker_use_ssl"]
    assert get_settings().redis_url.get_secret_value().startswith("redis://")


def test_broker_of_another_kind_is_refused_without_its_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROKER_URL", "sqs://secret@")

    with pytest.raises(ConfigurationError, match="BROKER_URL: must begin with amqp") as refused:
        get_settings()
    assert "secret" not in str(refused.value)


def test_production_refuses_a_broker_in_plain_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DASHTAM_ENV", "production")
    monkeypatch.setenv("BROKER_URL", "amqp://worker:secret@rabbit.example/dashtam")

    with pytest.raises(ConfigurationError, match="BROKER_URL: without TLS"):
        get_settings()

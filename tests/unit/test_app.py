"""The Celery application is configured so that nothing is lost, run twice or shown."""

from __future__ import annotations

import os
import ssl
from typing import Any
from unittest.mock import Mock

import pytest
from celery import signals
from celery.backends.base import DisabledBackend

from worker.app import app
from worker.settings import QueueSettings, get_settings, load
from worker.settings.celery import celery_settings
from worker.tasks.base import WorkerTask


@pytest.fixture
def config() -> dict[str, Any]:
    return celery_settings(get_settings())


def own_tasks() -> list[str]:
    app.loader.import_default_modules()
    return sorted(name for name in app.tasks if name.startswith("worker."))


def test_only_json_is_spoken(config: dict[str, Any]) -> None:
    assert config["accept_content"] == ["json"]
    assert (config["task_serializer"], config["result_serializer"]) == ("json", "json")


def test_message_is_kept_until_its_task_has_ended(config: dict[str, Any]) -> None:
    assert config["task_acks_late"]
    assert config["task_reject_on_worker_lost"]
    assert config["worker_prefetch_multiplier"] == 1


@pytest.mark.deep
def test_no_task_can_outlive_the_visibility_timeout(config: dict[str, Any]) -> None:
    visibility = config["broker_transport_options"]["visibility_timeout"]

    assert config["task_soft_time_limit"] < config["task_time_limit"] < visibility
    for name in own_tasks():
        task = app.tasks[name]
        assert (task.time_limit or 0) < visibility, name
        assert (task.soft_time_limit or 0) < visibility, name


def test_sentinels_are_the_broker_s_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "sentinels://:made-up@h1,h2/2?master=dashtam&sentinel_password=hush")

    config = celery_settings(load(QueueSettings))
    options = config["broker_transport_options"]

    assert config["broker_url"] == "sentinel://:made-up@h1:26379/2;sentinel://:made-up@h2:26379/2"
    assert config["broker_use_ssl"] == {"ssl_cert_reqs": ssl.CERT_REQUIRED}
    assert options["master_name"] == "dashtam"
    assert (options["sentinel_kwargs"]["password"], options["sentinel_kwargs"]["ssl"]) == ("hush", True)
    assert options["visibility_timeout"] == get_settings().visibility_timeout


def test_broker_is_tried_for_ever(config: dict[str, Any]) -> None:
    assert config["broker_connection_retry_on_startup"]
    assert config["broker_connection_max_retries"] is None
    assert config["broker_transport_options"]["socket_timeout"] < config["task_time_limit"]


def test_tasks_have_the_common_policy_and_the_queue_of_their_kind() -> None:
    queues = {"tokens": "refresh", "accounts": "sync", "upkeep": "upkeep"}

    for name in own_tasks():
        assert isinstance(app.tasks[name], WorkerTask), name
        assert app.amqp.router.route({}, name)["queue"].name == queues[name.split(".")[2]]


def test_no_results_are_kept_in_redis() -> None:
    """A worker that cannot write the state of its tasks to a dead Redis ends."""
    assert isinstance(app.backend, DisabledBackend)


def test_messages_need_no_binding_in_redis() -> None:
    """An emptied Redis has forgotten all bindings; a message to the anonymous exchange finds its queue by name."""
    for queue in app.amqp.queues.values():
        assert queue.exchange.type == "direct"


def test_tls_checks_the_broker_s_certificate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "rediss://:pw@redis.example.com/0")

    config = celery_settings(get_settings())

    assert config["broker_use_ssl"] == {"ssl_cert_reqs": ssl.CERT_REQUIRED}


def test_plain_redis_asks_for_no_tls(config: dict[str, Any]) -> None:
    assert config["broker_use_ssl"] is None


def test_forked_process_tunes_its_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    tune = Mock()
    monkeypatch.setattr("worker.app.tune_interpreter", tune)

    signals.worker_process_init.send(sender=None)

    tune.assert_called_once_with()


def test_terminating_a_worker_begins_a_soft_shutdown(config: dict[str, Any]) -> None:
    assert os.environ["REMAP_SIGTERM"] == "SIGQUIT"
    assert config["worker_soft_shutdown_timeout"] > 0

"""Makes Celery's configuration from our settings, for workers and for programs that only send tasks.

docs/architecture.md, "Celery and Redis", explains the reason for each setting.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

from schedules import beat_schedule
from worker.process import redis_address
from worker.process.redis_client import login_of_sentinels
from worker.process.redis_names import QUEUES
from worker.settings.parts import BrokerPart, QueuePart

if TYPE_CHECKING:
    from worker.process.rabbitmq import RabbitMQ

TASK_MODULES = tuple(QUEUES.values())
_SOCKET_SECONDS = 30
_CONNECT_SECONDS = 5


def celery_settings(settings: QueuePart) -> dict[str, Any]:
    """Celery's configuration, made from our settings."""
    broker = _broker(settings)
    return {
        **broker,
        "broker_heartbeat": 30,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_pool_limit": 4,
        # No results, because outcomes are in Postgres. Also, with a result backend, a worker that loses Redis while
        # tasks run would first try to store their state there, even with ignored results, and end if it cannot.
        "result_backend": None,
        "task_ignore_result": True,
        "task_store_errors_even_if_ignored": False,
        "task_serializer": "json",
        "result_serializer": "json",
        "accept_content": ["json"],
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "task_acks_on_failure_or_timeout": True,
        "task_send_sent_event": True,
        "task_default_queue": "upkeep",
        "task_create_missing_queues": True,
        "task_routes": {f"{module}.*": {"queue": queue} for queue, module in QUEUES.items()},
        "task_time_limit": settings.task_time_limit,
        "task_soft_time_limit": settings.task_soft_time_limit,
        "task_publish_retry_policy": {"max_retries": 3, "interval_start": 0, "interval_step": 0.2, "interval_max": 1},
        "worker_consumer": "worker.consumer:Consumer",
        "worker_prefetch_multiplier": 1,
        "worker_cancel_long_running_tasks_on_connection_loss": True,
        "worker_soft_shutdown_timeout": settings.soft_shutdown_seconds,
        "worker_enable_soft_shutdown_on_idle": False,
        "worker_max_tasks_per_child": 2000,
        "worker_max_memory_per_child": 512 * 1024,
        "worker_send_task_events": True,
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
        "beat_schedule": beat_schedule(scale=settings.tick_scale),
        "beat_scheduler": "worker.beat:Scheduler",
        "timezone": "UTC",
        "enable_utc": True,
        "include": TASK_MODULES,
    }


def rabbitmq(settings: BrokerPart, *, seconds: float) -> RabbitMQ | None:
    """The RabbitMQ that has the queues; None if Redis has them."""
    if settings.broker_url is None:
        return None
    from worker.process.rabbitmq import RabbitMQ  # it imports what only this broker needs

    url = settings.broker_url.get_secret_value()
    return RabbitMQ(url, queue_type=settings.broker_queue_type, seconds=seconds)


def _broker(settings: QueuePart) -> dict[str, Any]:
    if settings.broker_url is not None:
        from worker.process.rabbitmq import TLS, register

        register()
        url = settings.broker_url.get_secret_value()
        # The visibility timeout is Redis's: RabbitMQ gives a message to another worker when the connection ends.
        return {
            "broker_url": url,
            "broker_use_ssl": TLS if url.startswith("amqps://") else None,
            "broker_transport_options": {
                "confirm_publish": True,  # a message counts as sent when RabbitMQ has stored it
                "queue_type": settings.broker_queue_type,
            },
        }
    url = settings.redis_url.get_secret_value()
    options: dict[str, Any] = {
        "visibility_timeout": settings.visibility_timeout,
        "socket_timeout": _SOCKET_SECONDS,
        "socket_connect_timeout": _CONNECT_SECONDS,
        "socket_keepalive": True,
        "health_check_interval": 10,
        "global_keyprefix": "",
    }
    address = redis_address.parse(url)
    if not address.has_sentinels:
        encryption = {"ssl_cert_reqs": ssl.CERT_REQUIRED} if address.is_encrypted else None
        return {"broker_url": url, "broker_use_ssl": encryption, "broker_transport_options": options}
    limits = {"socket_timeout": _CONNECT_SECONDS, "socket_connect_timeout": _CONNECT_SECONDS}
    options |= {"master_name": address.master, "sentinel_kwargs": login_of_sentinels(address) | limits}
    encryption = {**address.tls, "ssl_cert_reqs": ssl.CERT_REQUIRED} if address.is_encrypted else None
    return {"broker_url": address.for_kombu, "broker_use_ssl": encryption, "broker_transport_options": options}

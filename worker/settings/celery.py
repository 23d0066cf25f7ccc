"""Makes Celery's configuration from our settings, for workers and for programs that only send tasks.

docs/architecture.md, "Celery and Redis", explains the reason for each setting.
"""

from __future__ import annotations

import ssl
from typing import Any

from schedules import beat_schedule
from worker.process.redis_names import QUEUES
from worker.settings.parts import QueuePart

TASK_MODULES = tuple(QUEUES.values())


def celery_settings(settings: QueuePart) -> dict[str, Any]:
    """Celery's configuration, made from our settings."""
    broker_url = (settings.broker_url or settings.redis_url).get_secret_value()
    tls = {"rediss": {"ssl_cert_reqs": ssl.CERT_REQUIRED}, "amqps": {"cert_reqs": ssl.CERT_REQUIRED}}
    # RabbitMQ does not have these options: it gives a message to another worker when the first one's connection ends.
    transport = (
        {}
        if settings.broker_url
        else {
            "visibility_timeout": settings.visibility_timeout,
            "socket_timeout": 30,
            "socket_connect_timeout": 5,
            "socket_keepalive": True,
            "health_check_interval": 10,
            "global_keyprefix": "",
        }
    )
    return {
        "broker_url": broker_url,
        "broker_use_ssl": tls.get(broker_url.partition("://")[0]),
        "broker_heartbeat": 30,
        "broker_transport_options": transport,
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

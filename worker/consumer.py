"""Celery's consumer, the main loop of a worker, and its connections, with a sign of life for probes."""

from __future__ import annotations

from typing import Any

from celery.app import amqp
from celery.worker.consumer import Consumer as CeleryConsumer
from kombu.connection import Connection as KombuConnection

from worker.process.sign_of_life import EVERY_S, LIFE
from worker.settings import QueueSettings, load


class Connection(KombuConnection):  # type: ignore[misc, unused-ignore]
    """Shows life at each attempt to connect, since Celery waits for a broker within its loop."""

    def _establish_connection(self) -> Any:
        LIFE.works()
        return super()._establish_connection()  # type: ignore[no-untyped-call, unused-ignore]


class Amqp(amqp.AMQP):  # type: ignore[misc, unused-ignore]
    """Makes all connections of the application."""

    Connection = Connection


class Consumer(CeleryConsumer):  # type: ignore[misc, unused-ignore]
    """While the broker is connected, a timer of the loop shows life."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        LIFE.begin(load(QueueSettings).alive_file)
        super().__init__(*args, **kwargs)

    def register_with_event_loop(self, hub: Any) -> None:
        """Called for each new connection. Celery clears all timers when a connection is lost."""
        super().register_with_event_loop(hub)
        LIFE.is_connected()
        hub.call_repeatedly(EVERY_S, LIFE.is_connected)

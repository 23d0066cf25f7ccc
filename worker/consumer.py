"""Celery's consumer, the main loop of a worker, with a sign of life for probes."""

from __future__ import annotations

from typing import Any

from celery.worker.consumer import Consumer as CeleryConsumer

from worker.process.sign_of_life import EVERY_S, SignOfLife, show_life_between_attempts
from worker.settings import QueueSettings, load


class Consumer(CeleryConsumer):  # type: ignore[misc, unused-ignore]
    """While the broker is connected, a timer of the loop shows life; while it is away, each second of the wait does."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._life = SignOfLife(load(QueueSettings).alive_file)
        self._life.works()
        super().__init__(*args, **kwargs)

    def register_with_event_loop(self, hub: Any) -> None:
        """Called for each new connection. Celery clears all timers when a connection is lost."""
        super().register_with_event_loop(hub)
        self._life.is_connected()
        hub.call_repeatedly(EVERY_S, self._life.is_connected)

    def ensure_connected(self, conn: Any) -> Any:
        """Waits for the broker."""
        show_life_between_attempts(conn, self._life)
        return super().ensure_connected(conn)

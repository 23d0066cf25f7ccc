"""Celery's own beat, whose log has one format, and its scheduler, which goes on when the clock is set back."""

from __future__ import annotations

from typing import Any

from celery.apps.beat import Beat as CeleryBeat
from celery.beat import Scheduler as CelerySchedule

from worker.settings import QueueSettings, load


class Beat(CeleryBeat):  # type: ignore[misc, unused-ignore]
    """The program: no banner in plain text where the log is JSON."""

    def __init__(self, *args: Any, quiet: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, quiet=quiet or load(QueueSettings).log_format == "json", **kwargs)


class Scheduler(CelerySchedule):  # type: ignore[misc, unused-ignore]
    """Keeps its schedule in memory: what is due is in Postgres, and one tick more or less does no harm.

    Celery waits until an interval after the last run has come by the wall clock: set back by a day, it would be silent
    for a day.
    """

    def tick(self, *args: Any, **kwargs: Any) -> float:
        """Sends what is due; returns seconds until the next is."""
        for entry in self.schedule.values():
            now = entry.default_now()
            if entry.last_run_at > now:
                entry.last_run_at = now
                self._heap = None  # ordered by times that will not come
        seconds: float = super().tick(*args, **kwargs)
        return seconds

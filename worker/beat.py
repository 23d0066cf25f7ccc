"""Celery's beat with our log format, and its scheduler, which shows life and works when the clock is set back."""

from __future__ import annotations

from typing import Any

from celery.apps.beat import Beat as CeleryBeat
from celery.beat import Scheduler as CelerySchedule

# Beat's first use of it would import it. A SIGTERM at that moment would find it half imported, and beat would exit 1.
import worker.consumer  # noqa: F401
from worker.process.sign_of_life import LIFE
from worker.settings import QueueSettings, load


class Beat(CeleryBeat):  # type: ignore[misc, unused-ignore]
    """The program. It prints no banner when the log is JSON."""

    def __init__(self, *args: Any, quiet: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, quiet=quiet or load(QueueSettings).log_format == "json", **kwargs)


class Scheduler(CelerySchedule):  # type: ignore[misc, unused-ignore]
    """Keeps its schedule in memory only. What is due is stored in Postgres, so a missed or extra tick does no harm.

    Celery's own scheduler compares the wall clock with the time of the last run. If the clock were set back by a day,
    it would send nothing for a day.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        LIFE.begin(load(QueueSettings).alive_file)
        super().__init__(*args, **kwargs)

    def apply_async(self, *args: Any, **kwargs: Any) -> Any:
        """Sends one task. When it returns, the broker has taken the message."""
        sent = super().apply_async(*args, **kwargs)
        LIFE.is_connected()
        return sent

    def tick(self, *args: Any, **kwargs: Any) -> float:
        """Sends what is due; returns the seconds until the next entry is due."""
        LIFE.works()
        for entry in self.schedule.values():
            now = entry.default_now()
            if entry.last_run_at > now:
                entry.last_run_at = now
                self._heap = None  # it is ordered by the old times, so Celery must build it again
        seconds: float = super().tick(*args, **kwargs)
        return seconds

"""Beat's scheduler in the fault tests: what no fault strikes ticks less often than what is due.

Each tick costs about fifteen milliseconds of processor time: beat's, a worker's, Postgres's. If all entries were made
fast by TICK_SCALE alone, a world in which nothing happens would need half a processor.
"""

from __future__ import annotations

from typing import Any

from schedules import ENTRIES, beat_schedule
from tests.support.faults_pace import SECONDS_PER_RARE_TICK
from worker import beat
from worker.settings import QueueSettings, load

_OFTEN = {"refresh-due", "drain-journal", "sync-due"}


class Scheduler(beat.Scheduler):
    """The worker's own scheduler, with a slower schedule."""

    def setup_schedule(self) -> None:
        """Takes the schedule of the settings; most entries tick every `SECONDS_PER_RARE_TICK` at most."""
        scale = load(QueueSettings).tick_scale
        entries: dict[str, Any] = {}
        for name, (_, seconds) in ENTRIES.items():
            slower = 1.0 if name in _OFTEN else max(1.0, SECONDS_PER_RARE_TICK / (seconds * scale))
            entries[name] = beat_schedule(scale=scale * slower)[name]
        self.merge_inplace(entries)

"""The sandbox's own time: the machine's clock plus an offset that tests move."""

from __future__ import annotations

import time
from datetime import UTC, date, datetime, timedelta


class Clock:
    """Time as the stand-in providers see it."""

    def __init__(self) -> None:
        self.offset = 0.0

    def seconds(self) -> float:
        """Seconds since the epoch, offset included."""
        return time.time() + self.offset

    def now(self) -> datetime:
        """The moment, in UTC."""
        return datetime.fromtimestamp(self.seconds(), UTC)

    def today(self) -> date:
        """The date in UTC."""
        return self.now().date()

    def step_moment(self, step: int) -> datetime:
        """When the `step`-th change of the books happens: that many seconds after midnight, but never in the future.

        A rule rather than "now", so that two runs of one script on one day make the same books.
        """
        now = self.now()
        midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
        return min(midnight + timedelta(seconds=step), now.replace(microsecond=0))

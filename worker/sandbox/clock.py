"""The sandbox's own time: the machine's clock plus an offset that tests set."""

from __future__ import annotations

import time
from datetime import UTC, date, datetime, timedelta


class Clock:
    """The clock of the stand-ins."""

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
        """The time of the `step`-th change of the books: so many seconds after midnight, but never in the future.

        The present time is not used, so that two runs of a script on the same day make the same books.
        """
        now = self.now()
        midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
        return min(midnight + timedelta(seconds=step), now.replace(microsecond=0))

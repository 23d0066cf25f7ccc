"""How long a run may read: the next run goes on where it has stopped."""

from __future__ import annotations

import asyncio

from worker.errors import Transient


class TimeLimit:
    """The time that a run has.

    Args:
        seconds: the setting `SYNC_BUDGET_SECONDS`.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.moved = False
        self.begin()

    def begin(self) -> float:
        """Counts from now on, and returns the time of the event loop."""
        now = asyncio.get_running_loop().time()
        self.stops_at = now + self._seconds
        return now

    def late(self) -> float:
        """Seconds since the time was up; negative before that."""
        return asyncio.get_running_loop().time() - self.stops_at

    def is_over(self) -> bool:
        """Whether the time is up, although there is more to read. A run that has `moved` no cursor has twice the time.

        Raises:
            Transient: that time is up, too; the next run must wait until it is due.
        """
        late = self.late()
        if late > self._seconds and not self.moved:
            raise Transient("time_is_up")
        return self.moved and late > 0

"""Changes of runs, refreshes and logins, as events tell them, and positions in their order."""

from __future__ import annotations

import bisect
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from worker.errors import BadArgument

_POSITION = re.compile(r"(\d{1,14})-(\d{1,19}):(\d{1,19}):((?:\d{1,19}(?:,\d{1,19})*)?)", re.ASCII)
_LONGEST = 8000


@dataclass(frozen=True, slots=True)
class Position:
    """Which transactions a reader has seen: a snapshot of Postgres, and when it was taken.

    A time would not do as a position. A transaction that began earlier can commit later, and its change would be
    skipped. A snapshot says exactly which transactions had committed.

    Attributes:
        at: when it was taken, by the database's clock.
        first_running: all transactions with a lower number had ended.
        next_number: no transaction with this number or a higher one had begun.
        running: numbers between the two that had not ended, in ascending order.
    """

    at: datetime
    first_running: int
    next_number: int
    running: tuple[int, ...] = ()

    @classmethod
    def of(cls, at: datetime, snapshot: str) -> Position:
        """The position of a snapshot as Postgres writes it: `100:105:101,103`."""
        first, following, running = snapshot.split(":")
        return cls(at, int(first), int(following), tuple(int(one) for one in running.split(",") if one))

    @classmethod
    def read(cls, text: str) -> Position:
        """The position in an event's id.

        Raises:
            BadArgument: it was not made by this API.
        """
        found = _POSITION.fullmatch(text) if len(text) <= _LONGEST else None
        if found is not None:
            position = cls.of(datetime.fromtimestamp(int(found[1]) / 1000, UTC), ":".join(found.groups()[1:]))
            bounds = (position.first_running, *position.running, position.next_number)
            if sorted(bounds) == list(bounds) and len(set(position.running)) == len(position.running):
                return position
        raise BadArgument("this Last-Event-ID is of no event; leave it out to begin with what happens now")

    @property
    def snapshot(self) -> str:
        """The snapshot as Postgres reads it."""
        return f"{self.first_running}:{self.next_number}:{','.join(map(str, self.running))}"

    def __str__(self) -> str:
        """The text for an event's id."""
        return f"{int(self.at.timestamp() * 1000)}-{self.snapshot}"

    def has_seen(self, number: int) -> bool:
        """Whether the transaction with this number had committed, if it committed at all."""
        if number < self.first_running or number >= self.next_number:
            return number < self.first_running
        place = bisect.bisect_left(self.running, number)
        return place == len(self.running) or self.running[place] != number


@dataclass(frozen=True, slots=True)
class Change:
    """One run, refresh or login as a transaction left it.

    Attributes:
        kind: `run`, `refresh` or `login`.
        user_id: whose login it is; None if the login no longer exists.
        transaction: number of the transaction.
        data: what the event tells.
    """

    kind: str
    user_id: UUID | None
    transaction: int
    data: dict[str, Any] = field(default_factory=dict)

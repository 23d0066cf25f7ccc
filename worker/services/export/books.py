"""The rows of an export, noun by noun, counted while they are read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from typing import Any
from uuid import UUID

from worker.crud import export as crud
from worker.crud.database import OpenTransaction

NOUNS = tuple(crud.NOUNS)

Advance = Callable[[int], None]
_TOLD_EVERY = 1000


class Books:
    """One user's rows at one moment.

    Args:
        session: a transaction whose reads are all of one moment: `crud.snapshot`.
        advance: is told how many more rows were read.

    Attributes:
        written: number of rows read so far, by noun.
    """

    def __init__(self, session: OpenTransaction, user_id: UUID, since: date | None, advance: Advance) -> None:
        self._session = session
        self._wanted: dict[str, Any] = {"user_id": user_id, "since": since}
        self._advance = advance
        self.written: Counter[str] = Counter()

    def rows(self, noun: str) -> Iterator[Any]:
        """The rows of one noun; columns are those of its view in `dashtam_v1`, by name."""
        told = self.written[noun] = 0
        for row in crud.rows(self._session, noun, **self._wanted):
            yield row
            self.written[noun] += 1
            told += 1
            if told == _TOLD_EVERY:
                self._advance(told)
                told = 0
        self._advance(told)

    def columns(self, noun: str) -> Sequence[str]:
        """The names of the columns of `rows`, in order."""
        return crud.columns(self._session, noun)

    def first_days(self) -> dict[UUID, date]:
        """The day of the first posted transaction of each account that has one."""
        return crud.first_days(self._session, **self._wanted)

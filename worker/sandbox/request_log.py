"""The log of requests to the sandbox; tests use it to check for parallel refreshes and for token reuse."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator

import msgspec

# Enough for a soak test of several hours; then the oldest entries are dropped.
_KEPT = 500_000


class Entry(msgspec.Struct):
    """One request. Times are seconds since the epoch on the machine's clock; `token` is a digest, never a token."""

    number: int
    received: float
    method: str
    path: str
    profile: str
    kind: str = "data"
    login: str | None = None
    grant: str | None = None
    generation: int | None = None
    token: str | None = None
    answered: float | None = None
    status: int | None = None
    fault: str | None = None
    gone: bool = False


class Overlap(msgspec.Struct):
    """Two refreshes of one grant that ran at the same time, by their numbers in the log."""

    grant: str
    first: int
    second: int


class RequestLog:
    """The newest requests, oldest first."""

    def __init__(self) -> None:
        self._entries: list[Entry] = []
        self._number = 0

    def open(self, received: float, method: str, path: str, profile: str) -> Entry:
        """A new entry for a request that has just arrived."""
        self._number += 1
        entry = Entry(self._number, received, method, path, profile)
        self._entries.append(entry)
        if len(self._entries) > _KEPT:
            del self._entries[: _KEPT // 10]
        return entry

    def clear(self) -> None:
        """Removes every entry; the numbers continue."""
        self._entries.clear()

    def select(self, *, kind: str = "", login: str = "", path: str = "", after: int = 0) -> Iterator[Entry]:
        """Entries with a number above `after` that match all given values; `path` may be a part of the path."""
        for entry in self._entries:
            if entry.number <= after or (kind and entry.kind != kind) or (login and entry.login != login):
                continue
            if path not in entry.path:
                continue
            yield entry

    def overlaps(self) -> list[Overlap]:
        """Pairs of refreshes of one grant whose times from arrival to answer (or hang-up) overlap."""
        found: list[Overlap] = []
        newest: dict[str, Entry] = {}
        for entry in self._entries:
            if entry.kind != "refresh" or entry.grant is None:
                continue
            earlier = newest.get(entry.grant)
            if earlier is not None and _end(earlier) > entry.received:
                found.append(Overlap(entry.grant, earlier.number, entry.number))
            if earlier is None or _end(entry) >= _end(earlier):
                newest[entry.grant] = entry
        return found

    def presented_again(self) -> dict[str, dict[str, int]]:
        """By grant: how often each refresh token (by digest) was sent, for tokens that were sent more than once."""
        counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for entry in self._entries:
            if entry.kind == "refresh" and entry.grant and entry.token:
                counts[entry.grant][entry.token] += 1
        again = {grant: {token: n for token, n in tokens.items() if n > 1} for grant, tokens in counts.items()}
        return {grant: tokens for grant, tokens in again.items() if tokens}


def _end(entry: Entry) -> float:
    return math.inf if entry.answered is None else entry.answered

"""Keys for transactions whose references are not reliable, as those of banks: some rows have none, or get one later.

The key of a row is its reference. Without one it is a digest of the content, with a number where several rows have the
same content. A transaction that is listed under two references keeps the smaller one.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import date
from typing import Any, NamedTuple

import msgspec

from worker.errors import BadRecord
from worker.integrations.kit import reading
from worker.integrations.kit.base import Removal


class Identity(NamedTuple):
    """By what a row is recognised.

    Attributes:
        reference: the bank's own reference of the transaction; None if it has none that names it.
        content: a digest of what stays the same when the list is read again (`digest`).
        twin: what only one transaction of an answer has, such as its id there; None if nothing is.
        day: its day; None if it has none yet.
    """

    reference: str | None
    content: str
    twin: str | None
    day: date | None


def digest(*parts: Any) -> str:
    """A digest of a row's content. Account numbers must not be in it: they could be found by trying."""
    return f"content:{hashlib.blake2b(msgspec.json.encode(parts), digest_size=16).hexdigest()}"


class Rows:
    """Gives the rows of one list their keys, answer by answer.

    Args:
        identify: the identity of a row, of its text; raises `BadRecord`.
        account_key: the account.
        seen: how often each content was listed so far, as far as the next answers may go on with it.
        stored: makes the text that is stored of a row's own, without what differs each time.
    """

    def __init__(
        self,
        identify: Callable[[bytes], Identity],
        account_key: str,
        seen: Iterable[tuple[str, int]] = (),
        *,
        stored: Callable[[bytes], bytes] = bytes,
    ) -> None:
        self._identify, self._account_key, self._stored = identify, account_key, stored
        self._seen = Counter(dict(seen))
        self._named = Counter[str]()
        self.last_day: dict[str, int] = {}

    def split(self, raws: Sequence[msgspec.Raw]) -> reading.Split:
        """The rows of an answer, not yet read."""
        known = dict[bytes, Identity]()
        smallest = self._smallest(raws, known)
        last: date | None = None
        today: dict[str, int] = {}

        def key_of(raw: msgspec.Raw) -> tuple[str, str]:
            nonlocal last, today
            row = known.get(bytes(raw)) or self._identify(bytes(raw))
            if row.reference is not None:
                self._named[row.content] += 1
                return row.reference, self._account_key
            self._seen[row.content] += 1
            last, today = row.day, today if row.day == last else {}
            today[row.content] = number = self._seen[row.content]
            return _numbered(row.content, number), self._account_key

        found = reading.split([raw for raw in raws if smallest.get(bytes(raw), True)], key_of)
        self.last_day = today
        return reading.Split([row._replace(raw=self._stored(row.raw)) for row in found.rows], found.rejects)

    def had_no_reference(self) -> list[Removal]:
        """Keys that rows of this list had, if they were listed without a reference before."""
        return [
            Removal(_numbered(content, self._seen[content] + number), self._account_key)
            for content, times in self._named.items()
            for number in range(1, times + 1)
        ]

    def _smallest(self, raws: Sequence[msgspec.Raw], known: dict[bytes, Identity]) -> dict[bytes, bool]:
        """Of rows that are one transaction under several references, whether each has the smallest reference.

        Puts the identity of each row that has one into `known`.
        """
        groups: dict[tuple[str, str], list[tuple[str, bytes]]] = {}
        for raw in map(bytes, raws):
            try:
                row = known[raw] = self._identify(raw)
            except BadRecord:
                continue
            if row.reference is not None and row.twin is not None:
                groups.setdefault((row.content, row.twin), []).append((row.reference, raw))
        several = [sorted(group) for group in groups.values() if len({name for name, _ in group}) > 1]
        return {raw: name == group[0][0] for group in several for name, raw in group}


def _numbered(content: str, number: int) -> str:
    return content if number == 1 else f"{content}:{number}"

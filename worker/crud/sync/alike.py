"""Which listed transactions are rows that are stored already, where the keys do not tell: by day, amount and text."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from datetime import date
from decimal import Decimal
from functools import lru_cache
from typing import NamedTuple, TypeVar

_WORDS = re.compile(r"[^\W_]+")
_MOST_PAIRS = 2500
_DAYS_UNTIL_POSTED = 10


class Looks(NamedTuple):
    """What two records of one transaction have in common: day, amount, currency, text, and whether it is pending."""

    day: date
    amount: Decimal
    currency: str
    text: str
    is_pending: bool


@lru_cache(maxsize=4096)
def normalised(text: str | None) -> str:
    """The words of a text, without differences of case, width, punctuation and spaces."""
    return " ".join(_WORDS.findall(unicodedata.normalize("NFKC", text or "").casefold()))


L = TypeVar("L")
S = TypeVar("S")


class Matcher:
    """Pairs listed with stored records. Every record is in one pair at most.

    1. Same day, amount, currency and text; of equal ones the first with the first, and those of the same status first.
    2. Same day, amount and currency: those first whose texts share most words. An account has all its rows at each
       source, so the rows that are left over are the same ones under another text.
    3. A posted one, and a pending one of the ten days before with the same amount, currency and text, if neither of
       the two fits another one.
    """

    def __init__(self, listed: Sequence[Looks], stored: Sequence[Looks]) -> None:
        self._listed = listed
        self._stored = stored
        self.pairs: dict[int, int] = {}
        self._free = dict.fromkeys(range(len(stored)))

    def match(self) -> dict[int, int]:
        """The index of the stored record for each index of a listed one that has one."""
        self._by(lambda one: one)
        self._by(lambda one: one[:4])
        self._by_shared_words()
        self._by_pending()
        return self.pairs

    def _left(self) -> Iterable[int]:
        return [index for index in range(len(self._listed)) if index not in self.pairs]

    def _pair(self, listed: int, stored: int) -> None:
        self.pairs[listed] = stored
        del self._free[stored]

    def _groups(
        self, indexes: Iterable[int], of: Sequence[Looks], key: Callable[[Looks], Hashable]
    ) -> dict[Hashable, list[int]]:
        groups: defaultdict[Hashable, list[int]] = defaultdict(list)
        for index in indexes:
            groups[key(of[index])].append(index)
        return groups

    def _by(self, key: Callable[[Looks], Hashable]) -> None:
        stored = self._groups(self._free, self._stored, key)
        for value, listed in self._groups(self._left(), self._listed, key).items():
            for pair in zip(listed, stored.get(value, ()), strict=False):
                self._pair(*pair)

    def _by_shared_words(self) -> None:
        def key(one: Looks) -> Hashable:
            return one[:3]

        stored = self._groups([i for i in self._free if not self._stored[i].is_pending], self._stored, key)
        left = [index for index in self._left() if not self._listed[index].is_pending]
        for value, listed in self._groups(left, self._listed, key).items():
            others = stored.get(value, [])
            for pair in _most_alike(listed, others, lambda a, b: _shared(self._listed[a].text, self._stored[b].text)):
                self._pair(*pair)

    def _by_pending(self) -> None:
        def key(one: Looks) -> Hashable:
            return one[1:4]

        pending = self._groups([i for i in self._free if self._stored[i].is_pending], self._stored, key)
        if not pending:
            return
        left = [index for index in self._left() if not self._listed[index].is_pending]
        for value, listed in self._groups(left, self._listed, key).items():
            near = pending.get(value, [])
            if len(listed) == len(near) == 1:
                waited = (self._listed[listed[0]].day - self._stored[near[0]].day).days
                if 0 <= waited <= _DAYS_UNTIL_POSTED:
                    self._pair(listed[0], near[0])


def _most_alike(listed: list[int], stored: list[int], score: Callable[[int, int], int]) -> list[tuple[int, int]]:
    if len(listed) * len(stored) in (0, 1) or len(listed) * len(stored) > _MOST_PAIRS:
        return list(zip(listed, stored, strict=False))
    scored = sorted((-score(a, b), a, b) for a in listed for b in stored)
    taken: tuple[set[int], set[int]] = (set(), set())
    pairs = []
    for _, a, b in scored:
        if a not in taken[0] and b not in taken[1]:
            taken[0].add(a)
            taken[1].add(b)
            pairs.append((a, b))
    return pairs


def _shared(one: str, other: str) -> int:
    return len({*one.split()} & {*other.split()})

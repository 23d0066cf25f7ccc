"""Tables of a provider's words."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

T = TypeVar("T")


def by_word(*meanings: tuple[T, str]) -> dict[str, T]:
    """What each word means, of pairs of a meaning and all words that have it, separated by spaces."""
    return {word: meaning for meaning, words in meanings for word in words.split()}


def first_within(text: str, table: Iterable[tuple[str, T]], *, otherwise: T) -> T:
    """The meaning of the first word of the table that the text has anywhere in it."""
    return next((meaning for word, meaning in table if word in text), otherwise)

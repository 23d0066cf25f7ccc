"""Tables of a provider's words."""

from __future__ import annotations

from typing import TypeVar

T = TypeVar("T")


def by_word(*meanings: tuple[T, str]) -> dict[str, T]:
    """What each word means, of pairs of a meaning and all words that have it, separated by spaces."""
    return {word: meaning for meaning, words in meanings for word in words.split()}

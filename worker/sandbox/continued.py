"""Lists that are given in parts, each with a key with which the list continues."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def part(rows: Sequence[T], size: int, place: str, key: str | None) -> tuple[int, Sequence[T], str | None] | None:
    """A part of a list, and an empty one after the first, as some providers send it.

    Args:
        rows: all rows of the list.
        size: rows in each part.
        place: names the list: a key is good for one list only.
        key: the key of the part; None for the first.

    Returns:
        The number of the part, its rows, and the key of the next part if there is one. None if the key is not good.
    """
    parts = [rows[start : start + size] for start in range(0, len(rows), size)] or [rows]
    parts[1:1] = [rows[:0]] if len(parts) > 1 else []
    keys = [base64.urlsafe_b64encode(f"{place}/{number}".encode()).decode() for number in range(len(parts))]
    if key is not None and key not in keys[1:]:
        return None
    number = 0 if key is None else keys.index(key)
    return number, parts[number], keys[number + 1] if number + 1 < len(parts) else None

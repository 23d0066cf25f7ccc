"""Reads the body of a hook, with limits: a body that is nested deeply or names a key twice is not read."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from worker.integrations.kit.json_text import shallow

DEEPEST = 20
"""The deepest nesting level of a hook that is read. Providers use five or fewer."""


class UnreadableBodyError(ValueError):
    """The body is not an object of JSON in UTF-8, is nested too deeply, or has a key twice."""


def read_body(body: bytes, *, number: Callable[[str], Any] | None = None) -> dict[str, Any]:
    """The members of the body.

    Args:
        body: the bytes as they were received.
        number: makes a value from the text of a number; None for Python's own numbers.

    Raises:
        UnreadableBodyError: it cannot be read.
    """
    if shallow(body, DEEPEST) != body:
        raise UnreadableBodyError("nested too deep")
    options: dict[str, Any] = {} if number is None else {"parse_int": number, "parse_float": number}
    try:
        found = json.loads(body.decode("utf-8"), object_pairs_hook=_each_once, parse_constant=_no_constant, **options)
    except (ValueError, RecursionError) as error:
        raise UnreadableBodyError(type(error).__name__) from None
    if not isinstance(found, dict):
        raise UnreadableBodyError("not an object")
    return found


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise UnreadableBodyError("a key twice")
    return found


def _no_constant(name: str) -> None:
    raise UnreadableBodyError(f"{name} is no number")

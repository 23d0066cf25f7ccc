"""Reads JSON text token by token, to handle what a decoder refuses or silently ignores.

No function here is recursive, so deeply nested text cannot exhaust the stack. None of them is needed for correct text,
because decoders are many times faster.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

from worker.errors import BadRecord

_STRING = rb'"[^"\\]*(?:\\.[^"\\]*)*'
_TOKEN = re.compile(_STRING + rb'(?P<end>"?)|[\[\]{}:,]', re.DOTALL)
_BRACKETS = re.compile(_STRING + rb'"?|[\[{]+|[\]}]+', re.DOTALL)
_spaced_key = re.compile(rb'"\s+:').search
_decode = msgspec.json.Decoder().decode
_BOM = b"\xef\xbb\xbf"
_OPENING, _CLOSING = b"{[", b"}]"

DEEPEST = 200
"""The deepest nesting level of a page that is read. Providers use fewer than ten levels."""
TOO_DEEP = rb'"\ufffd nested too deep \ufffd"'
"""Replaces what was cut out. It contains U+FFFD, which replaces damaged text and which no provider sends on purpose."""


class Members(NamedTuple):
    """The members of one object.

    Attributes:
        values: the text of each value by its key. Arrays and objects are replaced by `TOO_DEEP`. If a key occurs twice,
            the last value counts.
        ended: the object has its closing brace. If it has none, an incomplete last value is left out.
        rest: the text after the object.
    """

    values: dict[str, bytes]
    ended: bool
    rest: bytes


def members(body: bytes) -> Members | None:
    """The members of the object that `body` begins with; None if it begins with something else."""
    text = body.removeprefix(_BOM).lstrip()
    if not text.startswith(b"{"):
        return None
    text = shallow(text, 1)
    values: dict[str, bytes] = {}
    depth, key, begins = 0, b"", 0
    for token, start, end in _tokens(text):
        if token in _OPENING:
            depth += 1
        elif token in _CLOSING:
            depth -= 1
        elif depth == 1 and token == b":":
            begins = end
        elif depth == 1 and token.startswith(b'"') and not begins:
            key = token
        if begins and (depth == 0 or (depth == 1 and token == b",")):
            values[_name(key)] = text[begins:start].strip()
            begins = 0
        if depth == 0:
            return Members(values, True, text[end:].strip())
    return Members(values, False, b"")


def shallow(body: bytes, deepest: int = DEEPEST) -> bytes:
    """`body` with every array and object that is nested more than `deepest` levels deep replaced by `TOO_DEEP`.

    If the text ends inside such an array or object, it is cut off there and stays incomplete JSON.
    """
    parts: list[bytes] = []
    depth, kept = 0, 0
    for found in _BRACKETS.finditer(body):
        start, end = found.span()
        if body[start] in _OPENING:
            if depth <= deepest < depth + end - start:
                parts += (body[kept : start + deepest - depth], TOO_DEEP)
                kept = len(body)
            depth += end - start
        elif body[start] in _CLOSING:
            if depth > deepest >= depth - (end - start):
                kept = start + depth - deepest
            depth -= end - start
    parts.append(body[kept:])
    return b"".join(parts)


def _tokens(text: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Strings and punctuation, each with its start and end position. Stops at a string without a closing quote."""
    for found in _TOKEN.finditer(text):
        token = found[0]
        if token.startswith(b'"') and not found["end"]:
            return
        yield token, found.start(), found.end()


def _name(key: bytes) -> str:
    try:
        return str(json.loads(key.decode(errors="replace"), strict=False))
    except ValueError:
        return ""


def check_keys_once(raw: bytes, *keys: tuple[bytes, int]) -> None:
    """Refuses a record in which one object has the same key twice. A decoder would silently use the last value.

    First each key is counted in the text, which takes a third of a microsecond. The record is searched object by object
    only if a key occurs too often, or if a key may be written with escapes.

    Args:
        raw: the record, which is JSON.
        keys: each key with its quotes, and the number of objects in the record that have it.

    Raises:
        BadRecord: `key_twice:<key>`.
    """
    for key, times in keys:
        if raw.count(key) > times:
            break
    else:
        if raw.find(b"\\") < 0 or b"\\u00" not in raw:  # `in` takes twice as long as `find`
            return
    check_all_keys_once(raw)


def check_all_keys_once(raw: bytes) -> None:
    """Like `check_keys_once`, but for every key of every object of the record.

    Usually it is enough to count, which takes less than half of the time. Without backslashes, and without space
    between a key and its colon, a record has at most as many keys as `":` occurs in its text. If the decoded objects
    have as many keys, none of them was there twice.

    Raises:
        BadRecord: `key_twice:<key>`, or `unreadable`.
    """
    if b"\\" not in raw and not _spaced_key(raw) and raw.count(b'":') == _count_keys(raw):
        return
    try:
        json.loads(raw, object_pairs_hook=_each_once, parse_int=str, parse_float=str)
    except (ValueError, RecursionError):
        raise BadRecord("unreadable") from None


def _count_keys(raw: bytes) -> int:
    """Number of keys of all objects of the record as the decoder gives them; -1 if it refuses the record."""
    try:
        left: list[Any] = [[_decode(raw)]]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return -1
    count = 0
    for value in left:  # it grows while it is read
        if type(value) is dict:
            count += len(value)
            value = value.values()
        for inner in value:
            kind = type(inner)
            if kind is dict or kind is list:  # `isinstance` takes half as long again for the whole record
                left.append(inner)
    return count


def _each_once(pairs: list[tuple[str, Any]]) -> None:
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        twice = next(name for place, name in enumerate(names) if name in names[:place])
        raise BadRecord(f"key_twice:{twice[:40]}")

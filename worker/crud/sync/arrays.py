"""Many values as one parameter: Postgres arrays in their binary form.

psycopg adapts a list value by value, and text that Postgres has to split costs it several times what comparing the rows
costs; these cost next to nothing on either side.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from struct import Struct
from typing import ClassVar

import psycopg
from psycopg.abc import AdaptContext
from psycopg.adapt import Dumper
from psycopg.pq import Format

_HEADER = Struct("!iiIii")  # dimensions, whether there are nulls, oid of the values, how many, first subscript
_size = Struct("!i").pack
_SIXTEEN = _size(16)
_BYTEA, _TEXT, _UUID = 17, 25, 2950


class Array(bytes):
    """A parameter that is written already; subclasses name its type's oid."""

    type_oid: ClassVar[int]


class Uuids(Array):
    """A `uuid[]`."""

    type_oid = 2951


class Texts(Array):
    """A `text[]`."""

    type_oid = 1009


class Digests(Array):
    """A `bytea[]` of values of sixteen bytes."""

    type_oid = 1001


def uuids(values: Sequence[bytes]) -> Uuids:
    """Uuids given as their sixteen bytes each."""
    return Uuids(_of_sixteen(_UUID, values))


def digests(values: Sequence[bytes]) -> Digests:
    """Values of sixteen bytes each."""
    return Digests(_of_sixteen(_BYTEA, values))


def texts(values: Iterable[str]) -> Texts:
    """Text that Postgres can store.

    Raises:
        UnicodeEncodeError: a lone surrogate.
    """
    encoded = [value.encode() for value in values]
    parts = [part for value in encoded for part in (_size(len(value)), value)]
    return Texts(_header(_TEXT, len(encoded)) + b"".join(parts))


def _of_sixteen(oid: int, values: Sequence[bytes]) -> bytes:
    return _header(oid, len(values)) + (_SIXTEEN + _SIXTEEN.join(values) if values else b"")


def _header(oid: int, count: int) -> bytes:
    return _HEADER.pack(1, 0, oid, count, 1)


class _AsIs(Dumper):
    # Its oid is each object's own: psycopg would otherwise use it wherever a column of that type is written.
    format = Format.BINARY

    def __init__(self, cls: type[Array], context: AdaptContext | None = None) -> None:
        super().__init__(cls, context)
        self.oid = cls.type_oid

    def dump(self, obj: Array) -> bytes:
        return obj


for _array in (Uuids, Texts, Digests):
    psycopg.adapters.register_dumper(_array, _AsIs)  # for all connections that are opened afterwards

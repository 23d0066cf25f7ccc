"""The apply engine: brings the stored rows of any noun into line with what a page lists, at the least cost.

What is stored is told apart from what is listed by content hash, in one query per page; unchanged rows are neither
sent back nor written. New rows go in by a direct COPY, changed ones by one UPDATE. Where Postgres refuses a group (a
concurrent insert, a value that no column takes), the page is applied again with care: groups are taken apart in
savepoints until only what cannot be stored is left over. Works inside the caller's transaction, which must have begun.

Many values go to Postgres as one parameter, an array in its binary form (`uuids`, `texts`, `digests`). psycopg adapts a
list value by value, and text that Postgres has to split costs it several times what comparing the rows costs.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Sequence
from struct import Struct
from typing import Any, ClassVar, NamedTuple

import msgspec
import psycopg
from psycopg.abc import AdaptContext
from psycopg.adapt import Dumper
from psycopg.pq import Format
from psycopg.types.string import BytesBinaryDumper

from worker.crud.sync.nouns import Listed, Noun, Row

Connection = psycopg.Connection[Any]

_LONGEST_KEY = 512
_unsafe_in_keys = re.compile(r"[\x00-\x1f\ud800-\udfff]").search
REFUSALS = (psycopg.DataError, psycopg.IntegrityError, UnicodeError, OverflowError)


class Entries(NamedTuple):
    """Many of them, as columns: a page's unchanged records cost no object each."""

    scopes: Sequence[bytes]
    keys: Sequence[str]
    hashes: Sequence[bytes]


Differing = tuple[int, bytes | None]
"""An entry that is not stored as listed: its index among the entries, and the stored row's id if there is one."""


def is_safe_key(key: str) -> bool:
    """Whether a provider's id can be stored: without control characters and lone surrogates, and not empty."""
    return 0 < len(key) <= _LONGEST_KEY and not _unsafe_in_keys(key)


def are_safe_keys(keys: Sequence[str]) -> bool:
    """Whether all of them are; much cheaper than asking one by one."""
    if not keys:
        return True
    if min(map(len, keys)) == 0 or max(map(len, keys)) > _LONGEST_KEY:
        return False
    together = "".join(keys)
    return together.isprintable() or not _unsafe_in_keys(together)  # nearly always the former, which is far faster


def diff(connection: Connection, noun: Noun, entries: Entries) -> list[Differing]:
    """Entries that are new or changed; their keys must be safe and unlike each other."""
    if not entries.keys:
        return []
    listed = uuids(entries.scopes), texts(entries.keys), digests(entries.hashes)
    with connection.cursor(binary=True) as cursor:
        cursor.execute(noun.diff_statement, listed)
        return [(number - 1, stored.bytes if stored else None) for number, stored in cursor.fetchall()]


class Refusal(NamedTuple):
    """A row that Postgres does not take, and the name of its error."""

    row: Row
    reason: str


def write(
    connection: Connection, noun: Noun, *, new: Sequence[Row], changed: Sequence[Row], careful: bool
) -> list[Refusal]:
    """Stores rows; `changed` ones carry the stored id.

    In a hurry, without savepoints, everything goes in as it is or nothing does. A `careful` write takes apart what
    Postgres refuses, and returns the rows that no column takes.

    Raises:
        one of `REFUSALS`: in a hurry; the transaction is lost.
    """
    if not careful:
        if new:
            copy_rows(connection, noun, new)
        if changed:
            connection.execute(noun.update_statement, (_as_json(noun, changed),))
        return []
    refused: list[Refusal] = []
    if new:
        try:
            with connection.transaction():
                copy_rows(connection, noun, new)
        except REFUSALS:
            refused += _in_parts(connection, noun, new, changing=False)
    if changed:
        refused += _in_parts(connection, noun, changed, changing=True)
    return refused


def copy_rows(connection: Connection, noun: Noun, rows: Sequence[Row]) -> None:
    """COPY of rows that do not exist yet."""
    with connection.cursor() as cursor:
        # psycopg's adapter for the DB-API's `Binary` would otherwise be taken for bytea, and is four times as slow.
        cursor.adapters.register_dumper(bytes, BytesBinaryDumper)
        _write_rows(cursor, noun, rows)


def _write_rows(cursor: psycopg.Cursor[Any], noun: Noun, rows: Sequence[Row]) -> None:
    with cursor.copy(noun.copy_statement) as copy:
        copy.set_types(noun.copy_types)
        write_row = copy.write_row
        for row in rows:
            write_row(row)


def _in_parts(connection: Connection, noun: Noun, rows: Sequence[Row], *, changing: bool) -> list[Refusal]:
    statement = noun.update_statement if changing else noun.upsert_statement
    try:
        with connection.transaction():
            connection.execute(statement, (_as_json(noun, rows),))
    except REFUSALS as error:
        if len(rows) == 1:
            return [Refusal(rows[0], type(error).__name__)]
        middle = len(rows) // 2
        return [
            *_in_parts(connection, noun, rows[:middle], changing=changing),
            *_in_parts(connection, noun, rows[middle:], changing=changing),
        ]
    return []


def _as_json(noun: Noun, rows: Sequence[Row]) -> str:
    kinds = list(noun.columns.items())
    return msgspec.json.encode(
        [
            {
                name: value if type(value) is not bytes else (value.hex() if kind == "uuid" else "\\x" + value.hex())
                for (name, kind), value in zip(kinds, row, strict=True)
            }
            for row in rows
        ]
    ).decode()


class Applied(NamedTuple):
    """What became of a page's records of one noun."""

    added: int
    changed: int
    unchanged: int
    refused: list[Refusal]


def apply(connection: Connection, noun: Noun, listed: Sequence[Listed], *, careful: bool) -> Applied:
    """Stores records that are cheap to read; transactions, which are not, are read between `diff` and `write`."""
    if not listed:
        return Applied(0, 0, 0, [])
    differing = diff(connection, noun, Entries(*zip(*(record.entry for record in listed), strict=True)))
    ids = iter(new_ids(len(differing)))
    new: list[Row] = []
    changed: list[Row] = []
    for index, stored_id in differing:
        if stored_id is None or noun.snapshots:
            new.append((next(ids), *listed[index].values))
        else:
            changed.append((stored_id, *listed[index].values))
    refused = write(connection, noun, new=new, changed=changed, careful=careful)
    known = {row[0] for row in changed}
    lost_changes = sum(refusal.row[0] in known for refusal in refused)
    return Applied(
        added=len(new) - (len(refused) - lost_changes),
        changed=len(changed) - lost_changes,
        unchanged=len(listed) - len(differing),
        refused=refused,
    )


_SIXTEEN = Struct("16s")
_VARIANT = bytes(value & 0x3F | 0x80 for value in range(256))


def new_ids(count: int) -> list[bytes]:
    """UUIDs of version 7 in rising order, so that a bulk load fills index pages in order."""
    if count > 0x1000:
        return [*new_ids(0x1000), *new_ids(count - 0x1000)]
    # Written column by column: a page's ids cost less than two made one by one.
    ids = bytearray(os.urandom(16 * count))
    for index, byte in enumerate((time.time_ns() // 1_000_000).to_bytes(6, "big")):
        ids[index::16] = bytes((byte,)) * count
    ids[6::16] = bytes(0x70 | number >> 8 for number in range(count))
    ids[7::16] = bytes(number & 0xFF for number in range(count))
    ids[8::16] = ids[8::16].translate(_VARIANT)
    return [id_ for (id_,) in _SIXTEEN.iter_unpack(ids)]


def driver(session: Any) -> Connection:
    """The session's own psycopg connection, in the session's transaction."""
    connection: Connection = session.connection().connection.driver_connection
    return connection


_HEADER = Struct("!iiIii")  # dimensions, whether there are nulls, oid of the values, how many, first subscript
_size = Struct("!i").pack
_SIZE_16 = _size(16)
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
    return _header(oid, len(values)) + (_SIZE_16 + _SIZE_16.join(values) if values else b"")


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

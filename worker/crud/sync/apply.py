"""The apply engine: makes the stored rows of any noun equal to what a page lists, with as little work as possible.

One query per page compares content hashes of stored and listed rows; unchanged rows are not read and not written. New
rows are inserted with COPY, changed rows with one UPDATE. If Postgres refuses a group of rows (a concurrent insert, a
value that no column can hold), the page is applied again carefully: groups are divided, inside savepoints, until only
the rows that cannot be stored are left. It works inside the caller's transaction, which must have begun.

Many values are sent to Postgres as one parameter, an array in binary form (`uuids`, `texts`, `digests`). psycopg would
convert a list value by value, and splitting a text in Postgres costs several times as much as comparing the rows.
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

from worker.crud.sync.noun import Listed, Noun, Row

Connection = psycopg.Connection[Any]

_LONGEST_KEY = 512
_unsafe_in_keys = re.compile(r"[\x00-\x1f\ud800-\udfff]").search
REFUSALS = (psycopg.DataError, psycopg.IntegrityError, UnicodeError, OverflowError)


class Entries(NamedTuple):
    """Many entries, stored as columns, so that the unchanged records of a page need no object each."""

    scopes: Sequence[bytes]
    keys: Sequence[str]
    hashes: Sequence[bytes]


Differing = tuple[int, bytes | None]
"""An entry that is not stored as listed: its index among the entries, and the stored row's id if there is one."""


def is_safe_key(key: str) -> bool:
    """Whether a provider's id can be stored: not empty, not too long, no control characters or lone surrogates."""
    return 0 < len(key) <= _LONGEST_KEY and not _unsafe_in_keys(key)


def are_safe_keys(keys: Sequence[str]) -> bool:
    """Whether all these ids can be stored; much faster than checking them one by one."""
    if not keys:
        return True
    if min(map(len, keys)) == 0 or max(map(len, keys)) > _LONGEST_KEY:
        return False
    together = "".join(keys)
    return together.isprintable() or not _unsafe_in_keys(together)  # `isprintable` is far faster and nearly always true


def diff(connection: Connection, noun: Noun, entries: Entries) -> list[Differing]:
    """The entries that are new or changed. Their keys must be safe, and no two may be the same."""
    if not entries.keys:
        return []
    listed = uuids(entries.scopes), texts(entries.keys), digests(entries.hashes)
    with connection.cursor(binary=True) as cursor:
        cursor.execute(noun.diff_statement, listed)
        return [(number - 1, stored.bytes if stored else None) for number, stored in cursor.fetchall()]


class Refusal(NamedTuple):
    """A row that Postgres refused, and the name of the error."""

    row: Row
    reason: str


def write(
    connection: Connection, noun: Noun, *, new: Iterable[Row], changed: Sequence[Row], careful: bool
) -> list[Refusal]:
    """Stores rows; `changed` ones contain their stored id. `new` is read once; it is an empty tuple if there are none.

    Without `careful` there are no savepoints: either everything is stored or nothing. A `careful` write divides the
    groups that Postgres refuses, and returns the rows that cannot be stored.

    Raises:
        one of `REFUSALS`: only without `careful`; the transaction must be rolled back.
    """
    if not careful:
        if new:
            copy_rows(connection, noun, new)
        if changed:
            connection.execute(noun.update_statement, (_as_json(noun, changed),))
        return []
    refused: list[Refusal] = []
    if rows := list(new):
        try:
            with connection.transaction():
                copy_rows(connection, noun, rows)
        except REFUSALS:
            refused += _in_parts(connection, noun, rows, changing=False)
    if changed:
        refused += _in_parts(connection, noun, changed, changing=True)
    return refused


def copy_rows(connection: Connection, noun: Noun, rows: Iterable[Row]) -> None:
    """Inserts rows with COPY; they must not exist yet."""
    with connection.cursor() as cursor:
        # Otherwise psycopg takes its adapter for the DB-API's `Binary`, which is four times as slow.
        cursor.adapters.register_dumper(bytes, BytesBinaryDumper)
        _write_rows(cursor, noun, rows)


def _write_rows(cursor: psycopg.Cursor[Any], noun: Noun, rows: Iterable[Row]) -> None:
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
    """Numbers of a page's records of one noun by outcome, and the refused rows."""

    added: int
    changed: int
    unchanged: int
    refused: list[Refusal]


def apply(connection: Connection, noun: Noun, listed: Sequence[Listed], *, careful: bool) -> Applied:
    """Stores records that are cheap to map. Transactions are not; they are mapped between `diff` and `write`."""
    if not listed:
        return Applied(0, 0, 0, [])
    differing = diff(connection, noun, Entries(*zip(*(record.entry for record in listed), strict=True)))
    return apply_differing(connection, noun, listed, differing, careful=careful)


def apply_differing(
    connection: Connection, noun: Noun, listed: Sequence[Listed], differing: Sequence[Differing], *, careful: bool
) -> Applied:
    """Stores those of the listed records that are known to differ from what is stored."""
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
_SEQUENCE = bytes(0x70 | number >> 8 for number in range(0x1000)), bytes(number & 0xFF for number in range(0x1000))
"""The seventh and the eighth byte of up to 4,096 ids: the version, and a number that rises."""


def new_ids(count: int) -> list[bytes]:
    """UUIDs of version 7 in rising order, so that bulk inserts fill index pages in order."""
    if count > 0x1000:
        return [*new_ids(0x1000), *new_ids(count - 0x1000)]
    # All ids are written together, byte by byte: a whole page's ids cost less than two that are made one by one.
    ids = bytearray(os.urandom(16 * count))
    for index, byte in enumerate((time.time_ns() // 1_000_000).to_bytes(6, "big")):
        ids[index::16] = bytes((byte,)) * count
    ids[6::16], ids[7::16] = (numbers[:count] for numbers in _SEQUENCE)
    ids[8::16] = ids[8::16].translate(_VARIANT)
    return [id_ for (id_,) in _SIXTEEN.iter_unpack(ids)]


def driver(session: Any) -> Connection:
    """The session's own psycopg connection, inside the session's transaction."""
    connection: Connection = session.connection().connection.driver_connection
    return connection


_HEADER = Struct("!iiIii")  # dimensions, whether there are nulls, oid of the values, their number, first subscript
_size = Struct("!i").pack
_SIZE_16 = _size(16)
_BYTEA, _TEXT, _UUID = 17, 25, 2950


class Array(bytes):
    """A parameter that is already in binary form; subclasses give the oid of its type."""

    type_oid: ClassVar[int]


class Uuids(Array):
    """A `uuid[]`."""

    type_oid = 2951


class Texts(Array):
    """A `text[]`."""

    type_oid = 1009


class Digests(Array):
    """A `bytea[]` of values of sixteen bytes each."""

    type_oid = 1001


def uuids(values: Sequence[bytes]) -> Uuids:
    """A `uuid[]` from values of sixteen bytes each."""
    return Uuids(_of_sixteen(_UUID, values))


def digests(values: Sequence[bytes]) -> Digests:
    """A `bytea[]` from values of sixteen bytes each."""
    return Digests(_of_sixteen(_BYTEA, values))


def texts(values: Iterable[str]) -> Texts:
    """A `text[]`.

    Raises:
        UnicodeEncodeError: a value contains a lone surrogate.
    """
    encoded = [value.encode() for value in values]
    parts = [part for value in encoded for part in (_size(len(value)), value)]
    return Texts(_header(_TEXT, len(encoded)) + b"".join(parts))


def _of_sixteen(oid: int, values: Sequence[bytes]) -> bytes:
    return _header(oid, len(values)) + (_SIZE_16 + _SIZE_16.join(values) if values else b"")


def _header(oid: int, count: int) -> bytes:
    return _HEADER.pack(1, 0, oid, count, 1)


class _AsIs(Dumper):
    # Each object sets its oid: with an oid of the class, psycopg would use this dumper for all columns of that type.
    format = Format.BINARY

    def __init__(self, cls: type[Array], context: AdaptContext | None = None) -> None:
        super().__init__(cls, context)
        self.oid = cls.type_oid

    def dump(self, obj: Array) -> bytes:
        return obj


for _array in (Uuids, Texts, Digests):
    psycopg.adapters.register_dumper(_array, _AsIs)  # for all connections that are opened after this

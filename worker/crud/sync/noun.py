"""What a noun is: a table for the apply engine, with its statements; `noun_of` makes one from model and record."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from operator import itemgetter
from typing import Any, NamedTuple

import msgspec
from psycopg import sql
from sqlalchemy import Dialect
from sqlalchemy.dialects import postgresql

from worker.models.base import Base

_POSTGRES: Dialect = postgresql.dialect()  # type: ignore[no-untyped-call]

Row = tuple[Any, ...]
"""A row's values in the order of its noun's columns; values of uuid and bytea columns are `bytes`."""


NO_SCOPE = bytes(16)


class Entry(NamedTuple):
    """One listed record: what its key is unique within (`scope`), its key, and its content hash of 16 bytes."""

    scope: bytes
    key: str
    hash: bytes


class Listed(NamedTuple):
    """A record that is ready to be stored: its entry, and its row without the id."""

    entry: Entry
    values: Row


@dataclass(frozen=True)
class Noun:
    """A table for the apply engine; `noun_of` makes one from the table's model and the record that fills it.

    Attributes:
        name: name of the table, and of the noun in a run's counts.
        columns: Postgres type of each column that is written, in the order of a row's values: `id`, then columns that
            are not in the record, then `fields`.
        fields: for each column that the record fills, the record's attribute.
        scope: the column within which the key is unique; None when the key is unique by itself.
        key: the column with the provider's own id.
        kept: columns that an update does not change, besides `id`.
        snapshots: a row that differs from the latest one of its scope is inserted; stored rows are never updated.
        shared: rows belong to all logins, so another run may insert the same ones at the same time.
    """

    name: str
    columns: dict[str, str]
    fields: dict[str, str]
    scope: str | None
    key: str
    kept: frozenset[str] = field(default=frozenset())
    snapshots: bool = False
    shared: bool = False

    @cached_property
    def values(self) -> Callable[..., Row]:
        """A function that makes a row without its id, from a record and, as keywords, columns not in the record.

        Compiled once, as dataclasses are: getting attributes by name costs three times as much, and a first load makes
        hundreds of thousands of rows.

        Raises:
            TypeError: raised by that function if a column is missing or unknown.
        """
        given = ", ".join(name for name in self.columns if name != "id" and name not in self.fields)
        of_record = ", ".join(f"record.{attribute}" for attribute in self.fields.values())
        made: Callable[..., Row] = eval(f"lambda record, *, {given}: ({given}, {of_record})")  # noqa: S307 - own names
        return made

    @cached_property
    def key_of(self) -> Callable[[Row], str]:
        """A function that gets the provider's own id from a row."""
        return itemgetter(list(self.columns).index(self.key))

    @cached_property
    def scope_of(self) -> Callable[[Row], bytes]:
        """A function that gets the scope from a row; only for a noun that has a `scope`."""
        return itemgetter(list(self.columns).index(self.scope or ""))

    @cached_property
    def copy_statement(self) -> bytes:
        """Statement that inserts new rows with COPY."""
        copy = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT binary)")
        return copy.format(sql.Identifier(self.name), _names(self.columns)).as_bytes(None)

    @cached_property
    def copy_types(self) -> list[str]:
        """Column types for COPY. A uuid is sent as `bytea`, its sixteen bytes, so no UUID objects are needed."""
        return ["bytea" if kind == "uuid" else kind for kind in self.columns.values()]

    @cached_property
    def diff_statement(self) -> bytes:
        """Statement that returns number (from 1) and stored id of every new or changed entry; see `INDEX_PROBES`."""
        if self.snapshots:
            stored = (
                "LEFT JOIN LATERAL (SELECT id, content_hash FROM {table} WHERE {scope} = listed.scope"
                " ORDER BY taken_at DESC LIMIT 1) stored ON true"
            )
        elif self.scope is None:
            stored = "LEFT JOIN {table} stored ON stored.{key} = listed.key"
        else:
            stored = "LEFT JOIN {table} stored ON stored.{scope} = listed.scope AND stored.{key} = listed.key"
        listed = sql.SQL(
            "SELECT listed.number, stored.id"
            " FROM unnest(%b, %b, %b) WITH ORDINALITY AS listed(scope, key, hash, number) "
        )
        unlike = sql.SQL(" WHERE stored.content_hash IS DISTINCT FROM listed.hash")
        joined = sql.SQL(stored).format(
            table=sql.Identifier(self.name), scope=sql.Identifier(self.scope or "id"), key=sql.Identifier(self.key)
        )
        return sql.Composed([listed, joined, unlike]).as_bytes(None)

    @cached_property
    def update_statement(self) -> bytes:
        """Statement that updates changed rows by id, because a key may change, too."""
        changing = [name for name in self.columns if name != "id" and name not in self.kept]
        update = sql.SQL("UPDATE {table} SET {changes} FROM {rows} WHERE {table}.id = listed.id")
        changes = _changes(changing, source="listed")
        return update.format(table=sql.Identifier(self.name), changes=changes, rows=self._rows).as_bytes(None)

    @cached_property
    def upsert_statement(self) -> bytes:
        """Statement that inserts new rows, or updates those that another transaction has inserted by now.

        Shared ones are left as that transaction has stored them.
        """
        insert = sql.SQL("INSERT INTO {table} ({names}) SELECT {names} FROM {rows}").format(
            table=sql.Identifier(self.name), names=_names(self.columns), rows=self._rows
        )
        if self.snapshots:
            return insert.as_bytes(None)
        target = [self.key] if self.scope is None else [self.scope, self.key]
        changing = [name for name in self.columns if name not in ("id", *target) and name not in self.kept]
        do = sql.SQL("NOTHING" if self.shared else "UPDATE SET {changes}")
        conflict = sql.SQL(" ON CONFLICT ({target}) DO {do}").format(
            target=_names(target), do=do.format(changes=_changes(changing, source="EXCLUDED"))
        )
        return (insert + conflict).as_bytes(None)

    @cached_property
    def _rows(self) -> sql.Composed:
        # One JSON parameter for all rows: converting each value, or arrays of them, costs several times as much.
        types = sql.SQL(", ").join(
            sql.SQL("{} {}").format(sql.Identifier(name), sql.SQL(kind))  # type: ignore[arg-type, unused-ignore]
            for name, kind in self.columns.items()
        )
        return sql.SQL("jsonb_to_recordset(%s::jsonb) AS listed({})").format(types)


def _names(names: Iterable[str]) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, names))


def _changes(names: Iterable[str], *, source: str) -> sql.Composed:
    change = sql.SQL("{name} = " + source + ".{name}")
    return sql.SQL(", ").join(change.format(name=sql.Identifier(name)) for name in names)


def noun_of(
    model: type[Base],
    record: type[msgspec.Struct],
    *,
    scope: str | None,
    key: str,
    given: Iterable[str],
    named: dict[str, str] | None = None,
    not_of_pages: Iterable[str] = (),
    **more: Any,
) -> Noun:
    """Makes a noun whose columns are filled from the record's attributes with the same names.

    Args:
        model: gives the table's name, and its columns with their types.
        record: the record that integrations make.
        scope: see `Noun`.
        key: see `Noun`.
        given: columns that are not in the record, besides `id`.
        named: for each column with another name in the record, the record's attribute.
        not_of_pages: columns that pages do not write.
        more: further attributes of the noun.

    Raises:
        TypeError: the record lacks a column that is not in `given`, or a name is not a column.
    """
    table, attributes, first = model.__table__, dict(named or {}), ("id", *given)
    others = [name for name in table.columns.keys() if name not in {*first, *not_of_pages}]  # noqa: SIM118 - no mapping
    fields = {name: attributes.pop(name, name) for name in others}
    no_columns = {*attributes, *first, *not_of_pages, scope or "id", key} - set(table.columns.keys())
    no_attributes = set(fields.values()) - set(record.__struct_fields__)
    if no_columns or no_attributes:
        raise TypeError(
            f"{model.__name__} has no columns {sorted(no_columns)} and"
            f" {record.__name__} no attributes {sorted(no_attributes)}: correct the names that noun_of is called with"
        )
    kinds = {name: table.columns[name].type.compile(dialect=_POSTGRES).lower() for name in (*first, *fields)}
    return Noun(model.__tablename__, kinds, fields, scope, key, **more)

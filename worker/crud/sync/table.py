"""A table as the apply engine sees it, and the statements that follow from that; each is composed once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from operator import itemgetter
from typing import Any

import msgspec
from psycopg import sql
from sqlalchemy import Dialect
from sqlalchemy.dialects import postgresql

from worker.models.base import Base

INDEX_PROBES = ", ".join(
    f"set_config('{name}', 'off', true)" for name in ("enable_hashjoin", "enable_mergejoin", "enable_seqscan", "jit")
)
"""Select this first in a transaction: pages are compared by one index probe per row, however the planner would guess.

Its statistics lag behind a first load, and it would rather read a table of middling size as a whole.
"""


_POSTGRES: Dialect = postgresql.dialect()  # type: ignore[no-untyped-call]

Row = tuple[Any, ...]
"""A row's values in the order of its noun's columns; uuid and bytea columns as `bytes`."""


@dataclass(frozen=True)
class Noun:
    """A table as the engine sees it; `noun_of` makes one from the table's model and the record that fills it.

    Attributes:
        name: of the table, and of the noun in a run's counts.
        columns: Postgres type of each column that rows carry, in the order of a row's values: `id`, then what the
            record does not say, then `fields`.
        fields: the record's attribute of each column that it fills.
        scope: column of what the key is unique within; None when the key is unique by itself.
        key: column with the provider's own id.
        kept: columns that a change leaves as they are, besides `id`.
        snapshots: a row that differs from the latest one of its scope is added beside it and changes nothing.
    """

    name: str
    columns: dict[str, str]
    fields: dict[str, str]
    scope: str | None
    key: str
    kept: frozenset[str] = field(default=frozenset())
    snapshots: bool = False

    @cached_property
    def values(self) -> Callable[..., Row]:
        """Called with a record and, by the names of columns, what the record does not say: the row without its id.

        Compiled once, as dataclasses are: getters by name cost three times as much, and a first load makes a row of
        each of hundreds of thousands of records.

        Raises:
            TypeError: on a call that lacks a column, or names one that is not expected.
        """
        given = ", ".join(name for name in self.columns if name != "id" and name not in self.fields)
        of_record = ", ".join(f"record.{attribute}" for attribute in self.fields.values())
        made: Callable[..., Row] = eval(f"lambda record, *, {given}: ({given}, {of_record})")  # noqa: S307 - own names
        return made

    @cached_property
    def key_of(self) -> Callable[[Row], str]:
        """The provider's own id in a row."""
        return itemgetter(list(self.columns).index(self.key))

    @cached_property
    def scope_of(self) -> Callable[[Row], bytes]:
        """What a row's key is unique within; only of a noun that has a `scope`."""
        return itemgetter(list(self.columns).index(self.scope or ""))

    @cached_property
    def copy_statement(self) -> bytes:
        """COPY of new rows."""
        copy = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT binary)")
        return copy.format(sql.Identifier(self.name), _names(self.columns)).as_bytes(None)

    @cached_property
    def copy_types(self) -> list[str]:
        """A uuid's binary form is its sixteen bytes: sent as such, it needs no object per value."""
        return ["bytea" if kind == "uuid" else kind for kind in self.columns.values()]

    @cached_property
    def diff_statement(self) -> bytes:
        """Number (from 1) and stored id of every entry that is not stored as listed; see `INDEX_PROBES`."""
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
        """Changed rows, by id: a key may change too."""
        changing = [name for name in self.columns if name != "id" and name not in self.kept]
        update = sql.SQL("UPDATE {table} SET {changes} FROM {rows} WHERE {table}.id = listed.id")
        changes = _changes(changing, source="listed")
        return update.format(table=sql.Identifier(self.name), changes=changes, rows=self._rows).as_bytes(None)

    @cached_property
    def upsert_statement(self) -> bytes:
        """New rows, should one of them exist by now."""
        insert = sql.SQL("INSERT INTO {table} ({names}) SELECT {names} FROM {rows}").format(
            table=sql.Identifier(self.name), names=_names(self.columns), rows=self._rows
        )
        if self.snapshots:
            return insert.as_bytes(None)
        target = [self.key] if self.scope is None else [self.scope, self.key]
        changing = [name for name in self.columns if name not in ("id", *target) and name not in self.kept]
        conflict = sql.SQL(" ON CONFLICT ({target}) DO UPDATE SET {changes}").format(
            target=_names(target), changes=_changes(changing, source="EXCLUDED")
        )
        return (insert + conflict).as_bytes(None)

    @cached_property
    def _rows(self) -> sql.Composed:
        # One parameter for all rows: adapting them value by value, or as arrays, costs several times as much.
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
    """A table whose columns are filled from the record's attributes of the same names.

    Args:
        model: says the table's name and its columns with their types.
        record: what integrations hand over.
        scope: see `Noun`, as are `key` and `more`.
        key: see `Noun`.
        given: columns that the record does not say, besides `id`.
        named: attribute of the record for each column that has another name there.
        not_of_pages: columns that pages leave alone.
        more: further attributes of the noun.

    Raises:
        TypeError: the record lacks a column that is not `given`, or a name is no column.
    """
    table, attributes, first = model.__table__, dict(named or {}), ("id", *given)
    others = [name for name in table.columns.keys() if name not in {*first, *not_of_pages}]  # noqa: SIM118 - no mapping
    fields = {name: attributes.pop(name, name) for name in others}
    no_columns = {*attributes, *first, *not_of_pages, scope or "id", key} - set(table.columns.keys())
    no_attributes = set(fields.values()) - set(record.__struct_fields__)
    if no_columns or no_attributes:
        raise TypeError(
            f"{model.__name__} has no columns {sorted(no_columns)} and"
            f" {record.__name__} no attributes {sorted(no_attributes)}: mend the names that noun_of is called with"
        )
    kinds = {name: table.columns[name].type.compile(dialect=_POSTGRES).lower() for name in (*first, *fields)}
    return Noun(model.__tablename__, kinds, fields, scope, key, **more)

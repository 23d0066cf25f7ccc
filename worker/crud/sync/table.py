"""A table as the apply engine sees it, and the statements that follow from that; each is composed once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

from psycopg import sql

INDEX_PROBES = ", ".join(
    f"set_config('{name}', 'off', true)" for name in ("enable_hashjoin", "enable_mergejoin", "enable_seqscan", "jit")
)
"""Select this first in a transaction: pages are compared by one index probe per row, however the planner would guess.

Its statistics lag behind a first load, and it would rather read a table of middling size as a whole.
"""


@dataclass(frozen=True)
class Noun:
    """A table as the engine sees it.

    Attributes:
        name: of the table, and of the noun in a run's counts.
        columns: Postgres type of each column that rows carry; `id` comes first, then `scope`, then `key`.
        scope: column of what the key is unique within; None when the key is unique by itself.
        key: column with the provider's own id.
        kept: columns that a change leaves as they are, besides `id`.
        snapshots: a row that differs from the latest one of its scope is added beside it and changes nothing.
    """

    name: str
    columns: dict[str, str]
    scope: str | None
    key: str
    kept: frozenset[str] = field(default=frozenset())
    snapshots: bool = False

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
        """Place and stored id of every entry that is not stored as listed; see `INDEX_PROBES`."""
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
            "SELECT listed.place, stored.id FROM unnest(%b, %b, %b) WITH ORDINALITY AS listed(scope, key, hash, place) "
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

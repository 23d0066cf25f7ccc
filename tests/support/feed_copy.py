"""A reader of the change feed that keeps a copy of all rows, and the rows of the tables to compare the copy with."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import text
from sqlalchemy.orm import Session

from worker.models.feed import LOADED, STATES, Change, Kind, Noun, SecurityState, State

Rows = dict[Noun, dict[UUID, State]]

_SECURITY = {"symbol": "s.symbol", "name": "s.name", "security_type": "s.type"}


@dataclass
class Copy:
    """What a reader has stored."""

    cursor: str | None = None
    rows: Rows = field(default_factory=lambda: {noun: {} for noun in LOADED})

    def apply(self, changes: Iterable[Change]) -> None:
        """Stores changes, as docs/feed.md tells readers to do it."""
        for change in changes:
            if isinstance(change.row, SecurityState):
                self._describe(change.row)
            elif change.change is Kind.REMOVED:
                assert change.row is None
                self.rows[change.noun].pop(change.id, None)
            else:
                assert change.row is not None
                self.rows[change.noun][change.id] = change.row

    def _describe(self, security: SecurityState) -> None:
        for noun, more in (
            (Noun.HOLDINGS, {"symbol": security.symbol, "name": security.name, "security_type": security.type}),
            (Noun.TRANSACTIONS, {"symbol": security.symbol}),
        ):
            for id_, row in self.rows[noun].items():
                if getattr(row, "security_id", None) == security.id:
                    self.rows[noun][id_] = msgspec.structs.replace(row, **more)  # type: ignore[type-var]


def stored(session: Session, *, user_id: UUID | None = None) -> Rows:
    """The rows of the tables, value by value, without the feed's own queries."""
    return {noun: _stored(session, noun, user_id) for noun in LOADED}


def _stored(session: Session, noun: Noun, user_id: UUID | None) -> dict[UUID, State]:
    state = STATES[noun]
    of_security = noun in (Noun.HOLDINGS, Noun.TRANSACTIONS)
    names = list(state.__struct_fields__)
    columns = [(_SECURITY.get(name) if of_security else None) or f"t.{name}" for name in names]
    account = "accounts a ON a.id = t.account_id" if noun != Noun.ACCOUNTS else "accounts a ON a.id = t.id"
    security = "LEFT JOIN securities s ON s.id = t.security_id" if of_security else ""
    live = "t.status <> 'removed'" if noun is Noun.TRANSACTIONS else "true"
    owner = "(CAST(:user_id AS uuid) IS NULL OR p.user_id = :user_id)"
    joined = f"JOIN {account} JOIN providers p ON p.id = a.provider_id {security}"
    query = text(f"SELECT {', '.join(columns)} FROM {noun} t {joined} WHERE {live} AND {owner}")  # noqa: S608
    rows: list[Any] = list(session.execute(query, {"user_id": user_id}))
    return {row[0]: state(*row) for row in rows}


def differences(copy: Rows, there: Rows) -> dict[str, list[Any]]:
    """The rows that the copy lacks, has too many, or has otherwise; empty if it is equal."""
    found: dict[str, list[Any]] = {}
    for noun in LOADED:
        ours, theirs = copy[noun], there[noun]
        for id_ in ours.keys() | theirs.keys():
            if ours.get(id_) != theirs.get(id_):
                found.setdefault(noun, []).append((ours.get(id_), theirs.get(id_)))
    return found

"""A database with the rows of two users, and a reader for each of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.orm import Session

from tests.factories import make_account, make_provider, make_transaction, make_user
from tests.support.feed_copy import Copy, differences, stored
from tests.support.fixtures import MakeRuntime
from worker.models import Balance, Holding, Liability, Security, new_id
from worker.models.feed import Change
from worker.runtime import Runtime
from worker.services import feed

DAY = date(2026, 1, 5)


@dataclass
class Person:
    """A user with a login, an account and rows of each noun.

    Attributes:
        ids: a row of each table, by the table's name.
    """

    user_id: UUID
    ids: dict[str, UUID] = field(default_factory=dict)


class World:
    """The feed of one database, with a reader of it."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.copy = Copy()

    def read(self, *, limit: int = 100, user_id: UUID | None = None, copy: Copy | None = None) -> list[Change]:
        """Reads to the end into the copy; returns what was told."""
        return self.runtime.run(self._read(copy or self.copy, limit, user_id))

    async def _read(self, copy: Copy, limit: int, user_id: UUID | None) -> list[Change]:
        told: list[Change] = []
        async for found in feed.changes(self.runtime, user_id=user_id, cursor=copy.cursor, limit=limit):
            assert len(found.items) <= limit
            copy.apply(found.items)
            copy.cursor = found.cursor
            told += found.items
        return told

    def told(self, **options: Any) -> list[tuple[str, str, UUID]]:
        """Noun, change and id of what is told now."""
        return [(change.noun, change.change, change.id) for change in self.read(**options)]

    def differences(self, copy: Copy | None = None, *, user_id: UUID | None = None) -> dict[str, list[Any]]:
        """Between the tables and the copy."""
        with self.runtime.transaction() as session:
            return differences((copy or self.copy).rows, stored(session, user_id=user_id))

    def execute(self, statement: str, **values: Any) -> None:
        """One statement in a transaction of its own."""
        with self.runtime.transaction() as session:
            session.execute(text(statement), values)

    def logged(self) -> list[tuple[Any, ...]]:
        """Noun, change and number of rows in the log."""
        with self.runtime.transaction() as session:
            query = "SELECT noun, change, cardinality(ids) FROM change_log ORDER BY xid, sequence"
            return [tuple(row) for row in session.execute(text(query))]

    @contextmanager
    def open(self) -> Iterator[Connection]:
        """A transaction that stays open until the block ends; it is rolled back if nobody commits it."""
        with self.runtime.engine.connect() as connection:
            yield connection


@pytest.fixture
def world(make_runtime: MakeRuntime) -> World:
    """A database without rows."""
    return World(make_runtime(integrations={}))


@pytest.fixture
def ada(world: World) -> Person:
    """A user."""
    return populate(world)


@pytest.fixture
def bob(world: World) -> Person:
    """Another one."""
    return populate(world)


def populate(world: World) -> Person:
    """A user with two balances, an open and a closed position, three transactions and a withdrawn one."""
    with world.runtime.transaction() as session:
        user = make_user(session)
        login = make_provider(session, user=user, status="active")
        account = make_account(session, provider=login)
        security = make_security(session)
        holding = make_holding(session, account.id, security.id)
        make_holding(session, account.id, security.id, closed_at=datetime(2026, 1, 5, tzinfo=UTC), quantity=Decimal(0))
        balance = make_balance(session, account.id)
        make_balance(session, account.id, taken_at=datetime(2026, 1, 6, tzinfo=UTC))
        liability = make_liability(session, account.id)
        moved = [make_transaction(session, account=account, posted_date=DAY + timedelta(days=i)) for i in range(3)]
        make_transaction(session, account=account, status="removed")
        ids = {"users": user.id, "providers": login.id, "accounts": account.id, "securities": security.id}
        ids |= {
            "liabilities": liability.id,
            "holdings": holding.id,
            "balances": balance.id,
            "transactions": moved[0].id,
        }
    return Person(user.id, ids)


def make_security(session: Session, **values: Any) -> Security:
    id_ = new_id()
    defaults = {"id": id_, "key": str(id_), "type": "equity", "symbol": "ACME", "name": "Acme", "multiplier": 1}
    made = Security(**defaults | {"source": "model", "content_hash": b"x"} | values)
    session.add(made)
    session.flush()
    return made


def make_holding(session: Session, account_id: UUID, security_id: UUID, **values: Any) -> Holding:
    defaults = {"account_id": account_id, "holding_key": str(new_id()), "security_id": security_id, "currency": "USD"}
    made = Holding(**defaults | {"quantity": Decimal("1.5"), "content_hash": b"x"} | values)
    session.add(made)
    session.flush()
    return made


def make_liability(session: Session, account_id: UUID, **values: Any) -> Liability:
    defaults: dict[str, Any] = {"account_id": account_id, "liability_key": "credit", "kind": "credit"}
    defaults |= {"currency": "USD", "interest_rate": Decimal("15.24"), "details": {"aprs": [{"percentage": "15.24"}]}}
    made = Liability(**defaults | {"content_hash": b"x"} | values)
    session.add(made)
    session.flush()
    return made


def make_balance(session: Session, account_id: UUID, **values: Any) -> Balance:
    defaults: dict[str, Any] = {"account_id": account_id, "current": Decimal("100.10"), "currency": "USD"}
    defaults |= {"source": "stated", "content_hash": b"x", "taken_at": datetime(2026, 1, 5, tzinfo=UTC)}
    made = Balance(**defaults | values)
    session.add(made)
    session.flush()
    return made

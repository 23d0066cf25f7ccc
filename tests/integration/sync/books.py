"""Compares the tables with what a sandbox login holds."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import Engine, text

Rows = Counter[tuple[Any, ...]]


def stored_transactions(engine: Engine, provider_id: UUID) -> Rows:
    """Live rows: account, provider's id, amount, status, day."""
    return _rows(
        engine,
        "SELECT a.provider_account_id, t.provider_transaction_id, t.amount, t.status, t.posted_date::text"
        " FROM transactions t JOIN accounts a ON a.id = t.account_id"
        " WHERE a.provider_id = :provider AND t.status <> 'removed'",
        provider_id,
    )


def stored_holdings(engine: Engine, provider_id: UUID) -> Rows:
    """Open positions: account, quantity, market value. (Schwab has its own symbols for bonds.)"""
    return _rows(
        engine,
        "SELECT a.provider_account_id, h.quantity, h.market_value FROM holdings h"
        " JOIN accounts a ON a.id = h.account_id"
        " WHERE a.provider_id = :provider AND h.closed_at IS NULL",
        provider_id,
    )


def stored_balances(engine: Engine, provider_id: UUID) -> Rows:
    """Latest balance of each active account."""
    return _rows(
        engine,
        "SELECT DISTINCT ON (a.id) a.provider_account_id, b.current FROM balances b"
        " JOIN accounts a ON a.id = b.account_id WHERE a.provider_id = :provider AND a.status = 'active'"
        " ORDER BY a.id, b.taken_at DESC",
        provider_id,
    )


def _rows(engine: Engine, query: str, provider_id: UUID) -> Rows:
    with engine.connect() as connection:
        return Counter(tuple(row) for row in connection.execute(text(query), {"provider": provider_id}))


def booked_transactions(books: dict[str, Any]) -> Rows:
    """The same of the sandbox's books."""
    return Counter(
        (row["account"], row["id"], Decimal(row["amount"]), row["status"], row["date"]) for row in books["transactions"]
    )


def booked_holdings(books: dict[str, Any]) -> Rows:
    """The same of the sandbox's books."""
    return Counter(
        (row["account"], Decimal(row["quantity"]), Decimal(row["market_value"])) for row in books["holdings"]
    )


def booked_balances(books: dict[str, Any]) -> Rows:
    """The same of the sandbox's books."""
    return Counter((row["provider_account_id"], Decimal(row["current"])) for row in books["accounts"])

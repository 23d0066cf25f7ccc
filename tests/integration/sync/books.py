"""Compares the tables with what a sandbox login holds."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import Engine, text

Rows = Counter[tuple[Any, ...]]


_TRANSACTIONS = """
    SELECT a.provider_account_id, t.provider_transaction_id, t.amount, t.status, t.posted_date::text
    FROM transactions t JOIN accounts a ON a.id = t.account_id
    WHERE a.provider_id = :provider AND t.status <> 'removed'
"""
_HOLDINGS = """
    SELECT a.provider_account_id, h.quantity, h.market_value FROM holdings h JOIN accounts a ON a.id = h.account_id
    WHERE a.provider_id = :provider AND h.closed_at IS NULL
"""
_BALANCES = """
    SELECT DISTINCT ON (a.id) a.provider_account_id, b.current FROM balances b JOIN accounts a ON a.id = b.account_id
    WHERE a.provider_id = :provider AND a.status = 'active' ORDER BY a.id, b.taken_at DESC
"""


def _rows(query: str, engine: Engine, provider_id: UUID) -> Rows:
    with engine.connect() as connection:
        return Counter(tuple(row) for row in connection.execute(text(query), {"provider": provider_id}))


stored_transactions = partial(_rows, _TRANSACTIONS)
"""Live rows: account, provider's id, amount, status, day."""

stored_holdings = partial(_rows, _HOLDINGS)
"""Open positions: account, quantity, market value. (Schwab has its own symbols for bonds.)"""

stored_balances = partial(_rows, _BALANCES)
"""Latest balance of each active account."""


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

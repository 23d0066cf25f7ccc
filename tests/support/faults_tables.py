"""What the tables hold, by names that two runs share, so that runs can be compared row by row."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from typing import Any

from sqlalchemy import Engine, text

Rows = Counter[tuple[Any, ...]]
Tables = dict[str, Rows]

# Ids, times of our own and the ids of runs differ between any two runs; everything else must not. A row is named by
# its login (the provider's alias) and the provider's own ids.
_QUERIES = {
    "providers": "SELECT p.alias, p.provider_key, p.status, p.status_reason FROM providers p",
    "accounts": """
        SELECT p.alias, a.provider_account_id, a.name, a.official_name, a.mask, a.type, a.subtype, a.provider_type,
            a.provider_subtype, a.margin, a.currency, a.status, encode(a.content_hash, 'hex')
        FROM accounts a JOIN providers p ON p.id = a.provider_id""",
    "balances": """
        SELECT DISTINCT ON (a.id) p.alias, a.provider_account_id, b.current, b.available, b.credit_limit, b.cash,
            b.market_value, b.currency
        FROM balances b JOIN accounts a ON a.id = b.account_id JOIN providers p ON p.id = a.provider_id
        ORDER BY a.id, b.taken_at DESC""",
    "securities": "SELECT key, type, symbol, name, cusip, isin, currency, multiplier FROM securities",
    "holdings": """
        SELECT p.alias, a.provider_account_id, h.holding_key, s.key, h.quantity, h.market_value, h.price,
            h.average_price, h.cost_basis, h.currency, h.closed_at IS NULL
        FROM holdings h JOIN securities s ON s.id = h.security_id
        JOIN accounts a ON a.id = h.account_id JOIN providers p ON p.id = a.provider_id""",
    "transactions": """
        SELECT p.alias, a.provider_account_id, t.provider_transaction_id, t.type, t.subtype, t.status, t.amount,
            t.currency, t.posted_date, t.occurred_at, t.settlement_date, t.description, t.counterparty, t.category,
            s.key, t.quantity, t.price, t.fees, t.pending_key, t.provider_type, t.flags::text,
            encode(t.content_hash, 'hex')
        FROM transactions t JOIN accounts a ON a.id = t.account_id JOIN providers p ON p.id = a.provider_id
        LEFT JOIN securities s ON s.id = t.security_id""",
    "liabilities": """
        SELECT p.alias, a.provider_account_id, l.liability_key, l.kind, l.closed_at IS NULL, l.currency, l.status,
            l.interest_rate, l.last_statement_balance, l.minimum_payment, l.next_payment_date, l.details::text,
            encode(l.content_hash, 'hex')
        FROM liabilities l JOIN accounts a ON a.id = l.account_id JOIN providers p ON p.id = a.provider_id""",
    "balance_days": """
        SELECT p.alias, a.provider_account_id, d.day, d.current, d.available, d.credit_limit, d.cash
        FROM balance_days d JOIN accounts a ON a.id = d.account_id JOIN providers p ON p.id = a.provider_id""",
    "quarantine": """
        SELECT p.alias, q.kind, q.account_key, q.record_key, q.reason, encode(q.fingerprint, 'hex')
        FROM quarantine q JOIN providers p ON p.id = q.provider_id""",
    "drifts": """
        SELECT p.alias, a.provider_account_id, d.figure, d.stated, d.stored
        FROM book_drifts d JOIN accounts a ON a.id = d.account_id JOIN providers p ON p.id = a.provider_id""",
}
_GONE = {"transactions": (5, "removed"), "holdings": (10, False), "liabilities": (4, False)}


def read_tables(engine: Engine) -> Tables:
    """All rows that a fault must not change."""
    with engine.connect() as connection:
        return {name: Counter(tuple(row) for row in connection.execute(text(sql))) for name, sql in _QUERIES.items()}


def live(tables: Tables) -> Tables:
    """Without tombstones: which rows came and went between two syncs depends on when one looked."""
    kept = dict(tables)
    for name, (column, gone) in _GONE.items():
        kept[name] = Counter({row: count for row, count in tables[name].items() if row[column] != gone})
    return kept


def without(tables: Tables, logins: set[str]) -> Tables:
    """Without the rows of some logins; what logins share stays."""
    return {
        name: rows if name == "securities" else Counter({row: n for row, n in rows.items() if row[0] not in logins})
        for name, rows in tables.items()
    }


def differences(expected: Tables, found: Tables) -> list[str]:
    """One line per row that is missing or too many; empty when equal."""
    lines = []
    for name, rows in expected.items():
        for sign, other in (("missing", rows - found[name]), ("too many", found[name] - rows)):
            lines += [f"{name}: {sign}: {row} x{count}" for row, count in other.items()]
    return lines


def book_differences(engine: Engine, books: dict[str, Any], *, alias: str, alone: bool = True) -> list[str]:
    """How the live rows of the login with this alias differ from what its provider holds.

    Unless it was `alone` under its alias, rows of other accounts are those of the login before it, and are kept; but
    none of these accounts may be active.
    """
    tables, login = live(read_tables(engine)), alias
    own = {row["provider_account_id"] for row in books["accounts"]}
    if not alone:
        left = [row[1] for row in tables["accounts"] if row[0] == login and row[1] not in own and row[11] == "active"]
        if left:
            return [f"{login}: accounts of the login before are active: {left}"]
        for name in ("transactions", "balances"):
            tables[name] = Counter({row: n for row, n in tables[name].items() if row[1] in own})
    closed = {row[1] for row in tables["accounts"] if row[0] == login and row[11] != "active"}
    stored = {
        "transactions": Counter((row[1], row[2], row[6], row[5]) for row in tables["transactions"] if row[0] == login),
        "balances": Counter((row[1], row[2]) for row in tables["balances"] if row[0] == login and row[1] not in closed),
    }
    booked = {
        "transactions": Counter(
            (row["account"], row["id"], Decimal(row["amount"]), row["status"]) for row in books["transactions"]
        ),
        "balances": Counter((row["provider_account_id"], Decimal(row["current"])) for row in books["accounts"]),
    }
    return [f"{login}: {line}" for line in differences(booked, stored)]

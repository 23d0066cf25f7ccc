"""Rows for SimpleFIN apps: logins and accounts of one moment, transactions by parts in the order of their days."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from worker.models.simplefin import ConnectionRow, SharedAccount, SharedHolding, SharedTransaction

_CONNECTIONS = text(
    """
    SELECT p.id, p.provider_key, p.alias, p.status, p.synced_at, ended.status AS last_run
    FROM providers p LEFT JOIN LATERAL (
        SELECT status FROM sync_runs WHERE provider_id = p.id AND status <> 'running'
        ORDER BY started_at DESC LIMIT 1
    ) AS ended ON true
    WHERE p.user_id = :user_id AND p.status IN ('active', 'needs_reauth', 'paused')
    ORDER BY p.id
    """
)

_ACCOUNTS = text(
    """
    SELECT a.id, a.provider_id AS connection_id, a.name, a.mask, a.type, a.subtype, a.currency,
        a.status = 'active' AS listed, b.current AS balance, b.available,
        coalesce(b.as_of, b.taken_at) AS balance_at
    FROM accounts a LEFT JOIN LATERAL (
        SELECT * FROM balances WHERE account_id = a.id ORDER BY taken_at DESC LIMIT 1
    ) AS b ON b.currency = a.currency
    WHERE a.provider_id = ANY(CAST(:connection_ids AS uuid[]))
        AND (CAST(:ids AS uuid[]) IS NULL OR a.id = ANY(CAST(:ids AS uuid[])))
    ORDER BY a.provider_id, a.id
    """
)

_HOLDINGS = text(
    """
    SELECT h.id, h.account_id, s.symbol, s.name, h.quantity, h.market_value, h.average_price, h.cost_basis, h.currency,
        h.as_of
    FROM holdings h JOIN securities s ON s.id = h.security_id
    WHERE h.account_id = ANY(CAST(:account_ids AS uuid[])) AND h.closed_at IS NULL
    ORDER BY h.id
    """
)

_COLUMNS = ", ".join(SharedTransaction.__slots__)
# For pending rows there is an index of its own, which is small.
_TRANSACTIONS = {
    status: text(
        f"""
        SELECT {_COLUMNS} FROM transactions
        WHERE account_id = :account_id AND status = '{status}'
            AND posted_date >= :first AND posted_date <= :last AND (posted_date, id) > (:day, :id)
        ORDER BY posted_date, id LIMIT :limit
        """  # noqa: S608 - made of constants
    )
    for status in ("pending", "posted")
}


@dataclass(frozen=True, slots=True)
class Days:
    """Which days are wanted, the last one included."""

    first: date = date.min
    last: date = date.max


def at_one_moment(session: Session) -> None:
    """Makes all that this transaction reads be of one moment. Must be its first act."""
    session.connection(execution_options={"isolation_level": "REPEATABLE READ"})


def connections(session: Session, *, user_id: UUID) -> list[ConnectionRow]:
    """The logins of a user that are linked."""
    return [ConnectionRow(*row) for row in session.execute(_CONNECTIONS, {"user_id": user_id})]


def accounts(session: Session, *, connection_ids: Sequence[UUID], ids: Collection[UUID] | None) -> list[SharedAccount]:
    """The accounts of these logins, also those that are no longer listed; `ids` selects some of them."""
    parameters = {"connection_ids": list(connection_ids), "ids": None if ids is None else list(ids)}
    return [SharedAccount(*row) for row in session.execute(_ACCOUNTS, parameters)]


def holdings(session: Session, *, account_ids: Sequence[UUID]) -> list[SharedHolding]:
    """The open positions in these accounts."""
    return [SharedHolding(*row) for row in session.execute(_HOLDINGS, {"account_ids": list(account_ids)})]


def transactions(
    session: Session, *, account_id: UUID, status: str, days: Days, after: tuple[date, UUID] | None, limit: int
) -> list[SharedTransaction]:
    """At most `limit` transactions with this status, oldest first, after the position of the last row before them."""
    day, id_ = after or (days.first, UUID(int=0))
    parameters: dict[str, Any] = {
        "account_id": account_id,
        "first": max(days.first, day),
        "last": days.last,
        "day": day,
        "id": id_,
        "limit": limit,
    }
    return [SharedTransaction(*row) for row in session.execute(_TRANSACTIONS[status], parameters)]

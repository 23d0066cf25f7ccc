"""Rows for the HTTP API: a limited number at a time, each time from where the last ones ended.

Rows in order of time are read account by account, each from its index, and merged, so a user's whole history is never
sorted. The statements are built once: building one for each request took a third of its time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time
from typing import Any
from uuid import UUID

from sqlalchemy import Select, TextClause, select, text
from sqlalchemy.orm import Session

from worker.crud.fleet.stored import account_rows
from worker.models import Account, Holding, Liability, Provider, Security
from worker.models.fleet import AccountRow
from worker.models.reading import (
    BalanceDayRow,
    BalanceRow,
    HoldingRow,
    LiabilityRow,
    MovementRow,
    WantedAccounts,
    WantedDays,
    WantedTransactions,
)
from worker.models.vocabulary import AccountStatus


def provider_of(session: Session, *, account_id: UUID) -> UUID | None:
    """The login that an account belongs to; None if there is no such account."""
    return session.scalar(select(Account.provider_id).where(Account.id == account_id))


def account_ids(session: Session, *, user_id: UUID | None, provider_id: UUID | None) -> Sequence[UUID]:
    """Ids of the accounts of a user, or of a login."""
    query = select(Account.id).join(Provider, Provider.id == Account.provider_id)
    if user_id is not None:
        query = query.where(Provider.user_id == user_id)
    if provider_id is not None:
        query = query.where(Provider.id == provider_id)
    return session.scalars(query).all()


def accounts(session: Session, *, user_id: UUID | None, wanted: WantedAccounts, after: UUID | None) -> list[AccountRow]:
    """Accounts by id, each with its newest balance."""
    query = account_rows().order_by(Account.id).limit(wanted.limit + 1)
    if user_id is not None:
        query = query.where(Provider.user_id == user_id)
    if wanted.provider_id is not None:
        query = query.where(Account.provider_id == wanted.provider_id)
    if wanted.account_id is not None:
        query = query.where(Account.id == wanted.account_id)
    if not wanted.closed:
        query = query.where(Account.status == AccountStatus.ACTIVE)
    if after is not None:
        query = query.where(Account.id > after)
    return [AccountRow(*row) for row in session.execute(query)]


def holdings(session: Session, *, account_ids: Sequence[UUID], limit: int, after: UUID | None) -> list[HoldingRow]:
    """Open positions by id; one more than `limit` if there are more."""
    of_security = {"symbol": Security.symbol, "name": Security.name, "security_type": Security.type}
    columns = [of_security.get(name) or getattr(Holding, name) for name in HoldingRow.__slots__]
    query = select(*columns).join(Security, Security.id == Holding.security_id)
    return [HoldingRow(*row) for row in session.execute(_open(query, Holding, account_ids, limit, after))]


def liabilities(session: Session, *, account_ids: Sequence[UUID], limit: int, after: UUID | None) -> list[LiabilityRow]:
    """Open liabilities by id; one more than `limit` if there are more."""
    query = select(*(getattr(Liability, name) for name in LiabilityRow.__slots__))
    return [LiabilityRow(*row) for row in session.execute(_open(query, Liability, account_ids, limit, after))]


def _open(
    query: Select[Any], table: type[Holding | Liability], account_ids: Sequence[UUID], limit: int, after: UUID | None
) -> Select[Any]:
    query = query.where(table.account_id.in_(account_ids), table.closed_at.is_(None)).order_by(table.id)
    return query.limit(limit + 1) if after is None else query.where(table.id > after).limit(limit + 1)


_EARLIEST, _LATEST = date.min, date.max
_HIGHEST = UUID(int=2**128 - 1)


def _newest_first(
    row: type[Any],
    *,
    table: str,
    moment: str,
    id_: str = "id",
    where: str = "true",
    elsewhere: Mapping[str, str] | None = None,
) -> TextClause:
    """A query for the newest rows of some accounts: at most `limit` of each account, and at most `limit` in all.

    Args:
        row: the record whose fields are read.
        table: the table that is read.
        moment: its column of time; there is an index on account and this column.
        id_: the column that tells rows of the same time apart.
        where: a further condition.
        elsewhere: fields that come from another table, with their columns there.
    """
    columns = ", ".join(f"{(elsewhere or {}).get(name, f't.{name}')} AS {name}" for name in row.__slots__)
    securities = "LEFT JOIN securities s ON s.id = t.security_id" if elsewhere else ""
    return text(
        f"""
        SELECT newest.* FROM unnest(CAST(:account_ids AS uuid[])) AS listed (id) CROSS JOIN LATERAL (
            SELECT {columns} FROM {table} t {securities}
            WHERE t.account_id = listed.id AND t.{moment} >= :since AND t.{moment} <= :until
                AND (t.{moment}, t.{id_}) < (:after, :after_id) AND {where}
            ORDER BY t.{moment} DESC, t.{id_} DESC LIMIT :limit
        ) AS newest ORDER BY newest.{moment} DESC, newest.{id_} DESC LIMIT :limit
        """  # noqa: S608 - made of the constants above
    )


_BALANCES = _newest_first(BalanceRow, table="balances", moment="taken_at")
_BALANCE_DAYS = _newest_first(BalanceDayRow, table="balance_days", moment="day", id_="account_id")
_TRANSACTIONS = _newest_first(
    MovementRow,
    table="transactions",
    moment="posted_date",
    where="""t.status <> 'removed' AND (CAST(:status AS text) IS NULL OR t.status = :status)
        AND (CAST(:type AS text) IS NULL OR t.type = :type)""",
    elsewhere={"symbol": "s.symbol"},
)


def balances(
    session: Session, *, account_ids: Sequence[UUID], wanted: WantedDays, after: tuple[datetime, UUID] | None
) -> list[BalanceRow]:
    """Stated balances, newest first; one more than the limit if there are more."""
    first, last = wanted.since or _EARLIEST, wanted.until or _LATEST
    end = datetime.combine(last, time.max, UTC)
    moment, id_ = after or (end, _HIGHEST)
    parameters = {
        "account_ids": list(account_ids),
        "since": datetime.combine(first, time.min, UTC),
        "until": min(end, moment),  # repeats the condition on `after`, since the index has only the time
        "after": moment,
        "after_id": id_,
        "limit": wanted.limit + 1,
    }
    return [BalanceRow(*row) for row in session.execute(_BALANCES, parameters)]


def transactions(
    session: Session, *, account_ids: Sequence[UUID], wanted: WantedTransactions, after: tuple[date, UUID] | None
) -> list[MovementRow]:
    """Transactions, newest first; one more than the limit if there are more."""
    parameters = _by_day(account_ids, wanted, after) | {"status": wanted.status, "type": wanted.type}
    return [MovementRow(*row) for row in session.execute(_TRANSACTIONS, parameters)]


def balance_days(
    session: Session, *, account_ids: Sequence[UUID], wanted: WantedDays, after: tuple[date, UUID] | None
) -> list[BalanceDayRow]:
    """Balances by day, newest first; one more than the limit if there are more."""
    return [BalanceDayRow(*row) for row in session.execute(_BALANCE_DAYS, _by_day(account_ids, wanted, after))]


def _by_day(account_ids: Sequence[UUID], wanted: WantedDays, after: tuple[date, UUID] | None) -> dict[str, Any]:
    last = wanted.until or _LATEST
    day, id_ = after or (last, _HIGHEST)
    return {
        "account_ids": list(account_ids),
        "since": wanted.since or _EARLIEST,
        "until": min(last, day),
        "after": day,
        "after_id": id_,
        "limit": wanted.limit + 1,
    }

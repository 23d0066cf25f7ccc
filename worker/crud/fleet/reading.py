"""Rows as the HTTP API hands them out: some at a time, from where the last ones ended.

What is in the order of time is read account by account, each from its index, and merged: a user's whole history is
never sorted.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, Select, Uuid, cast, func, select, true, tuple_
from sqlalchemy.orm import Session

from worker.crud.fleet.overview import account_rows
from worker.models import Account, Balance, Holding, Provider, Security, Transaction
from worker.models.fleet import AccountRow
from worker.models.reading import BalanceRow, HoldingRow, MovementRow, WantedAccounts, WantedDays, WantedTransactions
from worker.models.vocabulary import AccountStatus, TransactionStatus


def provider_of(session: Session, *, account_id: UUID) -> UUID | None:
    """The login that an account belongs to; None if there is no such account."""
    return session.scalar(select(Account.provider_id).where(Account.id == account_id))


def account_ids(session: Session, *, user_id: UUID | None, provider_id: UUID | None) -> Sequence[UUID]:
    """The accounts of a user, or of a login."""
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
    """Open positions by id, one more than `limit` if there are more."""
    of_security = {"symbol": Security.symbol, "name": Security.name, "security_type": Security.type}
    columns = [of_security.get(name) or getattr(Holding, name) for name in HoldingRow.__slots__]
    query = (
        select(*columns)
        .join(Security, Security.id == Holding.security_id)
        .where(Holding.account_id.in_(account_ids), Holding.closed_at.is_(None))
        .order_by(Holding.id)
        .limit(limit + 1)
    )
    if after is not None:
        query = query.where(Holding.id > after)
    return [HoldingRow(*row) for row in session.execute(query)]


def balances(
    session: Session, *, account_ids: Sequence[UUID], wanted: WantedDays, after: tuple[datetime, UUID] | None
) -> list[BalanceRow]:
    """What was stated, newest first, one more than the limit if there are more."""
    query = select(*(getattr(Balance, name) for name in BalanceRow.__slots__))
    if wanted.since is not None:
        query = query.where(Balance.taken_at >= _midnight(wanted.since))
    if wanted.until is not None:
        query = query.where(Balance.taken_at < _midnight(wanted.until) + timedelta(days=1))
    merged = _merged(query, Balance, Balance.taken_at, account_ids, wanted.limit + 1, after)
    return [BalanceRow(*row) for row in session.execute(merged)]


def transactions(
    session: Session, *, account_ids: Sequence[UUID], wanted: WantedTransactions, after: tuple[date, UUID] | None
) -> list[MovementRow]:
    """Transactions, newest first, one more than the limit if there are more."""
    columns = [Security.symbol if name == "symbol" else getattr(Transaction, name) for name in MovementRow.__slots__]
    query = select(*columns).outerjoin(Security, Security.id == Transaction.security_id)
    query = query.where(Transaction.status != TransactionStatus.REMOVED)
    if wanted.status is not None:
        query = query.where(Transaction.status == wanted.status)
    if wanted.type is not None:
        query = query.where(Transaction.type == wanted.type)
    if wanted.since is not None:
        query = query.where(Transaction.posted_date >= wanted.since)
    if wanted.until is not None:
        query = query.where(Transaction.posted_date <= wanted.until)
    merged = _merged(query, Transaction, Transaction.posted_date, account_ids, wanted.limit + 1, after)
    return [MovementRow(*row) for row in session.execute(merged)]


def _merged(
    query: Select[Any],
    table: Any,
    moment: Any,
    account_ids: Sequence[UUID],
    limit: int,
    after: tuple[Any, UUID] | None,
) -> Select[Any]:
    """The newest rows of these accounts taken together: of each at most `limit`, and at most `limit` of all."""
    each = select(func.unnest(cast(list(account_ids), ARRAY(Uuid))).label("id")).subquery()
    if after is not None:
        # Said twice: the index of an account has the time alone.
        query = query.where(moment <= after[0], tuple_(moment, table.id) < tuple_(*after))
    newest = query.where(table.account_id == each.c.id).order_by(moment.desc(), table.id.desc()).limit(limit).lateral()
    return (
        select(newest)
        .select_from(each)
        .join(newest, true())
        .order_by(newest.c[moment.key].desc(), newest.c.id.desc())
        .limit(limit)
    )


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)

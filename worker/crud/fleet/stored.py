"""Read-only queries on what was synced: accounts, terms and transactions, their counts, drift and quarantine."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any
from uuid import UUID

from sqlalchemy import Select, func, select, true
from sqlalchemy.orm import Session

from worker.models import Account, Balance, BookDrift, Holding, Liability, Provider, Quarantine, Transaction
from worker.models.fleet import AccountRow, Drift, Stored, TermsRow, TransactionRow
from worker.models.vocabulary import AccountStatus, TransactionStatus


def counts(session: Session, *, provider_ids: Sequence[UUID]) -> dict[UUID, Stored]:
    """Counts of the rows of these providers. It reads their transactions, so give only a few."""
    listed = (
        select(Account.id, Account.provider_id)
        .where(Account.provider_id.in_(provider_ids), Account.status == "active")
        .subquery()
    )
    accounts = _counts(session, select(listed.c.provider_id, func.count()).group_by(listed.c.provider_id))
    transactions = _counts(
        session,
        select(listed.c.provider_id, func.count())
        .join(Transaction, Transaction.account_id == listed.c.id)
        .where(Transaction.status != "removed")
        .group_by(listed.c.provider_id),
    )
    holdings = _counts(
        session,
        select(listed.c.provider_id, func.count())
        .join(Holding, Holding.account_id == listed.c.id)
        .where(Holding.closed_at.is_(None))
        .group_by(listed.c.provider_id),
    )
    return {id_: Stored(accounts.get(id_, 0), transactions.get(id_, 0), holdings.get(id_, 0)) for id_ in provider_ids}


def _counts(session: Session, query: Select[Any]) -> dict[UUID, int]:
    return {row[0]: row[1] for row in session.execute(query)}


def drifts(session: Session, *, provider_id: UUID) -> list[Drift]:
    """The figures of one provider that drift now."""
    query = (
        select(Account.name, BookDrift.figure, BookDrift.stated, BookDrift.stored, BookDrift.seen_at)
        .join(Account, Account.id == BookDrift.account_id)
        .where(Account.provider_id == provider_id)
        .order_by(Account.name, BookDrift.figure)
    )
    return [Drift(*row) for row in session.execute(query)]


def quarantined(session: Session, *, provider_id: UUID) -> int:
    """How many records of one provider are in quarantine and unresolved."""
    query = select(func.count()).where(Quarantine.provider_id == provider_id, Quarantine.resolved_at.is_(None))
    return session.scalar(query) or 0


def account_rows() -> Select[Any]:
    """A query for the fields of `AccountRow`: every account, with its newest balance."""
    newest = (
        select(Balance.current, Balance.available, Balance.taken_at)
        .where(Balance.account_id == Account.id)
        .order_by(Balance.taken_at.desc())
        .limit(1)
        .lateral()
    )
    return (
        select(
            Account.id,
            Account.provider_id,
            Provider.alias,
            Account.name,
            Account.mask,
            Account.type,
            Account.subtype,
            Account.status,
            Account.currency,
            newest.c.current,
            newest.c.available,
            newest.c.taken_at,
        )
        .join(Provider, Provider.id == Account.provider_id)
        .outerjoin(newest, true())
    )


def accounts(session: Session, *, provider_id: UUID | None, closed: bool, limit: int) -> list[AccountRow]:
    """Stored accounts by provider and name, each with its newest balance; `closed` adds those no longer listed."""
    query = account_rows().order_by(Provider.alias, Account.name, Account.id).limit(limit)
    if provider_id is not None:
        query = query.where(Account.provider_id == provider_id)
    if not closed:
        query = query.where(Account.status == AccountStatus.ACTIVE)
    return [AccountRow(*row) for row in session.execute(query)]


_OF_OTHERS = {"provider": Provider.alias, "account": Account.name}
_TERMS = (
    select(*(_OF_OTHERS.get(name) or getattr(Liability, name) for name in TermsRow.__slots__))
    .join(Account, Account.id == Liability.account_id)
    .join(Provider, Provider.id == Account.provider_id)
    .where(Liability.closed_at.is_(None))
    .order_by(Liability.next_payment_date, Liability.id)
)


def liabilities(session: Session, *, provider_id: UUID | None, limit: int) -> list[TermsRow]:
    """Open liabilities of one provider or of all, in the order in which payments are due."""
    query = (
        _TERMS.limit(limit) if provider_id is None else _TERMS.where(Account.provider_id == provider_id).limit(limit)
    )
    return [TermsRow(*row) for row in session.execute(query)]


def transactions(session: Session, *, provider_id: UUID | None, since: date | None, limit: int) -> list[TransactionRow]:
    """Stored transactions of one provider or of all, newest first; withdrawn ones are left out."""
    query = (
        select(
            Transaction.id,
            Transaction.account_id,
            Provider.alias.label("provider"),
            Account.name.label("account"),
            Transaction.posted_date,
            Transaction.status,
            Transaction.type,
            Transaction.description,
            Transaction.amount,
            Transaction.currency,
        )
        .join(Account, Account.id == Transaction.account_id)
        .join(Provider, Provider.id == Account.provider_id)
        .where(Transaction.status != TransactionStatus.REMOVED)
        .order_by(Transaction.posted_date.desc(), Transaction.id.desc())
        .limit(limit)
    )
    if provider_id is not None:
        query = query.where(Account.provider_id == provider_id)
    if since is not None:
        query = query.where(Transaction.posted_date >= since)
    return [TransactionRow(**row) for row in session.execute(query).mappings()]

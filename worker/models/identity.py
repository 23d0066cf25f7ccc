"""Tables of accounts that are known under more than one key: under which ones, and which keys their rows have there."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from worker.models.account import Account
from worker.models.base import Base, CreatedAt, Id
from worker.models.provider import Provider
from worker.models.transaction import Transaction
from worker.models.user import User


class AccountSource(Base):
    """One key of an account at one login. Only accounts that had more than one key have rows here, one for each.

    The source that `accounts` itself names is the main one: its login states the account, its balances and positions.
    The others only add transactions.

    Attributes:
        key: the provider's account id.
        ended_at: since when the account is known under another key instead; None while the login is still read.
    """

    __tablename__ = "account_sources"
    __table_args__ = (
        Index("ix_account_sources_account_id", "account_id"),
        Index("uq_account_sources_live", "provider_id", "key", unique=True, postgresql_where="ended_at IS NULL"),
    )

    id: Mapped[Id]
    account_id: Mapped[UUID] = mapped_column(ForeignKey(Account.id, ondelete="CASCADE"))
    provider_id: Mapped[UUID] = mapped_column(ForeignKey(Provider.id, ondelete="CASCADE"))
    key: Mapped[str]
    ended_at: Mapped[datetime | None]
    created_at: Mapped[CreatedAt]


class AccountChange(Base):
    """What a person has changed about which accounts are the same: a merge or a split, which can be undone.

    Attributes:
        kind: `merge` or `split`.
        account_id: the account that has stayed.
        other_id: the account that has gone into it, or has come out of it.
        saved: the rows that the change has deleted, and what else is needed to undo it.
    """

    __tablename__ = "account_changes"
    __table_args__ = (Index("ix_account_changes_user_id", "user_id"),)

    id: Mapped[Id]
    user_id: Mapped[UUID] = mapped_column(ForeignKey(User.id, ondelete="CASCADE"))
    kind: Mapped[str]
    account_id: Mapped[UUID]
    other_id: Mapped[UUID]
    actor: Mapped[str]
    saved: Mapped[dict[str, Any]]
    created_at: Mapped[CreatedAt]
    undone_at: Mapped[datetime | None]


class TransactionKey(Base):
    """The key under which a source lists a transaction. Each source lists a transaction under one key at most.

    Attributes:
        key: the provider's transaction id.
    """

    __tablename__ = "transaction_keys"
    __table_args__ = (Index("ix_transaction_keys_transaction_id", "transaction_id"),)

    source_id: Mapped[UUID] = mapped_column(ForeignKey("account_sources.id", ondelete="CASCADE"), primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    transaction_id: Mapped[UUID] = mapped_column(ForeignKey(Transaction.id, ondelete="CASCADE"))

"""The table of transactions: movements of money and units."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from uuid import UUID

from sqlalchemy import ForeignKey, Index, Text, UniqueConstraint
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from worker.models.account import Account, Security
from worker.models.base import Base, Id, finite


class Transaction(Base):
    """One transaction. The amount is credit-positive. A removed one stays as a tombstone with status `removed`.

    Attributes:
        content_hash: hash of the raw record and the mapping version; when it is equal, nothing is written. Empty on a
            tombstone, so that a record that is listed again is mapped again.
        loop_id: the loop that inserted the row; when the loop restarts, the rows that it inserted are withdrawn.
        run_id: the run that last wrote the row.
    """

    __tablename__ = "transactions"
    __table_args__ = (
        UniqueConstraint("account_id", "provider_transaction_id"),
        Index("ix_transactions_posted", "account_id", "posted_date"),
        Index("ix_transactions_pending", "account_id", postgresql_where="status = 'pending'"),
        Index(
            "ix_transactions_pending_key",
            "account_id",
            "pending_key",
            postgresql_where="pending_key IS NOT NULL",
        ),
        *finite("amount", "quantity", "price", "fees"),
    )

    id: Mapped[Id]
    account_id: Mapped[UUID] = mapped_column(ForeignKey(Account.id, ondelete="CASCADE"))
    provider_transaction_id: Mapped[str]
    type: Mapped[str]
    subtype: Mapped[str | None]
    status: Mapped[str]
    amount: Mapped[Decimal]
    currency: Mapped[str]
    posted_date: Mapped[date]
    occurred_at: Mapped[datetime | None]
    settlement_date: Mapped[date | None]
    description: Mapped[str | None]
    counterparty: Mapped[str | None]
    category: Mapped[str | None]
    security_id: Mapped[UUID | None] = mapped_column(ForeignKey(Security.id))
    quantity: Mapped[Decimal | None]
    price: Mapped[Decimal | None]
    fees: Mapped[Decimal | None]
    pending_key: Mapped[str | None]
    provider_type: Mapped[str | None]
    flags: Mapped[list[str] | None] = mapped_column(ARRAY(Text))
    content_hash: Mapped[bytes]
    loop_id: Mapped[UUID | None]
    run_id: Mapped[UUID | None]

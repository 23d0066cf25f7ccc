"""Table of liabilities: the terms of cards and loans."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKey, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from worker.models.account import Account
from worker.models.base import Base, Id, finite

FIGURES = (
    "interest_rate",
    "past_due_amount",
    "last_statement_balance",
    "last_payment_amount",
    "next_payment_amount",
    "minimum_payment",
    "principal",
    "original_principal",
    "ytd_interest_paid",
    "ytd_principal_paid",
)
"""The columns with amounts and rates."""


class Liability(Base):
    """The terms of a card or a loan as the provider last stated them. One that is no longer listed is closed.

    Attributes:
        liability_key: identity within the account.
        details: what only some kinds have; see `LiabilityRecord`.
        closed_at: when it was no longer listed; its figures stay as they were.
    """

    __tablename__ = "liabilities"
    __table_args__ = (UniqueConstraint("account_id", "liability_key"), *finite(*FIGURES))

    id: Mapped[Id]
    account_id: Mapped[UUID] = mapped_column(ForeignKey(Account.id, ondelete="CASCADE"))
    liability_key: Mapped[str]
    kind: Mapped[str]
    status: Mapped[str | None]
    currency: Mapped[str]
    interest_rate: Mapped[Decimal | None]
    interest_type: Mapped[str | None]
    is_overdue: Mapped[bool | None]
    past_due_amount: Mapped[Decimal | None]
    last_statement_date: Mapped[date | None]
    last_statement_balance: Mapped[Decimal | None]
    last_payment_date: Mapped[date | None]
    last_payment_amount: Mapped[Decimal | None]
    next_payment_date: Mapped[date | None]
    next_payment_amount: Mapped[Decimal | None]
    minimum_payment: Mapped[Decimal | None]
    principal: Mapped[Decimal | None]
    original_principal: Mapped[Decimal | None]
    originated_on: Mapped[date | None]
    ends_on: Mapped[date | None]
    ytd_interest_paid: Mapped[Decimal | None]
    ytd_principal_paid: Mapped[Decimal | None]
    details: Mapped[dict[str, Any]]
    closed_at: Mapped[datetime | None]
    content_hash: Mapped[bytes]
    run_id: Mapped[UUID | None]

"""Tables of accounts, their balances, their securities and their positions."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from uuid import UUID

from sqlalchemy import ForeignKey, Index, Text, UniqueConstraint
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from worker.models.base import Base, CreatedAt, Id, finite
from worker.models.provider import Provider


class Account(Base):
    """One account of a provider, as it was last listed.

    Attributes:
        institution, stable_keys: by these the account is recognised when its login is linked again (`AccountRecord`).
        opening: the provider's stated figure minus the sum of the posted rows since `opening_from`, at the time when
            the account's rows were first complete. The books check starts from it. None until then.
    """

    __tablename__ = "accounts"
    __table_args__ = (UniqueConstraint("provider_id", "provider_account_id"), *finite("opening"))

    id: Mapped[Id]
    provider_id: Mapped[UUID] = mapped_column(ForeignKey(Provider.id, ondelete="CASCADE"))
    provider_account_id: Mapped[str]
    provider_ref: Mapped[str | None]
    name: Mapped[str]
    official_name: Mapped[str | None]
    mask: Mapped[str | None]
    type: Mapped[str]
    subtype: Mapped[str]
    provider_type: Mapped[str | None]
    provider_subtype: Mapped[str | None]
    margin: Mapped[bool] = mapped_column(default=False, server_default="false")
    currency: Mapped[str]
    status: Mapped[str]
    institution: Mapped[str | None]
    stable_keys: Mapped[list[str] | None] = mapped_column(ARRAY(Text))
    opening: Mapped[Decimal | None]
    opening_from: Mapped[date | None]
    content_hash: Mapped[bytes]
    run_id: Mapped[UUID | None]
    created_at: Mapped[CreatedAt]


class Balance(Base):
    """What the provider stated of an account. A new row is stored when a figure changes, and once a day."""

    __tablename__ = "balances"
    __table_args__ = (
        Index("ix_balances_latest", "account_id", "taken_at"),
        Index("ix_balances_taken_at", "taken_at"),
        *finite("current", "available", "credit_limit", "cash", "market_value"),
    )

    id: Mapped[Id]
    account_id: Mapped[UUID] = mapped_column(ForeignKey("accounts.id", ondelete="CASCADE"))
    current: Mapped[Decimal | None]
    available: Mapped[Decimal | None]
    credit_limit: Mapped[Decimal | None]
    cash: Mapped[Decimal | None]
    market_value: Mapped[Decimal | None]
    currency: Mapped[str]
    as_of: Mapped[datetime | None]
    source: Mapped[str]
    content_hash: Mapped[bytes]
    run_id: Mapped[UUID | None]
    taken_at: Mapped[datetime]


class BalanceDay(Base):
    """The balance that was last stated for one day of an account. It is kept as long as the account.

    Attributes:
        day: the UTC day of the time that the provider gives for the figures, or else of the time at which they were
            read.
    """

    __tablename__ = "balance_days"
    __table_args__ = (*finite("current", "available", "credit_limit", "cash", "market_value"),)

    account_id: Mapped[UUID] = mapped_column(ForeignKey("accounts.id", ondelete="CASCADE"), primary_key=True)
    day: Mapped[date] = mapped_column(primary_key=True)
    current: Mapped[Decimal | None]
    available: Mapped[Decimal | None]
    credit_limit: Mapped[Decimal | None]
    cash: Mapped[Decimal | None]
    market_value: Mapped[Decimal | None]
    currency: Mapped[str]


class Security(Base):
    """A security. The same row is used for all providers.

    Attributes:
        source: `provider_key` of the integration that first named the security. Only this integration changes the row
            later: two integrations with different descriptions would overwrite each other again and again.
    """

    __tablename__ = "securities"
    __table_args__ = (*finite("multiplier"),)

    id: Mapped[Id]
    key: Mapped[str] = mapped_column(unique=True)
    type: Mapped[str]
    symbol: Mapped[str | None]
    name: Mapped[str | None]
    cusip: Mapped[str | None]
    isin: Mapped[str | None]
    currency: Mapped[str | None]
    multiplier: Mapped[Decimal]
    source: Mapped[str]
    content_hash: Mapped[bytes]


class Holding(Base):
    """A position: open while the provider lists it, closed (quantity 0) when it is no longer listed.

    Attributes:
        opening_quantity: the stated quantity minus the sum of the units traded since the account's `opening_from`; the
            books check starts from it.
    """

    __tablename__ = "holdings"
    __table_args__ = (
        UniqueConstraint("account_id", "holding_key"),
        *finite("quantity", "market_value", "price", "average_price", "cost_basis", "opening_quantity"),
    )

    id: Mapped[Id]
    account_id: Mapped[UUID] = mapped_column(ForeignKey("accounts.id", ondelete="CASCADE"))
    holding_key: Mapped[str]
    security_id: Mapped[UUID] = mapped_column(ForeignKey("securities.id"))
    quantity: Mapped[Decimal]
    market_value: Mapped[Decimal | None]
    price: Mapped[Decimal | None]
    average_price: Mapped[Decimal | None]
    cost_basis: Mapped[Decimal | None]
    currency: Mapped[str]
    as_of: Mapped[date | None]
    closed_at: Mapped[datetime | None]
    opening_quantity: Mapped[Decimal | None]
    content_hash: Mapped[bytes]
    run_id: Mapped[UUID | None]


class HoldingDay(Base):
    """A position as it was at the end of a day on which it was synced."""

    __tablename__ = "holding_days"
    __table_args__ = (
        Index("ix_holding_days_day", "day"),
        *finite("quantity", "market_value", "price"),
    )

    holding_id: Mapped[UUID] = mapped_column(ForeignKey("holdings.id", ondelete="CASCADE"), primary_key=True)
    day: Mapped[date] = mapped_column(primary_key=True)
    quantity: Mapped[Decimal]
    market_value: Mapped[Decimal | None]
    price: Mapped[Decimal | None]


class BookDrift(Base):
    """A figure for which the stored rows and the provider disagreed after a run.

    Attributes:
        figure: `balance` or `quantity:<holding_key>`.
    """

    __tablename__ = "book_drifts"
    __table_args__ = (UniqueConstraint("account_id", "figure"), *finite("stated", "stored"))

    id: Mapped[Id]
    account_id: Mapped[UUID] = mapped_column(ForeignKey("accounts.id", ondelete="CASCADE"))
    figure: Mapped[str]
    stated: Mapped[Decimal]
    stored: Mapped[Decimal]
    run_id: Mapped[UUID | None]
    seen_at: Mapped[datetime]

"""The table of SimpleFIN accesses: which apps may read a user's accounts by the SimpleFIN protocol."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from uuid import UUID

from sqlalchemy import ForeignKey, Uuid
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from worker.models.base import Base, CreatedAt, Id
from worker.models.user import User


class SimplefinAccess(Base):
    """One app's permission to read. It begins with a setup token, which the app exchanges once for an access URL.

    Attributes:
        user_id: whose accounts the app reads.
        name: what it is for, in the words of the person who made it.
        prefix: the user name in the access URL; lists and logs show it.
        account_ids: the only accounts that the app sees; None: all accounts of the user, also those that come later.
        claim_hash: SHA-256 of the secret in the setup token, which has 256 random bits.
        claim_expires_at: until when the setup token can be exchanged.
        claimed_at: when it was exchanged; None until then.
        secret_hash: SHA-256 of the password in the access URL, which has 256 random bits; None until it is claimed.
        last_used_at: when the app last read; up to an hour late.
        created_by, revoked_by: who did it, written as in the audit log.
    """

    __tablename__ = "simplefin_accesses"

    id: Mapped[Id]
    user_id: Mapped[UUID] = mapped_column(ForeignKey(User.id, ondelete="CASCADE"), index=True)
    name: Mapped[str]
    prefix: Mapped[str] = mapped_column(unique=True)
    account_ids: Mapped[list[UUID] | None] = mapped_column(ARRAY(Uuid))
    claim_hash: Mapped[bytes] = mapped_column(unique=True)
    claim_expires_at: Mapped[datetime] = mapped_column(index=True)
    claimed_at: Mapped[datetime | None]
    secret_hash: Mapped[bytes | None] = mapped_column(unique=True)
    last_used_at: Mapped[datetime | None]
    created_at: Mapped[CreatedAt]
    created_by: Mapped[str]
    revoked_at: Mapped[datetime | None]
    revoked_by: Mapped[str | None]


@dataclass(frozen=True, slots=True)
class NewAccess:
    """The values of a new access; see `SimplefinAccess`."""

    user_id: UUID
    name: str
    prefix: str
    account_ids: tuple[UUID, ...] | None
    created_by: str


@dataclass(frozen=True, slots=True)
class AccessRow:
    """One access as lists show it, without secrets and their hashes.

    Attributes:
        state: a value of `AccessState`.
        user: the user's e-mail address.
    """

    id: UUID
    prefix: str
    name: str
    state: str
    user_id: UUID
    user: str | None
    account_ids: list[UUID] | None
    created_at: datetime
    created_by: str
    claim_expires_at: datetime
    claimed_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None
    revoked_by: str | None


@dataclass(frozen=True, slots=True)
class ConnectionRow:
    """A login whose accounts an app may see.

    Attributes:
        last_run: how the last sync that has ended came out, a value of `RunStatus`; None if there was none.
    """

    id: UUID
    provider_key: str
    alias: str
    status: str
    synced_at: datetime | None
    last_run: str | None


@dataclass(frozen=True, slots=True)
class SharedAccount:
    """An account as an app sees it, with its newest stated balance.

    Attributes:
        balance: None if none is stated in the account's own currency.
        balance_at: the time that the institution gives for the balance, else when it was read.
        listed: whether the institution still lists the account.
    """

    id: UUID
    connection_id: UUID
    name: str
    mask: str | None
    type: str
    subtype: str
    currency: str
    listed: bool
    balance: Decimal | None
    available: Decimal | None
    balance_at: datetime | None


@dataclass(frozen=True, slots=True)
class SharedHolding:
    """An open position as an app sees it."""

    id: UUID
    account_id: UUID
    symbol: str | None
    name: str | None
    quantity: Decimal
    market_value: Decimal | None
    average_price: Decimal | None
    cost_basis: Decimal | None
    currency: str
    as_of: date | None


@dataclass(frozen=True, slots=True)
class SharedTransaction:
    """A transaction as an app sees it."""

    id: UUID
    posted_date: date
    occurred_at: datetime | None
    amount: Decimal
    currency: str
    type: str
    description: str | None
    counterparty: str | None
    category: str | None

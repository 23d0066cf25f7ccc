"""The change feed: its log, and the rows that it shows. Amounts are in the currency beside them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any, Generic, NamedTuple, TypeVar
from uuid import UUID

import msgspec
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import ARRAY, BigInteger, CheckConstraint, DateTime, Identity, Index, Uuid, func, text
from sqlalchemy.orm import Mapped, mapped_column

from worker.models.base import Base

Logged = Annotated[datetime, mapped_column(DateTime(timezone=True), server_default=func.clock_timestamp())]


class ChangeLog(Base):
    """Rows of one noun that a statement has changed. Triggers write it, in the transaction of the statement.

    Attributes:
        xid: number of the transaction; it never wraps around.
        user_id: whose rows they are; None for securities, which belong to nobody.
        ids: up to a thousand ids of rows.
    """

    __tablename__ = "change_log"
    __table_args__ = (Index(None, "user_id", "xid", "sequence"), Index(None, "at"))

    xid: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    sequence: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    user_id: Mapped[UUID | None]
    noun: Mapped[str]
    change: Mapped[str]
    ids: Mapped[list[UUID]] = mapped_column(ARRAY(Uuid))
    at: Mapped[Logged]


class ChangeRead(Base):
    """One reading of the feed. Where this row is missing, what that reading saw may be missing, too."""

    __tablename__ = "change_reads"
    __table_args__ = (Index(None, "at"),)

    id: Mapped[UUID] = mapped_column(primary_key=True)
    at: Mapped[Logged]


class ChangeOrigin(Base):
    """The identity of the log; one row.

    Attributes:
        id: of this log and of all its copies: a dump has it, too.
        epoch: another one after a table was emptied with TRUNCATE, because that lists no rows.
        kept_from: the log has everything that was changed after this time; None if nothing was deleted from it.
    """

    __tablename__ = "change_origin"
    __table_args__ = (CheckConstraint("one", name="one"),)

    one: Mapped[bool] = mapped_column(primary_key=True, server_default="true")
    id: Mapped[UUID] = mapped_column(server_default=text("gen_random_uuid()"))
    epoch: Mapped[UUID] = mapped_column(server_default=text("gen_random_uuid()"))
    kept_from: Mapped[datetime | None]


class Noun(StrEnum):
    """The nouns of the feed."""

    ACCOUNTS = "accounts"
    BALANCES = "balances"
    HOLDINGS = "holdings"
    LIABILITIES = "liabilities"
    TRANSACTIONS = "transactions"
    SECURITIES = "securities"


class Kind(StrEnum):
    """What happened to a row."""

    ADDED = "added"
    MODIFIED = "modified"
    REMOVED = "removed"


class AccountState(msgspec.Struct, frozen=True, gc=False):
    """An account. `status` is `inaccessible` when the institution no longer lists it."""

    id: UUID
    provider_id: UUID
    name: str
    official_name: str | None
    mask: str | None
    type: str
    subtype: str
    margin: bool
    currency: str
    status: str


class BalanceState(msgspec.Struct, frozen=True, gc=False):
    """What the institution stated of an account. It is valid from `taken_at` until the account's next one."""

    id: UUID
    account_id: UUID
    currency: str
    current: Decimal | None
    available: Decimal | None
    credit_limit: Decimal | None
    cash: Decimal | None
    market_value: Decimal | None
    as_of: datetime | None
    taken_at: datetime


class HoldingState(msgspec.Struct, frozen=True, gc=False):
    """A position. A closed one has the quantity 0 and `closed_at`. `symbol` and `name` are those of its security."""

    id: UUID
    account_id: UUID
    security_id: UUID
    symbol: str | None
    name: str | None
    security_type: str
    quantity: Decimal
    price: Decimal | None
    market_value: Decimal | None
    average_price: Decimal | None
    cost_basis: Decimal | None
    currency: str
    as_of: date | None
    closed_at: datetime | None


class LiabilityState(msgspec.Struct, frozen=True, gc=False):
    """The terms of a card or a loan: amounts that are owed or paid are positive, rates are in percent.

    One that is no longer listed has `closed_at`. `details` has what only some kinds have.
    """

    id: UUID
    account_id: UUID
    kind: str
    status: str | None
    currency: str
    interest_rate: Decimal | None
    interest_type: str | None
    is_overdue: bool | None
    past_due_amount: Decimal | None
    last_statement_date: date | None
    last_statement_balance: Decimal | None
    last_payment_date: date | None
    last_payment_amount: Decimal | None
    next_payment_date: date | None
    next_payment_amount: Decimal | None
    minimum_payment: Decimal | None
    principal: Decimal | None
    original_principal: Decimal | None
    originated_on: date | None
    ends_on: date | None
    ytd_interest_paid: Decimal | None
    ytd_principal_paid: Decimal | None
    details: dict[str, Any]
    closed_at: datetime | None


class TransactionState(msgspec.Struct, frozen=True, gc=False):
    """A transaction. + is money into the account. `symbol` is that of the security."""

    id: UUID
    account_id: UUID
    posted_date: date
    occurred_at: datetime | None
    settlement_date: date | None
    status: str
    type: str
    subtype: str | None
    description: str | None
    counterparty: str | None
    category: str | None
    amount: Decimal
    currency: str
    security_id: UUID | None
    symbol: str | None
    quantity: Decimal | None
    price: Decimal | None
    fees: Decimal | None


class SecurityState(msgspec.Struct, frozen=True, gc=False):
    """A security whose description has changed. Positions and transactions of it are not told again."""

    id: UUID
    type: str
    symbol: str | None
    name: str | None
    cusip: str | None
    isin: str | None
    currency: str | None
    multiplier: Decimal


State = AccountState | BalanceState | HoldingState | LiabilityState | TransactionState | SecurityState
STATES: dict[Noun, type[State]] = {
    Noun.ACCOUNTS: AccountState,
    Noun.BALANCES: BalanceState,
    Noun.HOLDINGS: HoldingState,
    Noun.LIABILITIES: LiabilityState,
    Noun.TRANSACTIONS: TransactionState,
    Noun.SECURITIES: SecurityState,
}
LOADED = (Noun.ACCOUNTS, Noun.BALANCES, Noun.HOLDINGS, Noun.TRANSACTIONS, Noun.LIABILITIES)
"""What a reader gets that begins without a cursor, in this order."""


S = TypeVar("S")


class Change(msgspec.Struct, Generic[S], frozen=True, gc=False):
    """What happened to one row, and the row as it is now; `row` is null if it is gone."""

    noun: Noun
    change: Kind
    id: UUID
    row: S | None


class Changes(msgspec.Struct, frozen=True):
    """Some changes, in the order in which to apply them.

    Attributes:
        cursor: give it to the next reading, after these changes are stored.
        has_more: whether there is more to read now.
    """

    items: list[Change[State]]
    cursor: str
    has_more: bool


@dataclass(frozen=True, slots=True)
class Items:
    """Changes of rows of one noun, as JSON with commas in between."""

    noun: Noun
    count: int
    json: bytes


class Page(NamedTuple):
    """`Changes` before they are decoded."""

    items: list[Items]
    cursor: str
    has_more: bool

    @property
    def json(self) -> bytes:
        """`Changes` as JSON."""
        items = b",".join(one.json for one in self.items if one.count)
        return msgspec.json.encode(
            {"items": msgspec.Raw(b"[%b]" % items), "cursor": self.cursor, "has_more": self.has_more}
        )


class WantedChanges(BaseModel):
    """Query: which changes are wanted."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cursor: Annotated[
        str | None, Field(max_length=600, description="`cursor` of the answer before. Without it, all rows are told.")
    ] = None
    limit: Annotated[int, Field(ge=1, le=1000, description="The most changes in one answer.")] = 500

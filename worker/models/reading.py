"""Rows that the HTTP API returns, and the queries for them. Amounts are in the currency beside them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any, Generic, TypeVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from worker.models.fleet import AccountRow
from worker.models.vocabulary import TransactionStatus, TransactionType

T = TypeVar("T")


class Wanted(BaseModel):
    """Query: which rows are wanted.

    Attributes:
        cursor: `next_cursor` of the previous slice.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    provider_id: Annotated[UUID | None, Field(description="Only those of this login.")] = None
    account_id: Annotated[UUID | None, Field(description="Only those of this account.")] = None
    cursor: Annotated[str | None, Field(max_length=200, description="`next_cursor` of the answer before.")] = None
    limit: Annotated[int, Field(ge=1, le=500)] = 100


class WantedAccounts(Wanted):
    """Query: which accounts are wanted."""

    closed: Annotated[bool, Field(description="Also those that are no longer listed.")] = False


class WantedDays(Wanted):
    """Query: which rows of which days are wanted."""

    since: Annotated[date | None, Field(description="From this day on.")] = None
    until: Annotated[date | None, Field(description="Up to this day.")] = None


class WantedTransactions(WantedDays):
    """Query: which transactions are wanted. Those that the provider has withdrawn are left out."""

    status: TransactionStatus | None = None
    type: TransactionType | None = None


@dataclass(frozen=True, slots=True)
class Slice(Generic[T]):
    """A part of the result rows.

    Attributes:
        next_cursor: the cursor for the rows after these; None when there are no more.
    """

    items: list[T]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class BalanceRow:
    """What a provider stated of an account. It is valid from `taken_at` until the next row.

    Attributes:
        as_of: the time that the provider gives for the figures; None when it gives none.
    """

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


@dataclass(frozen=True, slots=True)
class BalanceDayRow:
    """The balance that was last stated for a day, in UTC. A day on which nothing was stated has no row."""

    account_id: UUID
    day: date
    currency: str
    current: Decimal | None
    available: Decimal | None
    credit_limit: Decimal | None
    cash: Decimal | None
    market_value: Decimal | None


@dataclass(frozen=True, slots=True)
class HoldingRow:
    """One open position."""

    id: UUID
    account_id: UUID
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


@dataclass(frozen=True, slots=True)
class LiabilityRow:
    """The terms of a card or a loan: amounts that are owed or paid are positive, rates are in percent.

    Attributes:
        details: what only some kinds have; amounts are decimal texts.
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


@dataclass(frozen=True, slots=True)
class MovementRow:
    """One transaction.

    Attributes:
        amount: + is money into the account.
        quantity, price: units and price of the security that `symbol` names.
    """

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
    symbol: str | None
    quantity: Decimal | None
    price: Decimal | None
    fees: Decimal | None


@dataclass(frozen=True, slots=True)
class RunRow:
    """One sync run. The counts are numbers of rows."""

    id: UUID
    provider_id: UUID
    status: str
    trigger: str
    mode: str
    started_at: datetime
    finished_at: datetime | None
    pages: int
    added: int
    changed: int
    unchanged: int
    removed: int
    quarantined: int
    error: str | None
    error_scope: str | None
    error_reason: str | None


AccountSlice = Slice[AccountRow]
BalanceSlice = Slice[BalanceRow]
LiabilitySlice = Slice[LiabilityRow]
BalanceDaySlice = Slice[BalanceDayRow]
HoldingSlice = Slice[HoldingRow]
MovementSlice = Slice[MovementRow]
RunSlice = Slice[RunRow]

"""Normalised records: integrations make them, and tables store them.

Amounts are credit-positive (+ is money into the account), quantities are + for units in, balances are signed from the
owner's side (debts negative). All numbers are finite `Decimal`s parsed from the provider's text; all times carry a
time zone. `…_key` fields are the provider's own ids. Records contain no reference cycles, so the garbage collector
does not track them: a page has hundreds.
"""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from typing import Any

import msgspec

from worker.models.vocabulary import (
    AccountStatus,
    AccountType,
    LiabilityKind,
    SecurityType,
    TransactionStatus,
    TransactionType,
)


class SecurityRecord(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One security.

    Attributes:
        key: identity across providers: `cusip:…` or `isin:…` when known, else `<provider_key>:<provider's id>` (or
            `<provider_key>:<type>:<symbol>` where the provider has no id).
        multiplier: units of the underlying for each contract; 100 for standard options, 1 for everything else.
    """

    key: str
    type: SecurityType
    symbol: str | None = None
    name: str | None = None
    cusip: str | None = None
    isin: str | None = None
    currency: str | None = None
    multiplier: Decimal = Decimal(1)


class AccountRecord(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One account as the provider lists it.

    Attributes:
        account_key: the provider's stable account id; never a full account number.
        mask: last four characters of the account number.
        provider_ref: the id that the provider expects in URL paths when it is not `account_key` (Schwab's hash).
        institution: the provider's id or name of the institution; None if the provider has only one.
        stable_keys: ids of the account that stay the same when its login is linked again although `account_key` does
            not, the surest first. Never an account number, nor a digest of one.
    """

    account_key: str
    name: str
    type: AccountType
    subtype: str
    official_name: str | None = None
    mask: str | None = None
    currency: str = "USD"
    status: AccountStatus = AccountStatus.ACTIVE
    margin: bool = False
    provider_type: str | None = None
    provider_subtype: str | None = None
    provider_ref: str | None = None
    institution: str | None = None
    stable_keys: tuple[str, ...] = ()


class BalanceRecord(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What the provider states of the value of one account.

    Attributes:
        as_of: the time that the provider gives for the figure; None when it gives none.
        source: which of the provider's figures this is, for example `currentBalances.liquidationValue`.
    """

    account_key: str
    current: Decimal | None
    source: str
    available: Decimal | None = None
    credit_limit: Decimal | None = None
    cash: Decimal | None = None
    market_value: Decimal | None = None
    currency: str = "USD"
    as_of: datetime | None = None


class HoldingRecord(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One open position.

    Attributes:
        holding_key: identity within the account (security and side).
        quantity: signed units; options in contracts, short positions negative.
        cost_basis: total paid, in `currency`; None when the provider does not say.
    """

    account_key: str
    holding_key: str
    security: SecurityRecord
    quantity: Decimal
    market_value: Decimal | None = None
    price: Decimal | None = None
    average_price: Decimal | None = None
    cost_basis: Decimal | None = None
    currency: str = "USD"
    as_of: date | None = None


class LiabilityRecord(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The terms of one card or loan. Amounts are what is owed or paid, so they are positive; rates are in percent.

    Attributes:
        liability_key: identity within the account.
        status: state of a loan in the provider's word, in snake case, for example `in_school`.
        interest_rate: annual rate; of a card, that for purchases.
        next_payment_amount: what is due at `next_payment_date`; of a card, its minimum payment.
        principal: what is still owed of the loan itself.
        ends_on: when the loan will have been paid back.
        ytd_interest_paid, ytd_principal_paid: since the beginning of the year.
        details: what only some kinds have, in JSON types, with amounts as decimal texts. It has no number, name or
            address of a person or a property.
    """

    account_key: str
    liability_key: str
    kind: LiabilityKind
    status: str | None = None
    currency: str = "USD"
    interest_rate: Decimal | None = None
    interest_type: str | None = None
    is_overdue: bool | None = None
    past_due_amount: Decimal | None = None
    last_statement_date: date | None = None
    last_statement_balance: Decimal | None = None
    last_payment_date: date | None = None
    last_payment_amount: Decimal | None = None
    next_payment_date: date | None = None
    next_payment_amount: Decimal | None = None
    minimum_payment: Decimal | None = None
    principal: Decimal | None = None
    original_principal: Decimal | None = None
    originated_on: date | None = None
    ends_on: date | None = None
    ytd_interest_paid: Decimal | None = None
    ytd_principal_paid: Decimal | None = None
    details: dict[str, Any] = {}


class TransactionRecord(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One movement of money or units.

    Attributes:
        posted_date: the provider's booking date (while pending: the day on which it occurred).
        occurred_at: when it was initiated; where the provider knows only when it was posted, that time; else None.
        pending_key: `transaction_key` of the pending row that this one replaces.
        fees: the part of `amount` that is fees; positive.
        flags: repairs made while reading, for example `nul_stripped`.
    """

    account_key: str
    transaction_key: str
    type: TransactionType
    status: TransactionStatus
    amount: Decimal
    posted_date: date
    subtype: str | None = None
    currency: str = "USD"
    occurred_at: datetime | None = None
    settlement_date: date | None = None
    description: str | None = None
    counterparty: str | None = None
    category: str | None = None
    security: SecurityRecord | None = None
    quantity: Decimal | None = None
    price: Decimal | None = None
    fees: Decimal | None = None
    pending_key: str | None = None
    provider_type: str | None = None
    flags: tuple[str, ...] = ()


class Reject(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A record that cannot be trusted and will be stored in quarantine.

    Attributes:
        kind: a key of `NOUN_OF_KIND`.
        reason: short stable word.
        payload: the record with secrets and account numbers masked.
    """

    kind: str
    reason: str
    account_key: str | None = None
    record_key: str | None = None
    detail: str | None = None
    payload: dict[str, Any] | None = None


NOUN_OF_KIND = {
    "account": "accounts",
    "balance": "balances",
    "holding": "holdings",
    "liability": "liabilities",
    "page": "pages",
    "security": "securities",
    "transaction": "transactions",
}
"""The noun of each kind of record that can be rejected."""

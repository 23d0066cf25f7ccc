"""Maps Plaid's records to ours, without any HTTP.

Plaid's amounts are positive for money that leaves the account, so all of them are negated. Debts on cards and loans are
positive and are negated, too. A time without an offset is taken as UTC. A transaction's time is the time at which it
was initiated (`authorized_datetime`), or its posting time (`datetime`) if Plaid does not know the first. Plaid counts
options in shares (contracts times 100). It documents this for positions; for investment transactions it documents
nothing, so their quantity is not changed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import date, datetime
from decimal import Decimal

import msgspec

from worker.errors import BadRecord
from worker.integrations.kit import json_text, moments, money, reading
from worker.integrations.kit.base import RawRecord
from worker.integrations.plaid.vocabulary import (
    ACCOUNT_TYPES,
    CATEGORIES,
    CODES,
    INVESTMENT_SUBTYPES,
    INVESTMENT_TYPES,
    SECURITY_TYPES,
    SUBTYPES,
)
from worker.models.records import AccountRecord, BalanceRecord, HoldingRecord, Reject, SecurityRecord, TransactionRecord
from worker.models.vocabulary import AccountType, SecurityType, TransactionStatus, TransactionType

_SHARES_PER_CONTRACT = Decimal(100)
_OWED = (AccountType.CREDIT, AccountType.LOAN)
_NOT_A_WORD = re.compile(r"[^a-z0-9]+")
# A row that has one of these keys twice is rejected. There are only two, because each makes a first load 2 % slower.
_ONCE = ((b'"amount"', 1), (b'"date"', 1))
_INVESTMENT_ONCE = (*_ONCE, (b'"quantity"', 1), (b'"account_id"', 1), (b'"iso_currency_code"', 1))


class _Currency(msgspec.Struct, frozen=True, gc=False):
    iso_currency_code: str | None = None
    unofficial_currency_code: str | None = None


_currency = reading.Reader(_Currency)


class _Balances(_Currency, frozen=True, gc=False):
    available: Decimal | None = None
    current: Decimal | None = None
    limit: Decimal | None = None
    last_updated_datetime: datetime | None = None


_balances = reading.Reader(_Balances)


class _Account(msgspec.Struct, gc=False):
    account_id: str
    type: str
    name: str | None = None
    official_name: str | None = None
    subtype: str | None = None
    mask: str | None = None
    persistent_account_id: str | None = None
    balances: msgspec.Raw = msgspec.Raw(b"{}")


_account = reading.Reader(_Account)


class _Category(msgspec.Struct, gc=False):
    primary: str | None = None
    detailed: str | None = None


class _Transaction(msgspec.Struct, gc=False):
    amount: Decimal
    day: date = msgspec.field(name="date")
    name: str | None = None
    merchant_name: str | None = None
    pending: bool = False
    pending_transaction_id: str | None = None
    iso_currency_code: str | None = None
    unofficial_currency_code: str | None = None
    moment: datetime | None = msgspec.field(name="datetime", default=None)
    authorized_datetime: datetime | None = None
    transaction_code: str | None = None
    personal_finance_category: _Category | None = None


_transaction = reading.Reader(_Transaction)


class _Security(msgspec.Struct, gc=False):
    security_id: str
    type: str | None = None
    name: str | None = None
    ticker_symbol: str | None = None
    cusip: str | None = None
    isin: str | None = None
    iso_currency_code: str | None = None
    unofficial_currency_code: str | None = None
    option_contract: dict[str, object] | None = None


_security = reading.Reader(_Security)


class _Holding(msgspec.Struct, gc=False):
    account_id: str
    security_id: str
    quantity: Decimal
    institution_price: Decimal | None = None
    institution_price_as_of: date | None = None
    institution_value: Decimal | None = None
    cost_basis: Decimal | None = None
    iso_currency_code: str | None = None
    unofficial_currency_code: str | None = None


_holding = reading.Reader(_Holding)


class _InvestmentTransaction(msgspec.Struct, gc=False):
    amount: Decimal
    day: date = msgspec.field(name="date")
    type: str
    subtype: str | None = None
    name: str | None = None
    security_id: str | None = None
    quantity: Decimal | None = None
    price: Decimal | None = None
    fees: Decimal | None = None
    iso_currency_code: str | None = None
    unofficial_currency_code: str | None = None
    transaction_datetime: datetime | None = None


_investment = reading.Reader(_InvestmentTransaction)


Securities = Mapping[str, SecurityRecord]


def account(raw: bytes, institution: str | None = None) -> tuple[AccountRecord, BalanceRecord | Reject]:
    """One account and its balance; a `Reject` if only the balance is wrong. Raises `BadRecord`."""
    given = _account.record(raw)
    record = AccountRecord(
        account_key=given.account_id,
        name=given.name or given.official_name or "Account",
        official_name=given.official_name,
        type=ACCOUNT_TYPES.get(given.type, AccountType.OTHER),
        subtype=subtype(given.subtype),
        mask=given.mask[-4:] if given.mask else None,
        currency=_currency_of(given.balances),
        provider_type=given.type,
        provider_subtype=given.subtype,
        institution=institution,
        stable_keys=(given.persistent_account_id,) if given.persistent_account_id else (),
    )
    try:
        return record, _balance(given.balances, record)
    except BadRecord as error:
        return record, reading.reject("balance", error, raw, account_key=given.account_id)


def _currency_of(balances: msgspec.Raw) -> str:
    given = _currency.record(balances)
    return money.currency(given.iso_currency_code, given.unofficial_currency_code) or "USD"


def _balance(raw: msgspec.Raw, account: AccountRecord) -> BalanceRecord:
    given = _balances.record(raw)
    current = money.checked_or_none(given.current, "current")
    if current is not None and account.type in _OWED:
        current = money.negated(current)
    as_of = given.last_updated_datetime
    return BalanceRecord(
        account_key=account.account_key,
        current=current,
        source="balances.current",
        available=money.checked_or_none(given.available, "available"),
        credit_limit=money.checked_or_none(given.limit, "limit"),
        currency=account.currency,
        as_of=None if as_of is None else moments.in_utc(as_of, "last_updated_datetime"),
    )


def subtype(word: str | None) -> str:
    """Our word for Plaid's subtype: `roth 401k` becomes `roth_401k`."""
    if not word:
        return "other"
    return SUBTYPES.get(word) or _NOT_A_WORD.sub("_", word.lower()).strip("_") or "other"


def transaction(row: RawRecord) -> TransactionRecord:
    """One row of the transactions feed.

    Raises:
        BadRecord: the amount or a date cannot be trusted.
    """
    raw, flags = reading.cleaned(row.raw)
    given = _transaction.record(raw)
    json_text.check_keys_once(raw, *_ONCE)
    amount = money.negated(money.checked(given.amount, "amount"))
    category = given.personal_finance_category
    kind, subtype_ = _kind(given.transaction_code, category, amount)
    occurred_at = None
    if given.moment is not None or given.authorized_datetime is not None:
        # Both times are checked although only one is kept: a row with an impossible time is rejected.
        posted_at, flags = moments.flagged(given.moment, "datetime", flags)
        initiated_at, flags = moments.flagged(given.authorized_datetime, "authorized_datetime", flags)
        occurred_at = initiated_at or posted_at
    return TransactionRecord(
        account_key=row.account_key,
        transaction_key=row.key,
        type=kind,
        subtype=subtype_,
        status=TransactionStatus.PENDING if given.pending else TransactionStatus.POSTED,
        amount=amount,
        currency=money.currency(given.iso_currency_code, given.unofficial_currency_code) or "USD",
        posted_date=moments.day(given.day, "date"),
        occurred_at=occurred_at,
        description=given.name,
        counterparty=given.merchant_name,
        category=category.detailed or category.primary if category is not None else None,
        pending_key=given.pending_transaction_id,
        provider_type=given.transaction_code,
        flags=flags,
    )


def _kind(code: str | None, category: _Category | None, amount: Decimal) -> tuple[TransactionType, str | None]:
    if code is not None and code in CODES:
        return CODES[code]
    if category is None or not (category.primary or category.detailed):
        return TransactionType.OTHER, None
    kind = CATEGORIES.get(category.detailed or "") or CATEGORIES.get(category.primary or "")
    return kind or (TransactionType.PAYMENT, "purchase" if amount <= 0 else "refund")


def security(raw: bytes) -> tuple[str, SecurityRecord]:
    """One security, with Plaid's id for it.

    Raises:
        BadRecord: it has no id.
    """
    given = _security.record(raw)
    kind = SECURITY_TYPES.get(given.type or "", SecurityType.OTHER)
    option = given.option_contract is not None
    key = f"plaid:{given.security_id}"
    if given.cusip:
        key = f"cusip:{given.cusip}"
    elif given.isin:
        key = f"isin:{given.isin}"
    return given.security_id, SecurityRecord(
        key=key,
        type=SecurityType.OPTION if option else kind,
        symbol=given.ticker_symbol,
        name=given.name,
        cusip=given.cusip,
        isin=given.isin,
        currency=money.currency(given.iso_currency_code, given.unofficial_currency_code),
        multiplier=_SHARES_PER_CONTRACT if option else Decimal(1),
    )


def holding(raw: bytes, securities: Securities) -> HoldingRecord:
    """One position.

    Raises:
        BadRecord: a number cannot be trusted, or its security is not in the answer.
    """
    given = _holding.record(raw)
    held = securities.get(given.security_id)
    if held is None:
        raise BadRecord("security_unknown")
    quantity = money.checked(given.quantity, "quantity")
    if held.type is SecurityType.OPTION:
        quantity = quantity.scaleb(-2, money.EXACT)
    as_of = given.institution_price_as_of
    return HoldingRecord(
        account_key=given.account_id,
        holding_key=f"{held.key}:{'long' if quantity >= 0 else 'short'}",
        security=held,
        quantity=quantity,
        market_value=money.checked_or_none(given.institution_value, "institution_value"),
        price=money.checked_or_none(given.institution_price, "institution_price"),
        cost_basis=money.checked_or_none(given.cost_basis, "cost_basis"),
        currency=money.currency(given.iso_currency_code, given.unofficial_currency_code) or "USD",
        as_of=None if as_of is None else moments.day(as_of, "institution_price_as_of"),
    )


def investment_mapper(securities: Securities) -> Callable[[RawRecord], TransactionRecord]:
    """A function that reads an investment transaction with the securities of the same answer."""

    def mapped(row: RawRecord) -> TransactionRecord:
        return _investment_transaction(row, securities)

    return mapped


def _investment_transaction(row: RawRecord, securities: Securities) -> TransactionRecord:
    raw, flags = reading.cleaned(row.raw)
    given = _investment.record(raw)
    json_text.check_keys_once(raw, *_INVESTMENT_ONCE)
    initiated_at, flags = moments.flagged(given.transaction_datetime, "transaction_datetime", flags)
    amount = money.negated(money.checked(given.amount, "amount"))
    quantity = money.checked_or_none(given.quantity, "quantity")
    traded = securities.get(given.security_id) if given.security_id else None
    if given.security_id and traded is None:
        flags = (*flags, "security_unknown")
    kind, subtype_ = _investment_kind(given, quantity)
    fees = money.checked_or_none(given.fees, "fees")
    return TransactionRecord(
        account_key=row.account_key,
        transaction_key=row.key,
        type=kind,
        subtype=subtype_,
        status=TransactionStatus.POSTED,
        amount=amount,
        currency=money.currency(given.iso_currency_code, given.unofficial_currency_code) or "USD",
        posted_date=moments.day(given.day, "date"),
        occurred_at=initiated_at,
        description=given.name,
        security=traded,
        quantity=quantity,
        price=money.checked_or_none(given.price, "price"),
        fees=fees.copy_abs() if fees else None,
        provider_type=f"{given.type}/{given.subtype}" if given.subtype else given.type,
        flags=flags,
    )


def _investment_kind(given: _InvestmentTransaction, quantity: Decimal | None) -> tuple[TransactionType, str | None]:
    if given.type == "cancel":
        return INVESTMENT_TYPES["cancel"]
    kind = INVESTMENT_SUBTYPES.get(given.subtype or "") or INVESTMENT_TYPES.get(given.type)
    if kind is None:
        return TransactionType.OTHER, None
    if kind == (TransactionType.TRANSFER, None) and quantity and given.security_id:
        return TransactionType.TRANSFER, "security_in" if quantity > 0 else "security_out"
    return kind

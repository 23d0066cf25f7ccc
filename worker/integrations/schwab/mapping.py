"""Maps Schwab's records to ours, without any HTTP.

Schwab states neither buy nor sell, nor the total cost of a position, nor a currency. Buy and sell are derived from the
sign of the transferred units and from `positionEffect`, the cost from the average price, and all amounts are in US
dollars. Times without an offset are taken as UTC. The posting date is the UTC day of `tradeDate`, or of `time` if
`tradeDate` is missing.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

import msgspec

from worker.errors import BadRecord
from worker.integrations.kit import json_text, moments, money, reading
from worker.integrations.kit.base import RawRecord
from worker.integrations.kit.masking import last_four
from worker.integrations.schwab.vocabulary import INCOME_WORDS, OPTION_WORDS, SECURITY_TYPES, STATUSES, TYPES
from worker.models.records import AccountRecord, BalanceRecord, HoldingRecord, Reject, SecurityRecord, TransactionRecord
from worker.models.vocabulary import AccountType, SecurityType, TransactionStatus, TransactionType

_OPTION_MULTIPLIER = Decimal(100)
# A row that has one of these keys twice is rejected.
_ONCE = ((b'"netAmount"', 1), (b'"tradeDate"', 1))


class AccountNumber(msgspec.Struct, gc=False, rename="camel"):
    """One element of `accountNumbers`."""

    account_number: str
    hash_value: str


class _Instrument(msgspec.Struct, gc=False, rename="camel"):
    asset_type: str
    symbol: str | None = None
    cusip: str | None = None
    description: str | None = None
    type: str | None = None
    # Units of the underlying per option contract: positions (`AccountOption`) have one of these fields, transactions
    # (`TransactionOption`) the other.
    option_multiplier: Decimal | None = None
    option_premium_multiplier: Decimal | None = None


class _Position(msgspec.Struct, gc=False, rename="camel"):
    instrument: _Instrument
    long_quantity: Decimal = money.ZERO
    short_quantity: Decimal = money.ZERO
    average_price: Decimal | None = None
    market_value: Decimal | None = None


_NOTHING = msgspec.Raw(b"{}")


class _Balances(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    liquidation_value: Decimal | None = None
    account_value: Decimal | None = None
    cash_balance: Decimal | None = None
    total_cash: Decimal | None = None
    available_funds: Decimal | None = None
    cash_available_for_trading: Decimal | None = None
    long_market_value: Decimal | None = None
    short_market_value: Decimal | None = None


class _Aggregated(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    current_liquidation_value: Decimal | None = None


class _SecuritiesAccount(msgspec.Struct, gc=False, rename="camel"):
    account_number: str
    type: str | None = None
    positions: list[msgspec.Raw] = []
    initial_balances: msgspec.Raw = _NOTHING
    current_balances: msgspec.Raw = _NOTHING


class ListedAccount(msgspec.Struct, gc=False, rename="camel"):
    """One element of `accounts`. Its balances are read separately: a wrong number must not reject the account."""

    securities_account: _SecuritiesAccount
    aggregated_balance: msgspec.Raw = _NOTHING


class _TransferItem(msgspec.Struct, gc=False, rename="camel"):
    instrument: _Instrument | None = None
    amount: Decimal | None = None
    cost: Decimal | None = None
    price: Decimal | None = None
    fee_type: str | None = None
    position_effect: str | None = None


class _Transaction(msgspec.Struct, gc=False, rename="camel"):
    net_amount: Decimal
    type: str
    time: datetime | None = None
    trade_date: datetime | None = None
    settlement_date: datetime | None = None
    status: str | None = None
    activity_type: str | None = None
    description: str | None = None
    transfer_items: list[_TransferItem] = []


account_number = reading.Reader(AccountNumber)
account_list = reading.Reader(list[msgspec.Raw])
listed_account = reading.Reader(ListedAccount)
_balances = reading.Reader(_Balances)
_aggregated = reading.Reader(_Aggregated)
_position = reading.Reader(_Position)
_transaction = reading.Reader(_Transaction)


def account(listed: ListedAccount, account_key: str, hash_value: str) -> AccountRecord:
    """One account; `hash_value` identifies it in the API's paths."""
    given = listed.securities_account
    mask = last_four(given.account_number)
    return AccountRecord(
        account_key=account_key,
        name=f"Schwab {mask}",
        type=AccountType.INVESTMENT,
        subtype="brokerage",
        mask=mask,
        margin=given.type == "MARGIN",
        provider_type=given.type,
        provider_ref=hash_value,
    )


def balance(listed: ListedAccount, account_key: str) -> BalanceRecord:
    """The account's value as Schwab states it, from the first of three fields that has one.

    Raises:
        BadRecord: a number is not a possible amount of money.
    """
    given = listed.securities_account
    json_text.check_all_keys_once(balances_text(listed))
    current, initial = _balances.record(given.current_balances), _balances.record(given.initial_balances)
    aggregated = _aggregated.record(listed.aggregated_balance)
    stated = (
        ("aggregatedBalance.currentLiquidationValue", aggregated.current_liquidation_value),
        ("currentBalances.liquidationValue", current.liquidation_value),
        ("initialBalances.accountValue", initial.account_value),
    )
    source, value = next((pair for pair in stated if pair[1] is not None), ("none", None))
    cash = current.cash_balance if current.cash_balance is not None else current.total_cash
    available = current.available_funds
    if available is None:
        available = current.cash_available_for_trading
    positions = [
        money.checked(part, "market_value")
        for part in (current.long_market_value, current.short_market_value)
        if part is not None
    ]
    return BalanceRecord(
        account_key=account_key,
        current=money.checked_or_none(value, "current"),
        source=source,
        available=money.checked_or_none(available, "available"),
        cash=money.checked_or_none(cash, "cash"),
        market_value=money.total(positions) if positions else None,
    )


def balances_text(listed: ListedAccount) -> bytes:
    """The fields that `balance` reads, as JSON."""
    given = listed.securities_account
    return msgspec.json.encode(
        {
            "aggregatedBalance": listed.aggregated_balance,
            "currentBalances": given.current_balances,
            "initialBalances": given.initial_balances,
        }
    )


def holdings(listed: ListedAccount, account_key: str) -> tuple[list[HoldingRecord], list[Reject]]:
    """The account's positions, and the rejects: positions that cannot be read."""
    return reading.read_all(
        listed.securities_account.positions, "holding", lambda raw: _holding(raw, account_key), account_key
    )


def _holding(raw: bytes, account_key: str) -> HoldingRecord:
    position = _position.record(raw)
    long = money.checked(position.long_quantity, "longQuantity")
    short = money.checked(position.short_quantity, "shortQuantity")
    quantity = money.total([long, money.negated(short)])
    security = _security(position.instrument)
    average = money.checked_or_none(position.average_price, "averagePrice")
    # Bonds are usually priced in percent of their face value, but Schwab's documents do not say this clearly. A missing
    # cost is better than one that may be wrong by a factor of one hundred.
    priced = average is not None and security.type is not SecurityType.FIXED_INCOME
    return HoldingRecord(
        account_key=account_key,
        holding_key=f"{security.key}:{'long' if quantity >= 0 else 'short'}",
        security=security,
        quantity=quantity,
        market_value=money.checked_or_none(position.market_value, "marketValue"),
        average_price=average,
        cost_basis=money.product(average, quantity, security.multiplier) if average is not None and priced else None,
    )


def _security(instrument: _Instrument) -> SecurityRecord:
    asset_type = instrument.asset_type
    kind = SECURITY_TYPES.get(asset_type, SecurityType.OTHER)
    if asset_type == "COLLECTIVE_INVESTMENT" and instrument.type == "EXCHANGE_TRADED_FUND":
        kind = SecurityType.ETF
    if not instrument.cusip and not instrument.symbol:
        raise BadRecord("instrument_without_identity")
    multiplier = Decimal(1)
    if kind is SecurityType.OPTION:
        given = instrument.option_multiplier or instrument.option_premium_multiplier
        multiplier = money.checked(given, "optionMultiplier") if given else _OPTION_MULTIPLIER
        if multiplier < 0:
            raise BadRecord("optionMultiplier_negative")
    return SecurityRecord(
        key=f"cusip:{instrument.cusip}" if instrument.cusip else f"schwab:{asset_type.lower()}:{instrument.symbol}",
        type=kind,
        symbol=instrument.symbol,
        name=instrument.description,
        cusip=instrument.cusip,
        currency="USD",
        multiplier=multiplier,
    )


def transaction(row: RawRecord) -> TransactionRecord:
    """One transaction.

    Raises:
        BadRecord: an amount, a date or an instrument cannot be trusted.
    """
    raw, flags = reading.cleaned(row.raw)
    given = _transaction.record(raw)
    json_text.check_keys_once(raw, *_ONCE, (b'"amount"', len(given.transfer_items)))
    amount = money.checked(given.net_amount, "netAmount")
    things, fees = _things_and_fees(given.transfer_items)
    thing = things[0] if len(things) == 1 else None
    kind, subtype = _kind(given, things, amount)
    if len(things) > 1:
        flags = (*flags, "several_instruments")
    status = STATUSES.get(given.status or "")
    if status is None:
        status, flags = TransactionStatus.POSTED, (*flags, "status_unknown")
    if given.type not in TYPES:
        flags = (*flags, "type_unknown")
    moment = given.time or given.trade_date
    booked = given.trade_date or given.time
    if moment is None or booked is None:
        raise BadRecord("time_missing")
    booked = moments.in_utc(booked, "tradeDate")
    occurred_at, flags = moments.flagged(moment, "time", flags)
    settled = given.settlement_date
    return TransactionRecord(
        account_key=row.account_key,
        transaction_key=row.key,
        type=kind,
        subtype=subtype,
        status=status,
        amount=amount,
        posted_date=booked.date(),
        occurred_at=occurred_at,
        settlement_date=None if settled is None else moments.in_utc(settled, "settlementDate").date(),
        description=given.description,
        security=_security(thing.instrument) if thing is not None and thing.instrument is not None else None,
        quantity=None if thing is None else money.checked_or_none(thing.amount, "amount"),
        price=None if thing is None else money.checked_or_none(thing.price, "price"),
        fees=fees,
        provider_type=given.type,
        flags=flags,
    )


def _things_and_fees(items: list[_TransferItem]) -> tuple[list[_TransferItem], Decimal | None]:
    """Everything transferred except money, and the sum of all fees as a positive number (a fee's sign varies)."""
    things: list[_TransferItem] = []
    fees: list[Decimal] = []
    for item in items:
        if item.fee_type is not None:
            fee = item.cost or item.amount
            if fee is not None:
                fees.append(money.checked(fee, "fee").copy_abs())
        elif item.instrument is not None and item.instrument.asset_type != "CURRENCY" and item.amount:
            things.append(item)
    return things, money.total(fees) if fees else None


def _kind(given: _Transaction, things: list[_TransferItem], amount: Decimal) -> tuple[TransactionType, str | None]:
    if given.activity_type == "ACTIVITY_CORRECTION":
        return TransactionType.ADJUSTMENT, "correction"
    words = (given.description or "").upper()
    if given.type in ("TRADE", "RECEIVE_AND_DELIVER"):
        return _units_moved(given.type, words, things)
    if given.type == "DIVIDEND_OR_INTEREST":
        return _income(given, words)
    if given.type == "ELECTRONIC_FUND":
        return TransactionType.TRANSFER, "deposit" if amount > 0 else "withdrawal"
    return TYPES.get(given.type, (TransactionType.OTHER, None))


def _units_moved(kind: str, words: str, things: list[_TransferItem]) -> tuple[TransactionType, str | None]:
    normalised = TYPES[kind][0]
    if len(things) != 1:
        return normalised, None
    thing = things[0]
    if thing.instrument is not None and thing.instrument.asset_type == "OPTION":
        for word, subtype in OPTION_WORDS:
            if word in words:
                return TransactionType.TRADE, subtype
    received = thing.amount is not None and thing.amount > 0
    if kind == "RECEIVE_AND_DELIVER":
        return normalised, "security_in" if received else "security_out"
    if received:
        return normalised, "buy_to_cover" if thing.position_effect == "CLOSING" else "buy"
    return normalised, "short_sell" if thing.position_effect == "OPENING" else "sell"


def _income(given: _Transaction, words: str) -> tuple[TransactionType, str | None]:
    for word, kind, subtype in INCOME_WORDS:
        if word in words:
            return kind, subtype
    payers = {item.instrument.asset_type for item in given.transfer_items if item.instrument is not None}
    if payers & {"EQUITY", "MUTUAL_FUND", "COLLECTIVE_INVESTMENT"}:
        return TransactionType.INCOME, "dividend"
    return TransactionType.INCOME, "interest" if "FIXED_INCOME" in payers else None

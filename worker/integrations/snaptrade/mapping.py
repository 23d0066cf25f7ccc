"""Maps SnapTrade's records to ours, without any HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from decimal import Decimal

import msgspec

from worker.errors import BadRecord, ReauthRequired, Scope
from worker.integrations.kit import account_names, holdings, json_text, moments, money, reading
from worker.integrations.kit.base import Page, RawRecord
from worker.integrations.kit.masking import last_four
from worker.integrations.snaptrade import vocabulary as words
from worker.models.records import AccountRecord, BalanceRecord, HoldingRecord, SecurityRecord, TransactionRecord
from worker.models.vocabulary import AccountStatus, SecurityType, TransactionStatus, TransactionType


class _Connection(msgspec.Struct, gc=False):
    id: str
    disabled: bool | None = None


class _Synced(msgspec.Struct, gc=False):
    initial_sync_completed: bool | None = None
    last_successful_sync: str | None = None
    holdings_unavailable: bool | None = None


class _Money(msgspec.Struct, gc=False):
    amount: Decimal | None = None
    currency: str | None = None


class Account(msgspec.Struct, gc=False):
    """An account. Its value is read separately, because a wrong number must not reject the account."""

    id: str
    connection: str = msgspec.field(name="brokerage_authorization")
    number: str
    name: str | None = None
    institution_account_id: str | None = None
    institution_name: str | None = None
    created_date: str | None = None
    sync_status: dict[str, _Synced] = {}
    balance: msgspec.Raw = msgspec.Raw(b"{}")
    status: str | None = None
    raw_type: str | None = None
    account_category: str | None = None
    is_paper: bool = False

    def synced(self, part: str) -> _Synced:
        """How far SnapTrade has read the account's `transactions` or `holdings`."""
        return self.sync_status.get(part, _Synced())

    @property
    def pulled(self) -> str:
        """When SnapTrade last asked the brokerage: as long as this stays the same, there is no new activity."""
        return f"{self.synced('transactions').last_successful_sync}/{self.synced('holdings').last_successful_sync}"

    @property
    def covered(self) -> date | None:
        """The last day of which SnapTrade has all activities; None if it does not say."""
        told = moments.of_text(self.synced("transactions").last_successful_sync, "last_successful_sync")
        return told.date() if told else None


class _Coded(msgspec.Struct, gc=False):
    code: str | None = None


class Cash(msgspec.Struct, gc=False):
    """The money of one currency in an account."""

    currency: _Coded
    cash: Decimal | None = None
    buying_power: Decimal | None = None


class _Thing(msgspec.Struct, gc=False):
    """An instrument of a position, or a symbol of an activity; options of activities have `ticker` as their symbol."""

    id: str
    symbol: str = ""
    ticker: str = ""
    kind: str | None = None
    type: _Coded | None = None
    description: str | None = None
    currency: str | _Coded | None = None
    multiplier: Decimal | None = None
    is_mini_option: bool | None = None


class _Position(msgspec.Struct, gc=False):
    instrument: _Thing
    units: Decimal
    price: Decimal | None = None
    cost_basis: Decimal | None = None
    currency: str | None = None
    cash_equivalent: bool | None = None


class _Activity(msgspec.Struct, gc=False):
    type: str
    symbol: _Thing | None = None
    option_symbol: _Thing | None = None
    currency: _Coded | None = None
    currency_universal_symbol: _Thing | None = None
    price: Decimal | None = None
    units: Decimal | None = None
    amount: Decimal | None = None
    option_type: str | None = None
    description: str | None = None
    trade_date: str | None = None
    settlement_date: str | None = None
    fee: Decimal | None = None


Listed = tuple[Account, AccountRecord]
records, _connection = reading.Reader(list[msgspec.Raw]), reading.Reader(_Connection)
_account, _value = reading.Reader(Account), reading.Reader(dict[str, _Money | None])
_cash, _position, _activity = reading.Reader(Cash), reading.Reader(_Position), reading.Reader(_Activity)


def listing(connections: bytes, accounts: bytes) -> tuple[Page, list[Listed]]:
    """A page with the accounts, and those of them that can be read now. The page's problems say why others cannot.

    What SnapTrade says of a connection that no longer works comes from its store, so it is not asked for.
    """
    known, _ = reading.read_each(records.page(connections), "connection", _connection.record)
    broken = {one.id for one in known if one.disabled}
    read, rejects = reading.read_each(records.page(accounts), "account", _listed)
    # An account may be in two connections, for example in a broken one and in the one that replaces it.
    worst_first = sorted(read, key=lambda one: (one[0].connection not in broken, one[0].created_date or "", one[0].id))
    best = {_identity(record): given for given, record in worst_first}
    listed = [(given, record) for given, record in read if best[_identity(record)] is given]
    lost = [given.id for given, _ in listed if given.connection in broken]
    page = Page(rejects=rejects, accounts_complete=bool(read) and not rejects)
    page.accounts = [record for _, record in listed]
    page.problems = [ReauthRequired(words.DISABLED, scope=Scope.ACCOUNT, account_key=key) for key in lost]
    return page, [one for one in listed if one[0].id not in lost and one[1].status is not AccountStatus.INACCESSIBLE]


def _identity(record: AccountRecord) -> object:
    """What an account is in all connections that list it."""
    return (record.institution, record.stable_keys) if record.stable_keys else record.account_key


def _listed(raw: bytes) -> Listed:
    """One account, as given and as ours."""
    given = _account.record(raw)
    names = account_names.names(given.name, given.institution_name, otherwise=given.id)
    kind, subtype = words.CATEGORIES.get(given.account_category or "", words.INVESTMENT)
    value, own_id = _value.record_or(given.balance, {}).get("total") or _Money(), given.institution_account_id
    return given, AccountRecord(
        account_key=given.id,
        name=names.name,
        official_name=names.official,
        type=kind,
        subtype="paper" if given.is_paper else subtype,
        mask=account_names.mask(given.number),
        currency=money.currency(value.currency) or money.NO_CURRENCY,
        status=words.STATUSES.get(given.status or "", AccountStatus.ACTIVE),
        margin="margin" in (given.raw_type or "").lower(),
        provider_type=given.account_category,
        provider_subtype=given.raw_type,
        institution=names.institution,
        # An id that ends like the account number may be the number itself.
        stable_keys=(own_id,) if own_id and not own_id.endswith(last_four(given.number)) else (),
    )


def balance(given: Account, cash: Sequence[Cash]) -> BalanceRecord:
    """The account's value as stated; its cash only where all of it is in one currency."""
    json_text.check_all_keys_once(bytes(given.balance))
    value = _value.record(given.balance).get("total") or _Money()
    single = cash[0] if len(cash) == 1 else Cash(_Coded())
    return BalanceRecord(
        account_key=given.id,
        current=money.checked_or_none(value.amount, "balance"),
        source="balance.total",
        available=money.checked_or_none(single.buying_power, "buying_power"),
        cash=money.checked_or_none(single.cash, "cash"),
        currency=money.currency(value.currency or single.currency.code) or money.NO_CURRENCY,
        as_of=moments.of_text(given.synced("holdings").last_successful_sync, "last_successful_sync"),
    )


def cash(raw: bytes) -> Cash:
    """The money of one currency."""
    given = _cash.record(raw)
    money.currency_or_address(given.currency.code or "")
    money.checked_or_none(given.cash, "cash")
    return given


def holding(raw: bytes, key: str, currency: str) -> HoldingRecord:
    """One position. Its price and its cost are stated for one unit; those of an option, for one share.

    What is counted as cash as well gets the type of cash, whose positions are a part of the stated cash.
    """
    given = _position.record(raw)
    own = money.currency(given.currency) or currency
    security = _security(given.instrument, "cash" if given.cash_equivalent else given.instrument.kind, own)
    return holdings.of_units(key, security, given.units, price=given.price, cost=given.cost_basis, currency=own)


def _security(thing: _Thing, kind: str | None, currency: str | None) -> SecurityRecord:
    kind = kind or (thing.type.code if thing.type else None)
    type_ = SecurityType.CASH if kind == "cash" else words.SECURITY_TYPES.get(kind or "", SecurityType.OTHER)
    symbol, own = thing.ticker or thing.symbol, thing.currency
    is_option = type_ is SecurityType.OPTION
    # The OCC symbol is the same everywhere. One fund may be cash in one account and not in another.
    key = f"option:{symbol}" if is_option else f"cash:{thing.id}" if type_ is SecurityType.CASH else thing.id
    if not (symbol if is_option else thing.id):
        raise BadRecord("instrument_without_identity")
    usual = Decimal(10 if thing.is_mini_option else 100 if is_option else 1)
    return SecurityRecord(
        key=f"snaptrade:{key}",
        type=type_,
        symbol=symbol,
        name=thing.description,
        currency=money.currency(own.code if isinstance(own, _Coded) else own) or currency,
        multiplier=money.positive(usual if thing.multiplier is None else thing.multiplier, "multiplier"),
    )


def transaction(row: RawRecord, *, currency: str) -> TransactionRecord:
    """One activity. `currency` is the account's, for activities that state none.

    Raises:
        BadRecord: an amount, a date or an instrument cannot be trusted.
    """
    given, flags = _activity.row(row)
    kind, subtype = words.TYPES.get(given.type, (TransactionType.OTHER, None))
    flags = flags if given.type in words.TYPES else (*flags, "type_unknown")
    occurred = moments.of_text(given.trade_date, "trade_date")
    settled = moments.of_text(given.settlement_date, "settlement_date")
    if (booked := occurred or settled) is None:
        raise BadRecord("trade_date_missing")
    quote, thing = given.currency_universal_symbol, given.option_symbol or given.symbol
    own = money.currency(given.currency.code if given.currency else None, quote.symbol if quote else None)
    flags = flags if own else (*flags, "currency_of_account")
    security = None if thing is None else _security(thing, "option" if given.option_symbol else None, None)
    amount, flags = _amount(given, kind, security, flags)
    return TransactionRecord(
        account_key=row.account_key,
        transaction_key=row.key,
        type=kind,
        subtype=given.option_type.lower() if given.option_type else subtype,
        status=TransactionStatus.POSTED,
        amount=amount,
        currency=own or currency,
        posted_date=booked.date(),
        occurred_at=occurred,
        settlement_date=settled.date() if settled else None,
        description=given.description,
        security=security,
        quantity=None if kind in words.NO_UNITS else money.checked_or_none(given.units, "units"),
        price=money.checked_or_none(given.price, "price"),
        fees=None if given.fee is None else money.checked(given.fee, "fee").copy_abs(),
        provider_type=given.type,
        flags=flags,
    )


def _amount(
    given: _Activity, kind: TransactionType, security: SecurityRecord | None, flags: tuple[str, ...]
) -> tuple[Decimal, tuple[str, ...]]:
    """The money that moved. A trade without an amount has that of its units and price, and says so by a flag."""
    units, price, fee = given.units, given.price, given.fee
    if given.amount is not None:
        return money.checked(given.amount, "amount"), flags
    if given.type in ("BUY", "SELL") and units is not None and price is not None and security is not None:
        paid = money.product(money.checked(units, "units"), money.checked(price, "price"), security.multiplier)
        paid = money.total([paid, money.checked(fee or money.ZERO, "fee").copy_abs()])
        return money.negated(paid), (*flags, "amount_computed")
    if units and given.type not in ("BUY", "SELL") and (kind in words.MAYBE_NO_MONEY or kind is TransactionType.TRADE):
        return money.ZERO, flags
    raise BadRecord("amount_missing")

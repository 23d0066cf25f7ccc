"""Turns SimpleFIN's answers into ours, without any HTTP."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from decimal import Decimal
from functools import partial

import msgspec

from worker.errors import ProviderError, Scope
from worker.integrations.kit import account_keys, figures, moments, money, pending_rows, reading
from worker.integrations.kit.account_names import names
from worker.integrations.kit.base import Page, RawRecord, SyncRequest
from worker.integrations.kit.taxonomy import classify, of_accounts
from worker.integrations.kit.together import Days, Told
from worker.integrations.kit.words import first_within
from worker.integrations.simplefin.vocabulary import ACCOUNT_WORDS, CAPPED, HARMLESS, NOTICES
from worker.models.records import AccountRecord, BalanceRecord, HoldingRecord, SecurityRecord, TransactionRecord
from worker.models.vocabulary import AccountType, SecurityType, TransactionStatus, TransactionType

ACCOUNTS_FEED = "accounts"
_MASK = re.compile(r"(?<!\d)(\d{4})\W*$")


class _Notice(msgspec.Struct, gc=False):
    code: str = ""
    msg: str | None = None
    message: str | None = None  # in an example of the protocol
    conn_id: str | None = None
    account_id: str | None = None

    @property
    def text(self) -> str:
        return self.msg or self.message or ""

    def speaks_of(self, one: Account) -> bool:
        if not self.code:
            return bool(one.org.name) and str(one.org.name) in self.text
        fits = (self.conn_id or one.conn_id) == one.conn_id and (self.account_id or one.id) == one.id
        return fits and bool(self.conn_id or self.account_id)


class _Bank(msgspec.Struct, gc=False):
    """A connection; in version 1, an account's `org`."""

    conn_id: str | None = None
    domain: str | None = None
    name: str | None = None


class AccountSet(msgspec.Struct, gc=False):
    """An answer of either version; its accounts are not read yet."""

    accounts: list[msgspec.Raw]
    errors: list[str] | None = None
    errlist: list[_Notice] | None = None
    connections: list[_Bank] | None = None

    @property
    def notices(self) -> list[_Notice]:
        """The errors that mean something; `errlist` repeats those of `errors`."""
        told = self.errlist or [_Notice(msg=text) for text in self.errors or ()]
        return [notice for notice in told if HARMLESS not in notice.text.lower()]


class Account(msgspec.Struct, gc=False):
    """An account. Its balance is read separately, because a wrong number must not reject the account."""

    id: str
    name: str
    currency: str
    conn_id: str | None = None
    org: _Bank = msgspec.field(default_factory=_Bank)
    transactions: list[msgspec.Raw] | None = None
    holdings: list[msgspec.Raw] | None = None

    @property
    def identity(self) -> tuple[str, str]:
        """Its id, and within what this is unique: the connection, or in version 1 the institution."""
        return self.id, self.conn_id or self.org.domain or self.org.name or ""


class _Balance(msgspec.Struct, gc=False, rename="kebab"):
    balance: Decimal
    available_balance: Decimal | None = None
    balance_date: Decimal | None = None


class _Holding(msgspec.Struct, gc=False):
    id: str
    shares: Decimal
    currency: str | None = None
    symbol: str | None = None
    description: str | None = None
    market_value: Decimal | None = None
    cost_basis: Decimal | None = None
    purchase_price: Decimal | None = None


class _Transaction(msgspec.Struct, gc=False):
    amount: Decimal
    posted: Decimal | None = None
    description: str | None = None
    payee: str | None = None
    memo: str | None = None
    transacted_at: Decimal | None = None
    pending: bool | None = None


account_set, _account = reading.Reader(AccountSet), reading.Reader(Account)
_balance, _holding, _transaction = reading.Reader(_Balance), reading.Reader(_Holding), reading.Reader(_Transaction)


def told(request: SyncRequest, answer: AccountSet, window: Days, known: dict[str, Account], *, lists: bool) -> Told:
    """What an answer says, whether it lists all accounts or has those of `known` that are behind."""
    page = listing(request, answer, known) if lists else None
    read, _ = reading.read_each(answer.accounts, "account", _account.record)
    rows = {one.identity: one.transactions or () for one in read}
    pages = {key: _history(request, key, one, rows[one.identity]) for key, one in known.items() if one.identity in rows}
    was_cut = any(CAPPED in notice.text.lower() for notice in answer.notices)
    return Told(window=window, listing=page, pages=pages, problems=_problems(answer, known), was_cut=was_cut)


def listing(request: SyncRequest, answer: AccountSet, known: dict[str, Account]) -> Page:
    """A page with accounts, balances and positions; the accounts are put into `known`, by key."""
    banks = {bank.conn_id: bank.name for bank in answer.connections or ()}
    read, rejects = reading.read_each(answer.accounts, "account", lambda raw: (_account.record(raw), raw))
    page, found = account_keys.listing(
        read,
        lambda one: one[0].identity,
        lambda one, key: _account_record(one[0], key, banks.get(one[0].conn_id, one[0].org.name)),
        lambda one: one[1],
        feed=ACCOUNTS_FEED,
        cursor=request.cursors.get(ACCOUNTS_FEED),
    )
    page.accounts_complete = page.accounts_complete and not rejects and not answer.notices
    page.rejects = [*rejects, *page.rejects]
    for (given, raw), account in found:
        known[account.account_key] = given
        figures.add_balance(page, account.account_key, raw, partial(_balance_record, account))
        if given.holdings is not None:
            figures.add_holdings(page, account.account_key, given.holdings, partial(_holding_record, account))
    return page


def _problems(answer: AccountSet, known: Mapping[str, Account]) -> Iterator[ProviderError]:
    """What the answer's errors mean, each for the accounts that it speaks of.

    Raises:
        ReauthRequired: the whole access URL was refused.
    """
    for notice in answer.notices:
        error = classify(NOTICES, status=200, code=notice.code, text=notice.text)
        if notice.code == "gen.auth":
            raise error
        spoken_of = [key for key, one in known.items() if notice.speaks_of(one)]
        yield from of_accounts(error, spoken_of if error.scope is Scope.INSTITUTION else ())


def _account_record(given: Account, key: str, bank: str | None) -> AccountRecord:
    name, official, _ = names(given.name, bank, otherwise=given.id)
    usual = AccountType.INVESTMENT if given.holdings else AccountType.OTHER
    type_, subtype = first_within(name.lower(), ACCOUNT_WORDS, otherwise=(usual, "other"))
    mask = _MASK.search(name)
    return AccountRecord(
        account_key=key,
        name=name,
        official_name=official,
        type=type_,
        subtype=subtype,
        mask=mask[1] if mask else None,
        currency=money.currency_or_address(given.currency),
    )


def _balance_record(account: AccountRecord, raw: bytes) -> BalanceRecord:
    given = _balance.record(raw)
    return BalanceRecord(
        account_key=account.account_key,
        current=money.checked(given.balance, "balance"),
        available=money.checked_or_none(given.available_balance, "available-balance"),
        source="balance",
        currency=account.currency,
        as_of=moments.of_seconds(given.balance_date, "balance-date"),
    )


def _holding_record(account: AccountRecord, raw: bytes) -> HoldingRecord:
    """One position. The protocol does not define them; the Bridge and others send them."""
    given = _holding.record(raw)
    own = money.currency_or_address(given.currency) if given.currency else account.currency
    return HoldingRecord(
        account_key=account.account_key,
        holding_key=given.id,
        security=SecurityRecord(
            key=f"simplefin:other:{given.symbol}" if given.symbol else f"simplefin:holding:{given.id}",
            type=SecurityType.OTHER,
            symbol=given.symbol or None,
            name=given.description or None,
            currency=own,
        ),
        quantity=money.checked(given.shares, "shares"),
        market_value=money.checked_or_none(given.market_value, "market_value"),
        average_price=money.checked_or_none(given.purchase_price, "purchase_price"),
        cost_basis=money.checked_or_none(given.cost_basis, "cost_basis"),
        currency=own,
    )


def _history(request: SyncRequest, key: str, given: Account, rows: Sequence[msgspec.Raw]) -> Page:
    """A page with an account's transactions, not yet read. A pending one without an id is recognised by its content."""
    found = pending_rows.split(rows, key, _is_pending)
    mapped = partial(_mapped, currency=money.currency_or_address(given.currency), today=request.now.date())
    return Page(transactions=found.rows, rejects=found.rejects, map_transaction=mapped)


def _is_pending(raw: msgspec.Raw) -> bool:
    given = _transaction.record(raw)
    return bool(given.pending) or not given.posted


def _mapped(row: RawRecord, *, currency: str, today: date) -> TransactionRecord:
    """One transaction. `today` is the day of a pending one for which the server states none."""
    given, flags = _transaction.row(row)
    posted = moments.of_seconds(given.posted, "posted")
    occurred = moments.of_seconds(given.transacted_at, "transacted_at")
    booked = posted or occurred
    return TransactionRecord(
        account_key=row.account_key,
        transaction_key=row.key,
        type=TransactionType.OTHER,
        status=TransactionStatus.PENDING if given.pending or posted is None else TransactionStatus.POSTED,
        amount=money.checked(given.amount, "amount"),
        currency=currency,
        posted_date=booked.date() if booked else today,
        occurred_at=occurred or posted,
        description=given.description or given.memo,
        counterparty=given.payee,
        flags=flags,
    )

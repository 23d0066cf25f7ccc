"""Turns SimpleFIN's answers into ours, without any HTTP."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import date
from decimal import Decimal
from functools import partial

import msgspec

from worker.errors import BadRecord, ProviderError, RateLimited, Scope
from worker.integrations.kit import account_keys, moments, money, reading
from worker.integrations.kit.base import Page, RawRecord, SyncRequest
from worker.integrations.kit.masking import without_numbers
from worker.integrations.kit.taxonomy import classify
from worker.integrations.simplefin.vocabulary import ACCOUNT_WORDS, CAPPED, CODES, HARMLESS, NOTICES, SLOWER
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


class _Connection(msgspec.Struct, gc=False):
    conn_id: str
    name: str | None = None


class AccountSet(msgspec.Struct, gc=False):
    """An answer of either version; its accounts are not read yet."""

    accounts: list[msgspec.Raw]
    errors: list[str] | None = None
    errlist: list[_Notice] | None = None
    connections: list[_Connection] | None = None

    def notices(self) -> list[_Notice]:
        """The errors that mean something; `errlist` repeats those of `errors`."""
        told = self.errlist or [_Notice(msg=text) for text in self.errors or ()]
        return [notice for notice in told if HARMLESS not in notice.text.lower()]

    def was_capped(self) -> bool:
        """Whether the server has left out days."""
        return any(CAPPED in notice.text.lower() for notice in self.notices())


class _Org(msgspec.Struct, gc=False):
    domain: str | None = None
    name: str | None = None


class Account(msgspec.Struct, gc=False):
    """An account. Its balance is read separately, because a wrong number must not reject the account."""

    id: str
    name: str
    currency: str
    conn_id: str | None = None
    org: _Org = msgspec.field(default_factory=_Org)
    transactions: list[msgspec.Raw] | None = None
    holdings: list[msgspec.Raw] | None = None

    @property
    def place(self) -> str:
        """Within what the id is unique: the connection, or in version 1 the institution."""
        return self.conn_id or self.org.domain or self.org.name or ""


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
    id: str | None = None
    description: str | None = None
    payee: str | None = None
    memo: str | None = None
    transacted_at: Decimal | None = None
    pending: bool | None = None


account_set, _account = reading.Reader(AccountSet), reading.Reader(Account)
_balance, _holding, _transaction = reading.Reader(_Balance), reading.Reader(_Holding), reading.Reader(_Transaction)


def problems(answer: AccountSet, accounts: dict[str, Account]) -> Iterator[ProviderError]:
    """What the answer's errors mean, each for the accounts (by key) that it speaks of.

    Raises:
        ReauthRequired: the whole access URL was refused.
    """
    for notice in answer.notices():
        code = notice.code
        code = code if code in CODES else code.partition(".")[0] + "." * bool(code)
        error = classify(NOTICES, status=200, code=code, text=notice.text)
        if code == "gen.auth":
            raise error
        if isinstance(error, RateLimited):  # what came is stored, and then the login waits
            yield RateLimited(error.reason, scope=Scope.PROVIDER, retry_after=SLOWER)
            continue
        error.scope = Scope.INSTITUTION
        keys = [key for key, one in accounts.items() if _speaks_of(notice, one)]
        yield from [type(error)(error.reason, scope=Scope.ACCOUNT, account_key=key) for key in keys] or [error]


def _speaks_of(notice: _Notice, one: Account) -> bool:
    if not notice.code:
        return bool(one.org.name) and str(one.org.name) in notice.text
    fits = (notice.conn_id or one.conn_id) == one.conn_id and (notice.account_id or one.id) == one.id
    return fits and bool(notice.conn_id or notice.account_id)


def listing(request: SyncRequest, answer: AccountSet, accounts: dict[str, Account]) -> Page:
    """A page with accounts, balances and positions; the accounts are put into `accounts`, by key."""
    names = {connection.conn_id: connection.name for connection in answer.connections or ()}
    read, rejects = reading.read_each(answer.accounts, "account", lambda raw: (_account.record(raw), raw))
    page, found = account_keys.listing(
        read,
        lambda one: (one[0].id, one[0].place),
        lambda one, key: _account_record(one[0], key, names.get(one[0].conn_id or "", one[0].org.name)),
        lambda one: one[1],
        feed=ACCOUNTS_FEED,
        cursor=request.cursors.get(ACCOUNTS_FEED),
    )
    page.accounts_complete = page.accounts_complete and not rejects and not answer.notices()
    page.rejects = [*rejects, *page.rejects]
    for (given, raw), account in found:
        accounts[account.account_key] = given
        _add_figures(page, account, given, raw)
    return page


def _account_record(given: Account, key: str, institution: str | None) -> AccountRecord:
    """One account. Long numbers in its name are shortened."""
    name = without_numbers(reading.without_nul(given.name))
    guesses = ((kind, subtype) for word, kind, subtype in ACCOUNT_WORDS if word in name.lower())
    kind, subtype = next(guesses, (AccountType.INVESTMENT if given.holdings else AccountType.OTHER, "other"))
    mask = _MASK.search(name)
    return AccountRecord(
        account_key=key,
        name=name,
        official_name=f"{reading.without_nul(institution or '')} {name}".strip(),
        type=kind,
        subtype=subtype,
        mask=mask[1] if mask else None,
        currency=money.currency_or_address(given.currency),
    )


def _add_figures(page: Page, account: AccountRecord, given: Account, raw: bytes) -> None:
    key, own, positions = account.account_key, account.currency, given.holdings or []
    stated = partial(_balance_record, key=key, currency=own)
    balances, bad = reading.read_each([msgspec.Raw(raw)], "balance", stated, key)
    held, worse = reading.read_all(positions, "holding", partial(_holding_record, key=key, currency=own), key)
    page.balances, page.holdings = [*page.balances, *balances], [*page.holdings, *reading.distinct(held)]
    page.rejects = [*page.rejects, *bad, *worse]
    if given.holdings is not None and not worse:
        page.holdings_complete_for |= {key}


def _balance_record(raw: bytes, key: str, currency: str) -> BalanceRecord:
    given = _balance.record(raw)
    return BalanceRecord(
        account_key=key,
        current=money.checked(given.balance, "balance"),
        available=money.checked_or_none(given.available_balance, "available-balance"),
        source="balance",
        currency=currency,
        as_of=moments.of_seconds(given.balance_date, "balance-date"),
    )


def _holding_record(raw: bytes, key: str, currency: str) -> HoldingRecord:
    """One position. The protocol does not define them; the Bridge and others send them."""
    given = _holding.record(raw)
    own = money.currency_or_address(given.currency) if given.currency else currency
    return HoldingRecord(
        account_key=key,
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


def histories(request: SyncRequest, answer: AccountSet, accounts: Mapping[str, Account]) -> Iterator[tuple[str, Page]]:
    """A page with the transactions, not yet read, of each account that is known, by its key."""
    keys = {(one.id, one.place): key for key, one in accounts.items()}
    for one in reading.read_each(answer.accounts, "account", _account.record)[0]:
        if (key := keys.get((one.id, one.place))) is not None:
            found, currency = _split(one, key), money.currency_or_address(accounts[key].currency)
            mapped = partial(_mapped, currency=currency, today=request.now.date())
            yield key, Page(transactions=found.rows, rejects=found.rejects, map_transaction=mapped)


def _split(given: Account, key: str) -> reading.Split:
    """An account's transactions. A pending one without an id is recognised by its content."""
    seen: Counter[str] = Counter()

    def key_of(raw: msgspec.Raw) -> tuple[str, str]:
        row = _transaction.record(raw)
        if not row.id and row.posted and not row.pending:  # a posted row without an id could never be withdrawn
            raise BadRecord("id_missing")
        return row.id or reading.fingerprint(raw, seen, without="account"), key

    return reading.split(given.transactions or (), key_of)


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

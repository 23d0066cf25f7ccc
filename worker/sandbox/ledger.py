"""The books of one login: accounts, holdings, transactions, and all changes in order.

All amounts are Decimals: positive is money into the account, and a balance is negative for a debt. Each profile changes
the signs to those of its provider when it renders them. A balance is always `opening + Σ transactions` (+ the market
value of the holdings), whatever was changed.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from typing import Literal

from worker.sandbox.wire import cents

ZERO = Decimal("0.00")
Status = Literal["pending", "posted"]
Operation = Literal["add", "modify", "remove", "repeat", "verbatim"]


@dataclass(slots=True, eq=False)
class Security:
    """One security. `multiplier` is 100 for options: the price is per share, and the quantity counts contracts."""

    id: str
    symbol: str
    name: str
    kind: str
    price: Decimal
    cusip: str | None = None
    isin: str | None = None
    multiplier: int = 1
    underlying: str | None = None
    strike: Decimal | None = None
    expires: date | None = None
    right: Literal["call", "put"] | None = None


@dataclass(slots=True, eq=False)
class Holding:
    """A position; for a short position the quantity is negative."""

    security: Security
    quantity: Decimal
    average_price: Decimal

    @property
    def market_value(self) -> Decimal:
        """What the position is worth at the last price; negative when short."""
        return cents(self.quantity * self.security.price * self.security.multiplier)

    @property
    def cost_basis(self) -> Decimal:
        """What was paid for the whole position."""
        return cents(self.quantity * self.average_price * self.security.multiplier)


@dataclass(slots=True, eq=False)
class Transaction:
    """One transaction. Only trades and income from a security have `security`, `quantity`, `price` and `fees`."""

    id: str
    account: Account
    amount: Decimal
    moment: datetime
    status: Status
    kind: str
    description: str
    subtype: str = ""
    merchant: str | None = None
    replaces: str | None = None
    security: Security | None = None
    quantity: Decimal = ZERO
    price: Decimal = ZERO
    fees: Decimal = ZERO
    correction: bool = False
    rendered: bytes | None = None
    added_at: int = 0
    changed_at: int = 0
    removed: bool = False

    @property
    def date(self) -> date:
        """The posting date."""
        return self.moment.date()


@dataclass(slots=True, eq=False)
class Account:
    """One account; `type` and `subtype` are words of our vocabulary, `provider_*` are the provider's words."""

    id: str
    number: str
    name: str
    type: str
    subtype: str
    provider_type: str
    provider_subtype: str
    opening: Decimal
    limit: Decimal | None = None
    currency: str = "USD"
    posted_sum: Decimal = ZERO
    pending_sum: Decimal = ZERO
    closed: bool = False
    holdings: dict[str, Holding] = field(default_factory=dict)
    by_time: list[Transaction] = field(default_factory=list)
    removed: list[Transaction] = field(default_factory=list)
    verbatim: list[bytes] = field(default_factory=list)
    verbatim_holdings: list[bytes] = field(default_factory=list)

    def between(self, first: datetime, last: datetime) -> list[Transaction]:
        """The rows from `first` to `last`, including both, oldest first."""
        start = bisect.bisect_left(self.by_time, first, key=_moment)
        return self.by_time[start : bisect.bisect_right(self.by_time, last, lo=start, key=_moment)]

    @property
    def mask(self) -> str:
        """The last four digits of the number."""
        return self.number[-4:]

    @property
    def cash(self) -> Decimal:
        """The posted money that is not in positions."""
        return self.opening + self.posted_sum

    @property
    def market_value(self) -> Decimal:
        """What the position is worth at the last price; negative when short."""
        return sum((holding.market_value for holding in self.holdings.values()), ZERO)

    @property
    def current(self) -> Decimal:
        """The posted balance, including holdings; negative for debts."""
        return self.cash + self.market_value


@dataclass(slots=True, eq=False)
class Change:
    """One entry of the change log. `raw` is set for a verbatim record; only `id` for the removal of an unknown row."""

    operation: Operation
    account: str
    id: str
    transaction: Transaction | None = None
    raw: bytes = b""


def _moment(transaction: Transaction) -> datetime:
    return transaction.moment


class Ledger:
    """The books of one login."""

    def __init__(self, accounts: Iterable[Account]) -> None:
        self.accounts: dict[str, Account] = {account.id: account for account in accounts}
        self.transactions: dict[str, Transaction] = {}
        self.changes: list[Change] = []
        self.verbatim_accounts: list[bytes] = []
        self._serial = 0

    @property
    def head(self) -> int:
        """Position of the newest change; the change log only grows."""
        return len(self.changes)

    def open_accounts(self) -> list[Account]:
        """The accounts that the provider lists."""
        return [account for account in self.accounts.values() if not account.closed]

    def serial(self) -> int:
        """The next number for a made-up id."""
        self._serial += 1
        return self._serial

    def load(self, transactions: Iterable[Transaction]) -> None:
        """Adds a whole history, oldest first. It sorts once per account, which is faster than adding row by row."""
        for transaction in sorted(transactions, key=_moment):
            self._enter(transaction)
            transaction.account.by_time.append(transaction)
        for account in self.accounts.values():
            account.by_time.sort(key=_moment)

    def give_new_ids(self, new: Callable[[str], str]) -> None:
        """Gives all accounts and transactions new ids, as some providers do when a login is linked again."""
        for account in self.accounts.values():
            account.id = new(account.id)
            for row in (*account.by_time, *account.removed):
                row.id = new(row.id)
                row.replaces = row.replaces and new(row.replaces)
                row.rendered = None
        self.accounts = {account.id: account for account in self.accounts.values()}
        self.transactions = {row.id: row for row in self.transactions.values()}
        for change in self.changes:
            change.account, change.id = new(change.account), change.id and new(change.id)

    def add(self, transaction: Transaction) -> None:
        """Adds a row. Raises ValueError if its id already exists."""
        if transaction.id in self.transactions:
            raise ValueError(f"transaction {transaction.id} is already in the books")
        self._enter(transaction)
        bisect.insort(transaction.account.by_time, transaction, key=_moment)

    def modify(
        self,
        transaction: Transaction,
        *,
        amount: Decimal | None = None,
        description: str | None = None,
        moment: datetime | None = None,
        status: Status | None = None,
    ) -> None:
        """Changes the given fields of a transaction; its id stays the same."""
        self._count(transaction, -1)
        if amount is not None:
            transaction.amount = amount
        if description is not None:
            transaction.description = description
        if status is not None:
            transaction.status = status
        self._count(transaction, 1)
        if moment is not None:
            self._take_out(transaction)
            transaction.moment = moment
            bisect.insort(transaction.account.by_time, transaction, key=_moment)
        transaction.rendered = None
        self._log("modify", transaction)

    def remove(self, transaction: Transaction) -> None:
        """Removes a row from the books; the change log records the removal."""
        del self.transactions[transaction.id]
        self._count(transaction, -1)
        self._take_out(transaction)
        transaction.account.removed.append(transaction)
        transaction.removed = True
        self._log("remove", transaction)

    def post(self, pending: Transaction, posted: Transaction, *, removal_first: bool) -> None:
        """Replaces a pending transaction by the posted one; `removal_first` gives the order of the two changes."""
        posted.replaces = pending.id
        if removal_first:
            self.remove(pending)
            self.add(posted)
        else:
            self.add(posted)
            self.remove(pending)

    def repeat(self, transaction: Transaction) -> None:
        """Lists a transaction again unchanged, as providers sometimes do."""
        self.changes.append(Change("repeat", transaction.account.id, transaction.id, transaction))

    def insert_verbatim(self, account: Account, record: bytes) -> None:
        """Sends `record` unchanged among the account's transactions; it is not a part of the books."""
        account.verbatim.append(record)
        self.changes.append(Change("verbatim", account.id, "", raw=record))

    def announce_removal(self, account: str, transaction_id: str) -> None:
        """Lists the removal of a transaction that never existed."""
        self.changes.append(Change("remove", account, transaction_id))

    def trade(self, account: Account, security: Security, quantity: Decimal, price: Decimal) -> None:
        """Changes a position by `quantity`; a position that reaches zero is removed."""
        holding = account.holdings.get(security.id)
        if holding is None:
            account.holdings[security.id] = Holding(security, quantity, price)
            return
        total = holding.quantity + quantity
        if not total:
            del account.holdings[security.id]
            return
        if quantity * holding.quantity > 0:
            holding.average_price = cents((holding.average_price * holding.quantity + price * quantity) / total)
        holding.quantity = total

    def _enter(self, transaction: Transaction) -> None:
        self.transactions[transaction.id] = transaction
        self._count(transaction, 1)
        self._log("add", transaction)
        transaction.added_at = transaction.changed_at

    def _count(self, transaction: Transaction, direction: int) -> None:
        account = transaction.account
        if transaction.status == "pending":
            account.pending_sum += direction * transaction.amount
        else:
            account.posted_sum += direction * transaction.amount

    def _log(self, operation: Operation, transaction: Transaction) -> None:
        self.changes.append(Change(operation, transaction.account.id, transaction.id, transaction))
        transaction.changed_at = len(self.changes)

    def _take_out(self, transaction: Transaction) -> None:
        rows = transaction.account.by_time
        index = bisect.bisect_left(rows, transaction.moment, key=_moment)
        while rows[index] is not transaction:
            index += 1
        del rows[index]

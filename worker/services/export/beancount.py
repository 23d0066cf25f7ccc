"""A ledger for Beancount 3, which `bean-check` accepts.

Posted transactions become entries; pending ones are left out, because stated balances do not contain them. What the
transactions do not explain is an opening balance, and each account ends with an assertion of the balance that its
institution states. Shares are booked at their price (`@@`), without lots: institutions do not say which lot is sold.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from datetime import date, timedelta
from decimal import Decimal
from typing import Any, TextIO
from uuid import UUID

from worker.services.export.beancount_names import Accounts, Commodities, quoted
from worker.services.export.books import Books

NOUNS = ("accounts", "transactions", "holdings", "holding_days")
"""What a ledger is made of. It has the newest balance of each account and not the earlier ones."""

_HEAD = 'option "title" "Dashtam"\noption "inferred_tolerance_default" "*:0.000001"\n'
_OPENING = "Equity:Opening-Balances"
_DAY = timedelta(days=1)
_BEGINNING = date(1970, 1, 1)
_ZERO = Decimal(0)
_CASH = "cash"


def write(books: Books, file: TextIO) -> None:
    """Writes the ledger. The order of entries in it has no meaning to Beancount."""
    file.write(_HEAD)
    ledger = _Ledger(file, books.first_days())
    for row in books.rows("accounts"):
        ledger.open(row)
    for row in books.rows("transactions"):
        ledger.enter(row)
    for row in books.rows("holdings"):
        ledger.hold(row)
    for row in books.rows("holding_days"):
        ledger.price(row)
    ledger.close()


class _Ledger:
    def __init__(self, file: TextIO, first_days: Mapping[UUID, date]) -> None:
        self._file = file
        self._first_days = first_days
        self._accounts = Accounts()
        self._commodities = Commodities()
        self._rows: dict[UUID, Any] = {}
        self._cash: defaultdict[UUID, Decimal] = defaultdict(Decimal)
        self._listed_cash: defaultdict[UUID, Decimal] = defaultdict(Decimal)
        self._last_days: dict[UUID, date] = {}
        self._units: defaultdict[tuple[UUID, str], Decimal] = defaultdict(Decimal)
        self._held: defaultdict[tuple[UUID, str], Decimal] = defaultdict(Decimal)

    def open(self, row: Any) -> None:
        """Opens an account on the day before its first entry."""
        self._rows[row.account_id] = row
        self._commodities.reserve(row.currency)
        name = self._accounts.own(row)
        self._file.write(f'\n{self._begins(row.account_id)} open {name} "NONE"\n')
        self._file.write(f"  id: {quoted(str(row.account_id))}\n  institution: {quoted(row.institution)}\n")

    def enter(self, row: Any) -> None:
        """Writes one posted transaction."""
        if row.status != "posted":
            return
        self._last_days[row.account_id] = max(row.posted_date, self._last_days.get(row.account_id, row.posted_date))
        if row.currency == self._rows[row.account_id].currency:
            self._cash[row.account_id] += row.amount
        payee = f"{quoted(row.counterparty)} " if row.counterparty else ""
        self._file.write(f"\n{row.posted_date} * {payee}{quoted(row.description or row.type)}\n")
        self._file.write(f"  id: {quoted(str(row.transaction_id))}\n")
        for posting in self._postings(row):
            self._file.write(f"  {posting}\n")

    def hold(self, row: Any) -> None:
        """Notes a position, so that `close` can state it. Some institutions list the cash of an account as one."""
        if row.security_type == _CASH:
            if row.currency == self._rows[row.account_id].currency:
                self._listed_cash[row.account_id] += row.quantity if row.market_value is None else row.market_value
            return
        self._held[row.account_id, self._commodities.name(row)] += row.quantity

    def price(self, row: Any) -> None:
        """Writes the price of a security on one day."""
        if row.price is not None and (commodity := self._commodities.known(row.security_id)):
            self._file.write(f"{row.day} price {commodity} {_plain(row.price)} {row.currency}\n")

    def close(self) -> None:
        """Writes opening balances, the stated balances at the end, and the names of accounts and commodities."""
        for account_id, row in self._rows.items():
            figure = self._stated(row)
            if figure is not None:
                self._state(account_id, figure, self._cash[account_id], row.currency, price="")
        for (account_id, commodity), units in {**dict.fromkeys(self._units, _ZERO), **self._held}.items():
            currency = self._rows[account_id].currency
            self._state(account_id, units, self._units[account_id, commodity], commodity, price=f" @@ 0 {currency}")
        self._file.write("\n")
        for name in self._accounts.others():
            self._file.write(f"{_BEGINNING} open {name}\n")
        for name, told in self._commodities.all():
            self._file.write(f"{_BEGINNING} commodity {name}\n  name: {quoted(told)}\n")

    def _stated(self, row: Any) -> Decimal | None:
        """The money in an account, without the value of its positions."""
        if row.type not in ("investment", "crypto"):
            return row.current  # type: ignore[no-any-return]
        return self._listed_cash.get(row.account_id) if row.cash is None else row.cash

    def _state(self, account_id: UUID, stated: Decimal, explained: Decimal, commodity: str, *, price: str) -> None:
        """The opening balance that is missing, and the assertion of what is stated."""
        name, begins = self._accounts.name(account_id), self._begins(account_id)
        if missing := stated - explained:
            self._file.write(f'\n{begins} * "Opening balance"\n  {name}  {_plain(missing)} {commodity}{price}\n')
            if not price:
                self._file.write(f"  {self._accounts.other(_OPENING)}  {_plain(-missing)} {commodity}\n")
        ends = max(filter(None, (self._taken(account_id), self._last_days.get(account_id), begins))) + _DAY
        self._file.write(f"\n{ends} balance {name}  {_plain(stated)} {commodity}\n")

    def _begins(self, account_id: UUID) -> date:
        first = self._first_days.get(account_id) or self._taken(account_id)
        return first - _DAY if first else _BEGINNING

    def _taken(self, account_id: UUID) -> date | None:
        taken_at = self._rows[account_id].balance_taken_at
        return None if taken_at is None else taken_at.date()

    def _postings(self, row: Any) -> list[str]:
        own, currency = self._accounts.name(row.account_id), row.currency
        cash = [f"{own}  {_plain(row.amount)} {currency}"] if row.amount else []
        units = row.quantity if row.security_type not in (None, _CASH) and row.quantity else None
        if units is None:
            other = self._accounts.counterpart(row)
            return [*cash, f"{other}  {_plain(-row.amount)} {currency}"] if cash else [f"{own}  0 {currency}"]
        commodity = self._commodities.name(row)
        self._units[row.account_id, commodity] += units
        fees = row.fees or _ZERO
        cost = -row.amount - fees
        if cost and (cost > 0) == (units > 0):
            traded = [f"{own}  {_plain(units)} {commodity} @@ {_plain(abs(cost))} {currency}"]
            paid = [f"{self._accounts.other('Expenses:Fees')}  {_plain(fees)} {currency}"] if fees else []
            return [*traded, *cash, *paid]
        # Units that came or went without their price in the amount: a split, a transfer in kind, a dividend in shares.
        moved = [f"{own}  {_plain(units)} {commodity} @@ 0 {currency}"]
        return (
            [*moved, *cash, f"{self._accounts.counterpart(row)}  {_plain(-row.amount)} {currency}"] if cash else moved
        )


def _plain(number: Decimal) -> str:
    """A decimal without an exponent."""
    return f"{number:f}"

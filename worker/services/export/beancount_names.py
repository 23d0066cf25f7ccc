"""Names that Beancount accepts for our accounts, categories and securities; no two things get the same name."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import Any
from uuid import UUID

_DEBTS = ("credit", "loan")
_COUNTERPARTS = {
    "transfer": "Equity:Transfers",
    "fee": "Expenses:Fees",
    "tax": "Expenses:Taxes",
    "adjustment": "Equity:Adjustments",
    "corporate_action": "Equity:Adjustments",
    "trade": "Equity:Adjustments",
}


def quoted(told: str) -> str:
    """A string of Beancount on one line."""
    return '"' + " ".join(told.split()).replace("\\", "\\\\").replace('"', '\\"') + '"'


class Accounts:
    """Names of accounts: our own, and those on the other side of an entry."""

    def __init__(self) -> None:
        self._own: dict[UUID, str] = {}
        self._others: set[str] = set()

    def own(self, row: Any) -> str:
        """Gives an account of ours its name, for example `Assets:Schwab:Brokerage-1234`."""
        root = "Liabilities" if row.type in _DEBTS else "Assets"
        last = f"{row.name} {row.mask}" if row.mask and row.mask not in row.name else row.name
        name = f"{root}:{_component(row.institution)}:{_component(last)}"
        if name in self._own.values():
            name = f"{name}-{row.account_id.hex[-8:]}"
        self._own[row.account_id] = name
        return name

    def name(self, account_id: UUID) -> str:
        """The name of an account of ours."""
        return self._own[account_id]

    def counterpart(self, row: Any) -> str:
        """The account on the other side of a transaction, by its type and category."""
        if row.type in _COUNTERPARTS:
            return self.other(_COUNTERPARTS[row.type])
        if row.type in ("income", "reinvestment"):
            return self.other(f"Income:{_component(row.subtype or 'Other')}")
        category = _component(row.category or "Uncategorised")
        is_income = row.amount > 0 and (row.category is None or category.startswith("Income"))  # else it is a refund
        return self.other(f"{'Income' if is_income else 'Expenses'}:{category}")

    def other(self, name: str) -> str:
        """Remembers an account that is not ours, so that it is opened."""
        self._others.add(name)
        return name

    def others(self) -> Iterator[str]:
        """The accounts that are not ours."""
        return iter(sorted(self._others))


class Commodities:
    """Names of securities."""

    def __init__(self) -> None:
        self._names: dict[UUID, str] = {}
        self._told: dict[str, str] = {}
        self._currencies: set[str] = set()

    def reserve(self, currency: str) -> None:
        """Keeps the name of a currency from being given to a security."""
        self._currencies.add(currency)

    def name(self, row: Any) -> str:
        """The name of the security of a transaction or position: its symbol, as far as Beancount accepts it."""
        found = self._names.get(row.security_id)
        if found is None:
            found = self._new_name(row.symbol or "", row.security_id)
            self._names[row.security_id] = found
            self._told[found] = getattr(row, "security_name", None) or row.symbol or str(row.security_id)
        return found

    def _new_name(self, symbol: str, security_id: UUID) -> str:
        name = re.sub(r"[^A-Z0-9.]+", "-", _ascii(symbol).upper()).strip("-.")
        if re.fullmatch(r"[A-Z][A-Z0-9.-]{1,19}", name) and name not in self._told and name not in self._currencies:
            return name
        return "-".join(filter(None, ("S", name[:8].strip("-."), security_id.hex[-8:].upper())))

    def known(self, security_id: UUID) -> str | None:
        """The name of a security that was named before."""
        return self._names.get(security_id)

    def all(self) -> Iterator[tuple[str, str]]:
        """Names, and what they stand for."""
        return iter(sorted(self._told.items()))


def _component(told: str) -> str:
    """A part of an account's name: letters, digits and hyphens, with a capital or digit first."""
    words = re.findall(r"[A-Za-z0-9]+", _ascii(told))
    name = "-".join(word.capitalize() if word.isupper() or word.islower() else word for word in words)
    return name[:1].upper() + name[1:] if name else "Other"


def _ascii(told: str) -> str:
    return unicodedata.normalize("NFKD", told).encode("ascii", "ignore").decode()

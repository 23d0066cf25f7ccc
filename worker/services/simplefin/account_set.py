"""SimpleFIN's words for our rows: accounts, holdings, transactions, connections and errors, for versions 1 and 2.

Members that the protocol calls optional are always written, because common libraries stop without them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from worker.models.simplefin import ConnectionRow, SharedAccount, SharedHolding, SharedTransaction
from worker.models.vocabulary import ProviderStatus, RunStatus
from worker.services.simplefin import currencies
from worker.services.simplefin.wishes import seconds


@dataclass(frozen=True, slots=True)
class Trouble:
    """One entry of `errlist`; version 1 has its text alone.

    Attributes:
        code: of the protocol: `gen.api`, `con.auth`, `act.failed`, …
    """

    code: str
    text: str
    connection_id: UUID | None = None
    account_id: str | None = None

    def entry(self) -> dict[str, str]:
        """The entry of version 2."""
        ids = {"conn_id": self.connection_id, "account_id": self.account_id}
        return {"code": self.code, "msg": self.text} | {name: str(id_) for name, id_ in ids.items() if id_ is not None}


@dataclass(frozen=True, slots=True)
class Connection:
    """A login with the names under which apps show it.

    Attributes:
        name: the alias; with the integration's name if another login of the user has the same alias.
        domain: of the institution or aggregator.
    """

    row: ConnectionRow
    name: str
    domain: str

    def organisation(self, root: str) -> dict[str, str]:
        """`org` of version 1."""
        return {"domain": self.domain, "name": self.name, "sfin-url": root, "id": self.row.provider_key}

    def entry(self, root: str) -> dict[str, str]:
        """The entry of version 2."""
        return {
            "conn_id": str(self.row.id),
            "name": self.name,
            "org_id": self.row.provider_key,
            "org_name": self.name,
            "org_url": f"https://{self.domain}",
            "sfin_url": root,
        }

    def trouble(self) -> Trouble | None:
        """Why its accounts may not be up to date."""
        if self.row.status == ProviderStatus.NEEDS_REAUTH:
            # Apps look for exactly this text, and show it at the accounts of this organisation.
            return Trouble("con.auth", f"Connection to {self.name} may need attention", self.row.id)
        if self.row.status == ProviderStatus.PAUSED:
            return Trouble("con.", f"{self.name} is paused on this server. {self._as_of()}", self.row.id)
        if self.row.last_run == RunStatus.FAILED:
            return Trouble("con.", f"The last sync of {self.name} failed. {self._as_of()}", self.row.id)
        if self.row.last_run == RunStatus.PARTIAL:
            return Trouble("con.", f"The last sync of {self.name} was not complete. {self._as_of()}", self.row.id)
        if self.row.synced_at is None:
            return Trouble("con.", f"{self.name} has not been synced yet.", self.row.id)
        return None

    def _as_of(self) -> str:
        synced_at = self.row.synced_at
        return "It has not been synced yet." if synced_at is None else f"It was last synced on {synced_at:%Y-%m-%d}."


def account_names(accounts: Iterable[SharedAccount]) -> dict[UUID, str]:
    """A name for each account that no other one of the same login has."""
    names = {one.id: _with_mask(one) for one in accounts}
    connections = {one.id: one.connection_id for one in accounts}
    counts = Counter((connections[id_], name) for id_, name in names.items())
    return {
        id_: name if counts[connections[id_], name] == 1 else f"{name} {id_.hex[-4:]}" for id_, name in names.items()
    }


def _with_mask(account: SharedAccount) -> str:
    mask = account.mask
    return f"{account.name} ({mask})" if mask and mask not in account.name else account.name


def account(
    row: SharedAccount,
    name: str,
    connection: Connection,
    holdings: Sequence[SharedHolding],
    *,
    version: int,
    root: str,
) -> dict[str, Any]:
    """An account without its transactions. Its balance must be known.

    Args:
        row: the account.
        name: see `account_names`.
        connection: its login.
        holdings: its open positions.
        version: of the protocol.
        root: the address below which apps ask.
    """
    balance, balance_at = row.balance, row.balance_at
    if balance is None or balance_at is None:
        raise ValueError("an account without a balance cannot be written")
    available = balance if row.available is None else row.available
    stated = currencies.amount(balance, row.currency)
    belongs: dict[str, Any] = (
        {"conn_id": str(row.connection_id)} if version > 1 else {"org": connection.organisation(root)}
    )
    extra = {"type": row.type, "subtype": row.subtype} | _exact("balance", balance, stated)
    return belongs | {
        "id": str(row.id),
        "name": name,
        "currency": currencies.written(row.currency, root),
        "balance": stated,
        "available-balance": currencies.amount(available, row.currency),
        "balance-date": _epoch(balance_at),
        "holdings": [_holding(one, balance_at, root) for one in holdings],
        "extra": extra,
    }


def _holding(row: SharedHolding, balance_at: datetime, root: str) -> dict[str, Any]:
    return {
        "id": str(row.id),
        "created": _epoch(balance_at) if row.as_of is None else seconds(row.as_of),
        "currency": currencies.written(row.currency, root),
        "cost_basis": currencies.plain(row.cost_basis),
        "description": row.name or row.symbol or "",
        "market_value": currencies.plain(row.market_value),
        "purchase_price": currencies.plain(row.average_price),
        "shares": currencies.plain(row.quantity),
        "symbol": row.symbol or "",
    }


def transaction(row: SharedTransaction, *, is_pending: bool) -> dict[str, Any]:
    """A transaction. A pending one has `posted` 0, and the same id when it has posted."""
    day = seconds(row.posted_date)
    stated = currencies.amount(row.amount, row.currency)
    extra = ({"category": row.category} if row.category else {}) | _exact("amount", row.amount, stated)
    pending = {"pending": True} if is_pending else {}
    return {
        "id": str(row.id),
        "posted": 0 if is_pending else day,
        "amount": stated,
        "description": row.description or row.counterparty or row.type.replace("_", " "),
        "payee": row.counterparty or row.description or "",
        "memo": "",
        "transacted_at": day if row.occurred_at is None else _epoch(row.occurred_at),
        **pending,
        **({"extra": extra} if extra else {}),
    }


def _exact(name: str, value: Any, stated: str) -> dict[str, str]:
    """The exact figure, if `stated` had to be rounded to the decimals of the currency."""
    return {} if value == type(value)(stated) else {name: f"{value:f}"}


def _epoch(moment: datetime) -> int:
    return int(moment.timestamp())

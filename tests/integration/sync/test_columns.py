"""Every column of every table that a page fills, read back by its name with a value that no other column has."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from sqlalchemy import text

from tests.integration.sync.conftest import Linked
from tests.integration.sync.test_pages import NOW, Applying
from worker.integrations.kit.base import Page, RawRecord
from worker.models.records import (
    AccountRecord,
    BalanceRecord,
    HoldingRecord,
    LiabilityRecord,
    SecurityRecord,
    TransactionRecord,
)
from worker.models.vocabulary import (
    AccountStatus,
    AccountType,
    LiabilityKind,
    SecurityType,
    TransactionStatus,
    TransactionType,
)

LATER = datetime(2025, 3, 15, 12, tzinfo=UTC)
"""The day after `NOW`: balances get a second snapshot."""

UNSTORABLE = "\0"
"""No text column of Postgres takes it: a page that has it is applied a second time, row by row."""


def words(table: str, version: int, *names: str) -> dict[str, str]:
    return {name: f"{table} {name} {version}" for name in names}


def numbers(start: int, version: int, *names: str) -> dict[str, Decimal]:
    return {name: Decimal(start + place) + Decimal(version) / 10 for place, name in enumerate(names)}


def account(version: int) -> dict[str, Any]:
    names = ("name", "subtype", "official_name", "mask", "currency", "provider_type", "provider_subtype")
    return {
        **words("account", version, *names, "provider_ref", "institution"),
        "stable_keys": (f"stable {version}", f"fuzzy {version}"),
        "type": [AccountType.DEPOSITORY, AccountType.CREDIT][version],
        "status": [AccountStatus.CLOSED, AccountStatus.ACTIVE][version],
        "margin": [True, False][version],
    }


def balance(version: int) -> dict[str, Any]:
    return {
        **words("balance", version, "source", "currency"),
        **numbers(100, version, "current", "available", "credit_limit", "cash", "market_value"),
        "as_of": datetime(2025, 2, 1 + version, 7, tzinfo=UTC),
    }


def security(version: int) -> dict[str, Any]:
    return {
        **words("security", version, "symbol", "name", "cusip", "isin", "currency"),
        "type": [SecurityType.EQUITY, SecurityType.OPTION][version],
        "multiplier": Decimal(90 + version),
    }


def holding(version: int) -> dict[str, Any]:
    return {
        **words("holding", version, "currency"),
        **numbers(200, version, "quantity", "market_value", "price", "average_price", "cost_basis"),
        "as_of": date(2025, 2, 3 + version),
    }


def liability(version: int) -> dict[str, Any]:
    figures = ("interest_rate", "past_due_amount", "last_statement_balance", "last_payment_amount", "minimum_payment")
    more = ("next_payment_amount", "principal", "original_principal", "ytd_interest_paid", "ytd_principal_paid")
    days = ("last_statement_date", "last_payment_date", "next_payment_date", "originated_on", "ends_on")
    return {
        **words("liability", version, "status", "currency", "interest_type"),
        **numbers(400, version, *figures, *more),
        **{name: date(2025, 4 + place, 1 + version) for place, name in enumerate(days)},
        "kind": [LiabilityKind.CREDIT, LiabilityKind.STUDENT][version],
        "is_overdue": [True, False][version],
        "details": {"pslf": {"payments_made": version}, "aprs": [{"percentage": "12.50"}]},
    }


def transaction(version: int) -> dict[str, Any]:
    names = ("subtype", "currency", "description", "counterparty", "category", "pending_key", "provider_type")
    return {
        **words("transaction", version, *names),
        **numbers(300, version, "amount", "quantity", "price", "fees"),
        "type": [TransactionType.TRANSFER, TransactionType.TRADE][version],
        "status": [TransactionStatus.POSTED, TransactionStatus.CANCELED][version],
        "posted_date": date(2025, 1, 3 + version),
        "settlement_date": date(2025, 1, 5 + version),
        "occurred_at": datetime(2025, 1, 1 + version, 8, tzinfo=UTC),
        "flags": (f"flag {version}", f"other flag {version}"),
    }


def page(version: int, *, with_unstorable: bool) -> Page:
    """One record of every table; where asked, one more of each that no table takes."""
    bought = SecurityRecord(key="security key", **security(version))
    accounts = [AccountRecord(account_key="account key", **account(version))]
    balances = [BalanceRecord(account_key="account key", **balance(version))]
    holdings = [
        HoldingRecord(account_key="account key", holding_key="holding key", security=bought, **holding(version)),
    ]
    owed = [LiabilityRecord(account_key="account key", liability_key="liability key", **liability(version))]
    named: dict[str, Any] = {"account_key": "account key", "security": bought}
    movements = {
        "transaction key": TransactionRecord(transaction_key="transaction key", **named, **transaction(version))
    }
    if with_unstorable:
        accounts.append(msgspec.structs.replace(accounts[0], account_key="account 2", name=UNSTORABLE))
        balances.append(msgspec.structs.replace(balances[0], account_key="other account", currency=UNSTORABLE))
        odd = msgspec.structs.replace(bought, key="security 2", symbol=UNSTORABLE)
        holdings.append(msgspec.structs.replace(holdings[0], holding_key="holding 2", currency=UNSTORABLE))
        holdings.append(msgspec.structs.replace(holdings[0], holding_key="holding 3", security=odd))
        owed.append(msgspec.structs.replace(owed[0], liability_key="liability 2", status=UNSTORABLE))
        movements["transaction 2"] = msgspec.structs.replace(
            movements["transaction key"], transaction_key="transaction 2", description=UNSTORABLE, pending_key=None
        )
    return Page(
        accounts=accounts,
        balances=balances,
        holdings=holdings,
        liabilities=owed,
        transactions=[RawRecord(key, "account key", f"{key} {version}".encode()) for key in movements],
        map_transaction=lambda raw: movements[raw.key],
    )


class Stored:
    """Rows by the names of their columns."""

    def __init__(self, linked: Linked) -> None:
        self.linked = linked

    def __call__(self, table: str, where: str = "true", **parameters: Any) -> dict[str, Any]:
        """The one row of the table that `where` describes."""
        with self.linked.runtime.transaction() as session:
            statement = text(f"SELECT * FROM {table} WHERE {where}")  # noqa: S608 - the test's own words
            return dict(session.execute(statement, parameters).mappings().one())


@pytest.mark.deep
@pytest.mark.parametrize("with_unstorable", [False, True], ids=["as a whole", "row by row"])
@pytest.mark.parametrize("version", [0, 1], ids=["a new row", "a changed row"])
def test_each_column_has_its_own_value(linked: Linked, version: int, with_unstorable: bool) -> None:
    apply = Applying(linked)
    apply.list_accounts("other account")
    for stored_version in range(version + 1):
        is_last = stored_version == version
        now = [NOW, LATER][stored_version]
        apply(page(stored_version, with_unstorable=is_last and with_unstorable), now=now)
    now = [NOW, LATER][version]
    stored, run_id = Stored(linked), apply.run.id

    row = stored("accounts", "provider_account_id = 'account key'")
    account_id = row["id"]
    expected = {"provider_account_id": "account key", "provider_id": linked.provider_id, "run_id": run_id}
    listed = account(version) | {"stable_keys": list(account(version)["stable_keys"])}
    check(row, expected | listed, beside={"opening", "opening_from", "created_at"})

    row = stored("balances", "account_id = :id AND taken_at = :now", id=account_id, now=now)
    check(row, {"account_id": account_id, "run_id": run_id, "taken_at": now} | balance(version))

    day = stored("balance_days", "account_id = :id AND day = :day", id=account_id, day=balance(version)["as_of"].date())
    figures = {name: value for name, value in balance(version).items() if name not in ("as_of", "source")}
    assert day == {"account_id": account_id, "day": balance(version)["as_of"].date()} | figures

    row = stored("securities")
    security_id = row["id"]
    check(row, {"key": "security key", "source": "model"} | security(version))

    row = stored("holdings", "holding_key = 'holding key'")
    expected = {"holding_key": "holding key", "account_id": account_id, "security_id": security_id, "run_id": run_id}
    check(row, expected | {"closed_at": None} | holding(version), beside={"opening_quantity"})

    day = stored("holding_days", "day = :day", day=now.date())
    figures = {name: holding(version)[name] for name in ("quantity", "market_value", "price")}
    assert day == {"holding_id": row["id"], "day": now.date()} | figures

    row = stored("liabilities")
    expected = {"liability_key": "liability key", "account_id": account_id, "run_id": run_id}
    check(row, expected | {"closed_at": None} | liability(version))

    row = stored("transactions")
    expected = {"provider_transaction_id": "transaction key", "account_id": account_id, "security_id": security_id}
    moved = transaction(version)
    moved["flags"] = list(moved["flags"])
    check(row, expected | {"run_id": run_id, "loop_id": None} | moved)

    refused = linked.rows("SELECT count(*) FROM quarantine WHERE resolved_at IS NULL")
    assert refused == [(7 if with_unstorable else 0,)]


def check(row: dict[str, Any], expected: dict[str, Any], *, beside: Iterable[str] = ()) -> None:
    """Every column is as expected, and no two are expected to be alike; `beside` are those that no page fills."""
    told_apart = [repr(value) for value in expected.values() if not isinstance(value, bool) and value is not None]
    assert len(set(told_apart)) == len(told_apart)
    assert row.keys() == expected.keys() | {"id", "content_hash", *beside}
    assert len(row["content_hash"]) == 16
    assert {name: row[name] for name in expected} == expected

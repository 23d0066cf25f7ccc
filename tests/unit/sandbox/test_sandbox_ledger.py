"""The books stay consistent whatever changes, and repeat with the seed."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import msgspec
import pytest
import time_machine

from tests.unit.sandbox.asking import PROFILES
from worker.sandbox.books import login_books, mutate
from worker.sandbox.core import LoginSpec, Sandbox
from worker.sandbox.wire import cents, encode

pytestmark = pytest.mark.unit


def books(sandbox: Sandbox, login: str) -> dict[str, Any]:
    return login_books(sandbox.logins[login])


def change(sandbox: Sandbox, login: str, *mutations: dict[str, Any]) -> list[str]:
    return mutate(sandbox.logins[login], encode(mutations))


@pytest.mark.deep
@pytest.mark.parametrize("login", ["schwab-1", "plaid-1"])
def test_same_seed_and_day_give_the_same_books_after_the_same_steps(sandbox: Sandbox, login: str) -> None:
    other = Sandbox(1, PROFILES, {"schwab": 2, "plaid": 2}, {})
    sandbox.advance(3)
    other.advance(3)
    assert books(sandbox, login) == books(other, login)


@pytest.mark.deep
def test_books_do_not_depend_on_which_login_was_looked_at_first(sandbox: Sandbox) -> None:
    other = Sandbox(1, PROFILES, {"schwab": 2, "plaid": 2}, {})
    books(other, "plaid-2")
    sandbox.advance(2)
    other.advance(2)
    assert [books(sandbox, name) for name in sandbox.logins] == [books(other, name) for name in other.logins]


@pytest.mark.deep
def test_other_seed_gives_other_books(sandbox: Sandbox) -> None:
    other = Sandbox(2, PROFILES, {"schwab": 1}, {})
    assert books(sandbox, "schwab-1")["transactions"] != books(other, "schwab-1")["transactions"]


@pytest.mark.deep
@pytest.mark.parametrize("login", ["schwab-1", "plaid-1"])
def test_balance_is_opening_plus_posted_rows_plus_positions(sandbox: Sandbox, login: str) -> None:
    sandbox.advance(20)
    ledger = sandbox.logins[login].ledger
    for account in ledger.accounts.values():
        posted = sum((row.amount for row in account.by_time if row.status == "posted"), Decimal(0))
        pending = sum((row.amount for row in account.by_time if row.status == "pending"), Decimal(0))
        worth = sum(
            (cents(h.quantity * h.security.price * h.security.multiplier) for h in account.holdings.values()),
            Decimal(0),
        )
        assert account.current == account.opening + posted + worth
        assert account.pending_sum == pending


@pytest.mark.deep
def test_rows_stay_in_order_of_time(sandbox: Sandbox) -> None:
    sandbox.advance(10)
    change(sandbox, "plaid-1", {"op": "add", "amount": "5.00", "date": "2026-01-02"})
    for login in sandbox.logins.values():
        for account in login.ledger.accounts.values():
            moments = [row.moment for row in account.by_time]
            assert moments == sorted(moments)


def test_moves_are_never_in_the_future(sandbox: Sandbox, clock: time_machine.Coordinates) -> None:
    clock.move_to("2026-03-11T00:00:03Z")
    sandbox.advance(30)
    latest = max(row.moment for login in sandbox.logins.values() for row in login.ledger.transactions.values())
    assert latest <= sandbox.clock.now()


def test_mutations_add_modify_post_and_remove(sandbox: Sandbox) -> None:
    (pending,) = change(sandbox, "plaid-1", {"op": "add", "amount": "-8.00", "status": "pending", "id": "p1"})
    (posted,) = change(sandbox, "plaid-1", {"op": "post", "id": pending, "amount": "-9.50"})
    change(sandbox, "plaid-1", {"op": "modify", "id": posted, "description": "mended", "date": "2026-03-01"})
    rows = {row["id"]: row for row in books(sandbox, "plaid-1")["transactions"]}
    assert pending not in rows
    assert (rows[posted]["amount"], rows[posted]["replaces"]) == ("-9.50", "p1")
    assert (rows[posted]["description"], str(rows[posted]["date"])) == ("mended", "2026-03-01")
    change(sandbox, "plaid-1", {"op": "remove", "id": posted})
    assert posted not in {row["id"] for row in books(sandbox, "plaid-1")["transactions"]}


def test_post_may_keep_the_id(sandbox: Sandbox) -> None:
    (row,) = change(sandbox, "schwab-1", {"op": "add", "amount": "8.00", "status": "pending"})
    assert change(sandbox, "schwab-1", {"op": "post", "id": row, "keep_id": True}) == [row]
    assert {r["id"]: r["status"] for r in books(sandbox, "schwab-1")["transactions"]}[row] == "posted"


def test_closed_account_leaves_the_books_and_comes_back(sandbox: Sandbox) -> None:
    before = books(sandbox, "schwab-1")
    account = before["accounts"][0]["provider_account_id"]
    change(sandbox, "schwab-1", {"op": "close_account", "account": account})
    assert account not in {row["provider_account_id"] for row in books(sandbox, "schwab-1")["accounts"]}
    change(sandbox, "schwab-1", {"op": "open_account", "account": account})
    assert books(sandbox, "schwab-1") == before


def test_position_can_be_set_and_closed(sandbox: Sandbox) -> None:
    held = books(sandbox, "schwab-1")["holdings"][0]
    place = {"account": held["account"], "symbol": held["symbol"]}
    change(sandbox, "schwab-1", {"op": "hold", "quantity": "7", **place})
    now = [h for h in books(sandbox, "schwab-1")["holdings"] if h["account"] == place["account"]]
    assert {h["symbol"]: h["quantity"] for h in now}[held["symbol"]] == "7"
    change(sandbox, "schwab-1", {"op": "hold", "quantity": "0", **place})
    now = [h for h in books(sandbox, "schwab-1")["holdings"] if h["account"] == place["account"]]
    assert held["symbol"] not in {h["symbol"] for h in now}


def test_malformed_mutation_changes_nothing(sandbox: Sandbox) -> None:
    before = books(sandbox, "plaid-1")
    with pytest.raises(msgspec.ValidationError):
        change(sandbox, "plaid-1", {"op": "add", "amount": "1.00"}, {"op": "explode"})
    with pytest.raises(ValueError, match="finite"):
        change(sandbox, "plaid-1", {"op": "add", "amount": "NaN"})
    assert books(sandbox, "plaid-1") == before


@pytest.mark.deep
def test_fleet_logins_have_no_books_until_asked_and_do_not_move(sandbox: Sandbox) -> None:
    fleet = sandbox.add_logins(LoginSpec(profile="schwab", count=50, transactions=0, accounts=1))
    sandbox.advance(1)
    assert all(login._ledger is None for login in fleet)
    assert fleet[0].name == "schwab-3"
    assert books(sandbox, "schwab-3")["transactions"] == []


def test_days_of_history_are_as_asked(sandbox: Sandbox) -> None:
    (login,) = sandbox.add_logins(LoginSpec(profile="plaid", transactions=50, history_days=10))
    oldest = min(row.moment for row in login.ledger.transactions.values())
    assert sandbox.clock.now() - oldest < timedelta(days=12)

"""Plaid's transactions feed: following it, however paged and interrupted, gives the books."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.sandbox.asking import PROFILES, ask, plaid_request
from worker.sandbox.books import login_books, mutate
from worker.sandbox.core import LoginSpec, Sandbox
from worker.sandbox.wire import encode

pytestmark = pytest.mark.unit


class Follower:
    """A client that applies pages in order and commits each page's cursor."""

    def __init__(self, sandbox: Sandbox, login: str, mutation: str = "ignore") -> None:
        self.profile = sandbox.profiles["plaid"]
        self.profile.configure({"mutation": mutation})
        self.login = sandbox.logins[login]
        self.token = self.profile.mint(self.login)["access_token"]
        self.cursor = ""
        self.rows: dict[str, dict[str, Any]] = {}

    def page(self, count: int, **options: Any) -> dict[str, Any]:
        request = plaid_request(
            "/transactions/sync",
            self.token,
            cursor=self.cursor,
            count=count,
            options={"days_requested": 730, **options},
        )
        answer = ask(self.profile, request)
        body: dict[str, Any] = json.loads(answer.body, parse_float=Decimal)
        if answer.status == 200:
            self.rows.update((row["transaction_id"], row) for row in [*body["added"], *body["modified"]])
            for row in body["removed"]:
                self.rows.pop(row["transaction_id"], None)
            self.cursor = body["next_cursor"]
        return body

    def loop(self, count: int) -> int:
        pages = 1
        while self.page(count)["has_more"]:
            pages += 1
        return pages

    def held(self) -> dict[str, tuple[str, str]]:
        status = {True: "pending", False: "posted"}
        return {i: (str(-row["amount"]), status[row["pending"]]) for i, row in self.rows.items()}

    def truth(self) -> dict[str, tuple[str, str]]:
        books = login_books(self.login)
        fed = {a["provider_account_id"] for a in books["accounts"] if a["type"] != "investment"}
        return {row["id"]: (row["amount"], row["status"]) for row in books["transactions"] if row["account"] in fed}


@pytest.mark.deep
@pytest.mark.parametrize("count", [1, 7, 500])
def test_loop_gives_the_books_whatever_the_page_size(sandbox: Sandbox, count: int) -> None:
    follower = Follower(sandbox, "plaid-1")
    follower.loop(count)
    assert follower.held() == follower.truth()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    script=st.lists(
        st.tuples(st.sampled_from(["advance", "page", "loop", "remove", "post"]), st.integers(1, 9)), max_size=12
    )
)
def test_any_interleaving_of_moves_and_pages_ends_in_the_books(clock: object, script: list[tuple[str, int]]) -> None:
    sandbox = Sandbox(1, PROFILES, {}, {})
    sandbox.add_logins(LoginSpec(profile="plaid", transactions=12, accounts=2))
    follower = Follower(sandbox, "plaid-1")
    for action, number in script:
        rows = list(follower.login.ledger.transactions.values())
        pending = [row for row in rows if row.status == "pending"]
        match action:
            case "advance":
                sandbox.advance(number)
            case "page":
                follower.page(number)
            case "loop":
                follower.loop(number)
            case "remove" if rows:
                mutate(follower.login, encode([{"op": "remove", "id": rows[number % len(rows)].id}]))
            case "post" if pending:
                row = pending[number % len(pending)]
                order = {"removal_first": number % 2 == 0}
                mutate(follower.login, encode([{"op": "post", "id": row.id, **order}]))
    follower.loop(3)
    assert follower.held() == follower.truth()


@pytest.mark.deep
def test_row_listed_early_in_a_loop_and_removed_during_it_is_listed_as_removed(sandbox: Sandbox) -> None:
    follower = Follower(sandbox, "plaid-1")
    follower.page(1)
    (listed,) = follower.rows
    mutate(follower.login, encode([{"op": "remove", "id": listed}, {"op": "add", "amount": "1.00"}]))
    follower.loop(1)
    assert listed not in follower.rows


@pytest.mark.deep
def test_replayed_cursor_gives_the_same_page(sandbox: Sandbox) -> None:
    follower = Follower(sandbox, "plaid-1")
    follower.page(20)
    start = follower.cursor
    first = follower.page(20)
    follower.cursor = start
    again = follower.page(20)
    assert [first[name] for name in ("added", "next_cursor")] == [again[name] for name in ("added", "next_cursor")]


def test_change_in_mid_loop_demands_a_restart_from_the_loops_first_cursor(sandbox: Sandbox) -> None:
    follower = Follower(sandbox, "plaid-1", mutation="error")
    follower.loop(500)
    sandbox.advance(2)
    first = follower.cursor
    assert follower.page(1)["has_more"]
    sandbox.advance(1)
    assert follower.page(1)["error_code"] == "TRANSACTIONS_SYNC_MUTATION_DURING_PAGINATION"
    follower.cursor = first
    follower.loop(3)
    assert follower.held() == follower.truth()


@pytest.mark.deep
def test_restarts_can_be_demanded_a_number_of_times(sandbox: Sandbox) -> None:
    follower = Follower(sandbox, "plaid-1")
    follower.page(5)
    follower.login.forced_restarts = 2
    codes = [follower.page(5).get("error_code") for _ in range(3)]
    assert codes == ["TRANSACTIONS_SYNC_MUTATION_DURING_PAGINATION"] * 2 + [None]


@pytest.mark.deep
def test_row_that_came_and_went_between_two_loops_is_not_mentioned(sandbox: Sandbox) -> None:
    follower = Follower(sandbox, "plaid-1")
    follower.loop(500)
    (row,) = mutate(follower.login, b'[{"op":"add","amount":"1.00"}]')
    mutate(follower.login, encode([{"op": "remove", "id": row}]))
    body = follower.page(500)
    assert (body["added"], body["modified"], body["removed"], body["has_more"]) == ([], [], [], False)


@pytest.mark.deep
def test_known_row_that_changed_is_modified_and_a_new_one_is_added(sandbox: Sandbox) -> None:
    follower = Follower(sandbox, "plaid-1")
    follower.loop(500)
    known = next(iter(follower.rows))
    (new,) = mutate(follower.login, b'[{"op":"add","amount":"1.00"}]')
    mutate(follower.login, encode([{"op": "modify", "id": i, "description": "mended"} for i in (known, new)]))
    body = follower.page(500)
    assert [row["transaction_id"] for row in body["modified"]] == [known]
    assert [row["transaction_id"] for row in body["added"]] == [new]


def test_now_cursor_skips_all_history(sandbox: Sandbox) -> None:
    follower = Follower(sandbox, "plaid-1")
    follower.cursor = "now"
    follower.page(500)
    mutate(follower.login, b'[{"op":"add","amount":"2.00","id":"fresh"}]')
    follower.page(500)
    assert list(follower.rows) == ["fresh"]


def test_account_stream_lists_one_account_and_its_cursor_fits_no_other(sandbox: Sandbox) -> None:
    follower = Follower(sandbox, "plaid-1")
    one, other = (a.id for a in list(follower.login.ledger.accounts.values())[:2])
    follower.page(5, account_id=one)
    assert {row["account_id"] for row in follower.rows.values()} == {one}
    assert follower.page(5, account_id=other)["error_code"] == "INVALID_FIELD"
    assert follower.page(5)["error_code"] == "INVALID_FIELD"


@pytest.mark.deep
@pytest.mark.parametrize("cursor", ["nonsense", "AAAA", "é", "bm9uZXw|"])
def test_foreign_cursor_is_refused(sandbox: Sandbox, cursor: str) -> None:
    follower = Follower(sandbox, "plaid-1")
    follower.cursor = cursor
    assert follower.page(5)["error_code"] == "INVALID_FIELD"


@pytest.mark.deep
def test_history_reaches_as_far_back_as_first_asked(sandbox: Sandbox) -> None:
    follower = Follower(sandbox, "plaid-1")
    follower.page(500, days_requested=30)
    oldest = min(row["date"] for row in follower.rows.values())
    assert oldest >= "2026-02-08"
    assert follower.held() == follower.truth()


def test_verbatim_ghost_and_repeated_rows_are_listed_and_are_no_part_of_the_books(sandbox: Sandbox) -> None:
    follower = Follower(sandbox, "plaid-1")
    follower.loop(500)
    known, before = next(iter(follower.rows)), follower.truth()
    odd = {"op": "verbatim", "record": '{"transaction_id":"odd","amount":1e400}'}
    ghost = {"op": "ghost_removal", "id": "never-was"}
    mutate(follower.login, encode([odd, ghost, {"op": "repeat", "id": known}]))
    body = follower.page(500)
    assert [row["transaction_id"] for row in body["added"]] == ["odd", known]
    assert [row["transaction_id"] for row in body["removed"]] == ["never-was"]
    assert follower.truth() == before

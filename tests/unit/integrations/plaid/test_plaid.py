"""Plaid's pages and words."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from unittest.mock import Mock
from uuid import UUID

import httpx
import msgspec
import pytest

from tests.unit.integrations.scripts import (
    ACCESS_TOKEN,
    APP_SECRET,
    NOW,
    PLAID_SECURITIES,
    Provider,
    all_pages,
    plaid_account,
    plaid_error,
    plaid_healthy,
    plaid_holdings,
    plaid_investment,
    plaid_investments,
    plaid_row,
    plaid_sync,
    provider,
    sync_request,
)
from worker.crud.sync.nouns import raw_hasher
from worker.crud.sync.work import Rules, prepare
from worker.errors import (
    AppMisconfigured,
    BadPayload,
    BadRequest,
    InstitutionDown,
    NotReady,
    PagingRestart,
    ProviderError,
    RateLimited,
    ReauthRequired,
    Scope,
    Transient,
    Unsupported,
)
from worker.integrations.kit.base import Caller, Page, RawRecord, Removal
from worker.integrations.plaid import mapping, pages
from worker.integrations.plaid import pages as plaid_pages
from worker.integrations.plaid.vocabulary import CATEGORIES, CODES, INVESTMENT_SUBTYPES
from worker.models.records import AccountRecord, BalanceRecord, TransactionRecord
from worker.models.vocabulary import AccountType, SecurityType, TransactionStatus, TransactionType

TODAY = NOW.date()
Handler = Callable[[httpx.Request], httpx.Response]


def answering(path: str, answer: httpx.Response | Callable[[dict[str, Any]], httpx.Response]) -> Handler:
    """In good order but for one path."""

    def handler(request: httpx.Request) -> httpx.Response:
        if request.url.path != path:
            return plaid_healthy(request)
        return answer(json.loads(request.content)) if callable(answer) else answer

    return handler


def sync(handler: Handler | None = None, cursors: dict[str, str] | None = None, **more: Any) -> list[Page]:
    return asyncio.run(all_pages(provider("plaid", handler).integration.pages(sync_request(cursors, **more))))


def problems(pages: list[Page]) -> list[ProviderError]:
    return [problem for page in pages for problem in page.problems]


def asked(subject: Provider, path: str) -> list[dict[str, Any]]:
    return [json.loads(request.content) for request in subject.requests if request.url.path == path]


def mapped(**changes: Any) -> TransactionRecord:
    row = plaid_row("t", **changes)
    return mapping.transaction(RawRecord("t", "acc_checking", json.dumps(row).encode()))


def account(**changes: Any) -> tuple[AccountRecord, BalanceRecord]:
    record, balance = mapping.account(json.dumps(plaid_account("acc_checking", **changes)).encode())
    assert isinstance(balance, BalanceRecord)
    return record, balance


# How it asks


@pytest.mark.deep
def test_application_goes_into_headers_and_the_users_token_into_the_body() -> None:
    subject = provider("plaid")

    asyncio.run(all_pages(subject.integration.pages(sync_request())))

    for request in subject.requests:
        assert request.headers["plaid-client-id"] == "client"
        assert request.headers["plaid-secret"] == APP_SECRET
        assert request.headers["plaid-version"] == "2020-09-14"
        assert json.loads(request.content)["access_token"] == ACCESS_TOKEN
        assert APP_SECRET.encode() not in request.content


def test_renewal_asks_for_link_in_update_mode_as_published() -> None:
    made = {"link_token": "link-sandbox-made-up", "expiration": "2025-06-01T12:00:00Z", "request_id": "r"}
    subject = provider("plaid", answering("/link/token/create", httpx.Response(200, json=made)))

    begun = asyncio.run(subject.integration.begin_renewal(Caller(), access_token=ACCESS_TOKEN, user_id=UUID(int=7)))

    assert (begun.link_token, begun.expires_at) == (made["link_token"], datetime(2025, 6, 1, 12, tzinfo=UTC))
    # Products are left out in update mode, and the user is named by an id that says nothing about them.
    assert asked(subject, "/link/token/create") == [
        {
            "client_name": "Dashtam",
            "language": "en",
            "country_codes": ["US"],
            "user": {"client_user_id": "00000000-0000-0000-0000-000000000007"},
            "access_token": ACCESS_TOKEN,
        }
    ]


def test_renewal_is_complete_once_the_item_has_no_error() -> None:
    item = {"item_id": "item-1", "consent_expiration_time": "2026-01-01T00:00:00Z", "error": None}
    subject = provider("plaid", answering("/item/get", httpx.Response(200, json={"item": item})))

    renewed = asyncio.run(subject.integration.complete_renewal(Caller(), access_token=ACCESS_TOKEN))

    assert (renewed.access_token, renewed.external_id) == (ACCESS_TOKEN, "item-1")
    assert renewed.grant_expires_at == datetime(2026, 1, 1, tzinfo=UTC)


def test_renewal_of_an_item_that_still_has_an_error_is_not_complete() -> None:
    error = {"error_type": "ITEM_ERROR", "error_code": "ITEM_LOGIN_REQUIRED", "error_message": "login required"}
    item = {"item_id": "item-1", "consent_expiration_time": None, "error": error}
    subject = provider("plaid", answering("/item/get", httpx.Response(200, json={"item": item})))

    with pytest.raises(ReauthRequired):
        asyncio.run(subject.integration.complete_renewal(Caller(), access_token=ACCESS_TOKEN))


@pytest.mark.deep
def test_first_feed_request_asks_for_the_whole_history_and_later_ones_for_what_is_new() -> None:
    subject = provider("plaid")

    asyncio.run(all_pages(subject.integration.pages(sync_request(backfill=timedelta(days=5000)))))

    first, *rest = asked(subject, "/transactions/sync")
    assert first["options"] == {"days_requested": 730}
    assert "cursor" not in first
    assert [body["cursor"] for body in rest] == ["3", "6"]
    assert all("options" not in body for body in rest)


@pytest.mark.deep
def test_stored_cursor_is_where_the_feed_goes_on() -> None:
    subject = provider("plaid")

    pages = asyncio.run(all_pages(subject.integration.pages(sync_request({"transactions": "6"}))))

    assert [body["cursor"] for body in asked(subject, "/transactions/sync")] == ["6"]
    (page,) = [page for page in pages if page.feed == "transactions"]
    assert ([row.key for row in page.transactions], page.cursor, page.more) == (["tx_6", "tx_7"], "8", False)


def test_revoke_removes_the_item() -> None:
    subject = provider("plaid")

    assert asyncio.run(subject.integration.revoke(Caller(), access_token=ACCESS_TOKEN, refresh_token=None))
    assert [request.url.path for request in subject.requests] == ["/item/remove"]


# The transactions feed


@pytest.mark.deep
def test_feed_page_carries_rows_changes_and_removals() -> None:
    answer = plaid_sync(
        [plaid_row("new")],
        "c1",
        modified=[plaid_row("changed")],
        removed=[{"transaction_id": "gone", "account_id": "acc_checking"}, {"transaction_id": "older"}],
    )

    (page,) = [page for page in sync(answering("/transactions/sync", answer)) if page.feed == "transactions"]

    assert [row.key for row in page.transactions] == ["new", "changed"]
    assert page.removals == [Removal("gone", "acc_checking"), Removal("older", None)]


@pytest.mark.deep
def test_removal_that_cannot_be_read_is_quarantined() -> None:
    answer = plaid_sync([plaid_row("new")], "c1", removed=[{"transaction_id": 7}, {"transaction_id": "gone"}])

    (page,) = [page for page in sync(answering("/transactions/sync", answer)) if page.feed == "transactions"]

    assert page.removals == [Removal("gone", None)]
    assert [row.key for row in page.transactions] == ["new"]
    assert len(page.rejects) == 1


@pytest.mark.deep
def test_data_that_is_not_ready_is_scheduled_and_stores_no_cursor() -> None:
    answer = plaid_sync([], "", transactions_update_status="NOT_READY")

    pages = sync(answering("/transactions/sync", answer))

    (problem,) = problems(pages)
    assert isinstance(problem, NotReady)
    assert problem.retry_after is not None
    assert timedelta(0) < problem.retry_after <= timedelta(minutes=10)
    assert not [page for page in pages if page.feed == "transactions"]
    assert [page for page in pages if page.feed == "investments"], "the other parts go on"


def test_books_that_change_under_the_pages_demand_a_restart_of_that_feed() -> None:
    def answer(body: dict[str, Any]) -> httpx.Response:
        if "cursor" in body:
            return plaid_error("TRANSACTIONS_SYNC_MUTATION_DURING_PAGINATION", "TRANSACTIONS_ERROR")
        return plaid_sync([plaid_row("a")], "c1", more=True)

    with pytest.raises(PagingRestart) as caught:
        sync(answering("/transactions/sync", answer))

    assert caught.value.feed == "transactions"


@pytest.mark.deep
def test_cursor_that_does_not_advance_is_found_out() -> None:
    subject = provider(
        "plaid", answering("/transactions/sync", lambda body: plaid_sync([plaid_row("a")], "c1", more=True))
    )

    pages = asyncio.run(all_pages(subject.integration.pages(sync_request())))

    assert [problem.reason for problem in problems(pages)] == ["pagination_does_not_advance"]
    assert len(asked(subject, "/transactions/sync")) == 2


@pytest.mark.deep
def test_empty_pages_without_end_are_found_out() -> None:
    def answer(body: dict[str, Any]) -> httpx.Response:
        return plaid_sync([], str(int(body.get("cursor", "0")) + 1), more=True)

    subject = provider("plaid", answering("/transactions/sync", answer))

    pages = asyncio.run(all_pages(subject.integration.pages(sync_request())))

    assert [problem.reason for problem in problems(pages)] == ["pagination_does_not_advance"]
    assert len(asked(subject, "/transactions/sync")) < 50


@pytest.mark.deep
def test_single_empty_page_with_more_to_come_is_fine() -> None:
    answers = {"0": plaid_sync([], "1", more=True), "1": plaid_sync([plaid_row("a")], "2")}

    pages = sync(answering("/transactions/sync", lambda body: answers[body.get("cursor", "0")]))

    assert problems(pages) == []


# Investments


def investments_in(pages: list[Page]) -> list[str]:
    return [row.key for page in pages if page.feed == "investments" for row in page.transactions]


@pytest.mark.deep
def test_investment_transactions_are_read_window_by_window_and_page_by_page() -> None:
    subject = provider("plaid")

    pages = asyncio.run(all_pages(subject.integration.pages(sync_request(backfill=timedelta(days=400)))))

    assert sorted(investments_in(pages)) == sorted(f"inv_{i}" for i in range(30))
    windows = sorted({(b["start_date"], b["end_date"]) for b in asked(subject, "/investments/transactions/get")})
    assert windows[0] == ("2024-02-04", "2024-05-03")
    assert windows[-1][1] == "2025-03-10"
    last = [page for page in pages if page.feed == "investments"][-1]
    assert (last.cursor, last.more) == ('{"through":"2025-03-10"}', False)


@pytest.mark.deep
def test_investment_window_is_never_longer_than_two_years() -> None:
    subject = provider("plaid")

    asyncio.run(
        all_pages(subject.integration.pages(sync_request(window=timedelta(days=5000), backfill=timedelta(days=1500))))
    )

    for body in asked(subject, "/investments/transactions/get"):
        span = date.fromisoformat(body["end_date"]) - date.fromisoformat(body["start_date"])
        assert span < timedelta(days=730)
        assert body["options"]["async_update"] is True


def test_row_that_arrives_between_two_pages_does_not_hide_another() -> None:
    rows = [plaid_investment(f"inv_{i}", "2025-03-05") for i in range(9)]
    calls = []

    def answer(body: dict[str, Any]) -> httpx.Response:
        calls.append(body["options"]["offset"])
        if len(calls) == 3:
            rows.insert(0, plaid_investment("late", "2025-03-09"))
        return plaid_investments(body, rows)

    pages = sync(answering("/investments/transactions/get", answer), backfill=NOW.date() - date(2025, 3, 1))

    assert set(investments_in(pages)) == {"late", *(f"inv_{i}" for i in range(9))}
    assert calls.count(0) == 2
    assert problems(pages) == []


def test_row_as_deep_as_only_one_of_the_readers_bears_does_not_spoil_its_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plaid_pages._sync_heads, "decode", Mock(side_effect=RecursionError))
    row = {"transaction_id": "t1", "account_id": "a1"}
    body = msgspec.json.encode({"added": [row], "modified": [], "removed": [], "next_cursor": "c", "has_more": False})

    page = plaid_pages.sync_page(body, plaid_pages.sync.page(body))

    assert [raw.key for raw in page.transactions] == ["t1"]


def test_row_that_goes_while_another_comes_does_not_hide_a_third() -> None:
    rows = [plaid_investment(f"inv_{i}", "2025-03-05") for i in range(9)]
    calls = []

    def answer(body: dict[str, Any]) -> httpx.Response:
        calls.append(body["options"]["offset"])
        if len(calls) == 2:
            del rows[0]
            rows.append(plaid_investment("late", "2025-03-04"))
        return plaid_investments(body, rows)

    pages = sync(answering("/investments/transactions/get", answer), backfill=NOW.date() - date(2025, 3, 1))

    assert set(investments_in(pages)) >= {"late", *(f"inv_{i}" for i in range(1, 9))}


def test_offsets_that_never_hold_still_are_given_up_for_now() -> None:
    calls = []

    def answer(body: dict[str, Any]) -> httpx.Response:
        calls.append(1)
        rows = [plaid_investment(f"inv_{len(calls)}_{i}", "2025-03-05") for i in range(9)]
        return plaid_investments(body, rows)

    pages = sync(answering("/investments/transactions/get", answer), backfill=NOW.date() - date(2025, 3, 1))

    (problem,) = problems(pages)
    assert isinstance(problem, Transient)
    assert problem.reason == "offsets_keep_shifting"
    assert len(calls) < 20


@pytest.mark.deep
@pytest.mark.parametrize("listed", [0, 3])
def test_window_that_lists_fewer_rows_than_its_total_is_not_taken_for_read(listed: int) -> None:
    rows = [plaid_investment(f"inv_{i}", "2025-03-05") for i in range(listed)]

    def answer(body: dict[str, Any]) -> httpx.Response:
        given = json.loads(plaid_investments(body, rows).content)
        return httpx.Response(200, json=given | {"total_investment_transactions": 9})

    pages = sync(answering("/investments/transactions/get", answer), backfill=NOW.date() - date(2025, 3, 1))

    assert [problem.reason for problem in problems(pages)] == ["offsets_keep_shifting"]
    assert not any('"through":"2025-03-10"' in (page.cursor or "") for page in pages)


def test_unreadable_row_at_the_end_of_a_page_marks_the_place_all_the_same() -> None:
    rows: list[Any] = [plaid_investment(f"inv_{i}", "2025-03-05") for i in range(6)]
    rows[2] = {"date": "2025-03-05", "surprise": 1}

    pages = sync(
        answering("/investments/transactions/get", lambda body: plaid_investments(body, rows)),
        backfill=NOW.date() - date(2025, 3, 1),
    )

    assert set(investments_in(pages)) == {"inv_0", "inv_1", "inv_3", "inv_4", "inv_5"}
    assert len([reject for page in pages for reject in page.rejects]) == 1
    assert problems(pages) == []


def test_investments_that_are_not_ready_are_scheduled() -> None:
    pages = sync(answering("/investments/transactions/get", plaid_error("PRODUCT_NOT_READY")))

    (problem,) = problems(pages)
    assert isinstance(problem, NotReady)
    assert problem.retry_after is not None


@pytest.mark.deep
@pytest.mark.parametrize("code", ["NO_INVESTMENT_ACCOUNTS", "PRODUCTS_NOT_SUPPORTED", "NO_ACCOUNTS"])
def test_login_without_investments_is_no_problem(code: str) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        return plaid_error(code) if request.url.path.startswith("/investments/") else plaid_healthy(request)

    assert problems(sync(handler)) == []


@pytest.mark.deep
def test_holdings_that_fail_leave_the_rest_alone() -> None:
    pages = sync(answering("/investments/holdings/get", httpx.Response(500)))

    assert [type(problem) for problem in problems(pages)] == [Transient]
    assert investments_in(pages)


@pytest.mark.deep
def test_holdings_are_joined_with_their_securities() -> None:
    (page,) = [page for page in sync() if page.holdings]

    share, option = page.holdings
    assert (share.security.key, share.quantity, share.market_value) == (
        "cusip:000000AA1",
        Decimal(25),
        Decimal("3802.5"),
    )
    assert page.holdings_complete_for == {"acc_brokerage"}
    assert (option.security.type, option.security.multiplier, option.quantity) == (SecurityType.OPTION, 100, Decimal(3))


def test_part_of_a_contract_is_exact() -> None:
    held = {"account_id": "acc_brokerage", "security_id": "sec_call", "quantity": 150.5}

    page = plaid_pages.holdings_page(plaid_holdings(held).content)

    assert page.holdings[-1].quantity == Decimal("1.505")
    assert len({holding.holding_key for holding in page.holdings}) == 3


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ({"cusip": "C1", "isin": "I1"}, "cusip:C1"),
        ({"cusip": None, "isin": "I1"}, "isin:I1"),
        ({"cusip": None, "isin": None}, "plaid:sec"),
    ],
)
def test_security_is_keyed_by_the_widest_known_id(given: dict[str, Any], key: str) -> None:
    _, security = mapping.security(json.dumps({"security_id": "sec", "type": "etf"} | given).encode())

    assert (security.key, security.type) == (key, SecurityType.ETF)


@pytest.mark.deep
@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("cash", SecurityType.CASH),
        ("cryptocurrency", SecurityType.CRYPTO),
        ("derivative", SecurityType.DERIVATIVE),
        ("equity", SecurityType.EQUITY),
        ("fixed income", SecurityType.FIXED_INCOME),
        ("mutual fund", SecurityType.MUTUAL_FUND),
        ("loan", SecurityType.OTHER),
        ("other", SecurityType.OTHER),
        ("new kind", SecurityType.OTHER),
        (None, SecurityType.OTHER),
    ],
)
def test_security_types(kind: str | None, expected: SecurityType) -> None:
    assert mapping.security(json.dumps({"security_id": "s", "type": kind}).encode())[1].type is expected


POSTED, INITIATED = "2025-03-05T11:01:01Z", "2025-03-03T10:34:50+01:00"


@pytest.mark.deep
@pytest.mark.parametrize(
    ("posted", "initiated", "expected"),
    [
        (POSTED, INITIATED, "2025-03-03T09:34:50+00:00"),
        (None, INITIATED, "2025-03-03T09:34:50+00:00"),
        (POSTED, None, "2025-03-05T11:01:01+00:00"),
    ],
)
@pytest.mark.parametrize("pending", [False, True])
def test_transaction_occurs_when_it_is_initiated(
    pending: bool, posted: str | None, initiated: str | None, expected: str
) -> None:
    record = mapped(datetime=posted, authorized_datetime=initiated, pending=pending)

    assert record.occurred_at is not None
    assert record.occurred_at.isoformat() == expected
    assert record.posted_date == date(2025, 3, 5)


def test_transaction_without_any_time_has_none() -> None:
    assert mapped().occurred_at is None
    assert investment().occurred_at is None


def test_investment_transaction_occurs_at_its_transaction_datetime() -> None:
    record = investment(transaction_datetime="2025-03-04T09:30:00-05:00")
    without_zone = investment(transaction_datetime="2025-03-04T09:30:00")

    assert record.occurred_at is not None
    assert record.occurred_at.isoformat() == "2025-03-04T14:30:00+00:00"
    assert (record.posted_date, record.flags) == (date(2025, 3, 5), ())
    assert without_zone.flags == ("time_without_zone",)


@pytest.mark.parametrize(
    "after", [b"", b" and more", b"\xff"], ids=["in order", "text after it", "bytes that are no UTF-8 after it"]
)
def test_permanent_token_that_is_there_in_full_is_kept_whatever_is_wrong_around_it(after: bytes) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/item/public_token/exchange":
            return httpx.Response(200, content=b'{"access_token":"abc","item_id":"item","x":[[]]}' + after)
        return plaid_healthy(request)

    answer = asyncio.run(provider("plaid", handler).integration.exchange(Caller(), {"public_token": "public"}, now=NOW))

    assert (answer.access_token, answer.external_id) == ("abc", "item")
    assert bool(answer.flags) == bool(after)


def investment(**changes: Any) -> TransactionRecord:
    securities = dict(mapping.security(json.dumps(given).encode()) for given in PLAID_SECURITIES)
    row = plaid_investment("i", "2025-03-05", **changes)
    return mapping.investment_mapper(securities)(RawRecord("i", "acc_brokerage", json.dumps(row).encode()))


def test_instrument_that_comes_to_have_a_cusip_changes_what_its_unchanged_transactions_are_hashed_with() -> None:
    rows = [msgspec.Raw(json.dumps(plaid_investment("i", "2025-03-05", security_id="s")).encode())]

    def hashes(security: dict[str, Any]) -> list[bytes]:
        page = plaid_pages.investments_page(rows, [msgspec.Raw(json.dumps(security).encode())])
        rules = Rules(content_hashes=raw_hasher("plaid", 1), mask=lambda raw: {}, mass_deletion_share=0.5)
        return list(prepare(page, rules).hashes)

    without, known = {"security_id": "s"}, {"security_id": "s", "cusip": "037833100"}

    assert hashes(without) == hashes(without | {"name": "a name is none of the transaction's"})
    assert hashes(without) != hashes(known)


def test_investment_transaction_is_credit_positive_with_units_as_sent() -> None:
    record = investment()

    assert (record.amount, record.quantity, record.price, record.fees) == (
        Decimal("-1512.66"),
        Decimal(10),
        Decimal("151.2"),
        Decimal("0.66"),
    )
    assert (record.type, record.subtype, record.status, record.provider_type) == ("trade", "buy", "posted", "buy/buy")
    assert record.security is not None
    assert record.security.symbol == "ACME"


@pytest.mark.deep
@pytest.mark.parametrize(
    ("kind", "subtype", "quantity", "expected"),
    [
        ("sell", "sell", -5, ("trade", "sell")),
        ("sell", "sell short", -5, ("trade", "short_sell")),
        ("buy", "buy to cover", 5, ("trade", "buy_to_cover")),
        ("buy", "dividend reinvestment", 5, ("reinvestment", "dividend_reinvest")),
        ("cash", "dividend", 0, ("income", "dividend")),
        ("cash", "long-term capital gain", 0, ("income", "capital_gain_long")),
        ("cash", "withdrawal", 0, ("transfer", "withdrawal")),
        ("fee", "margin expense", 0, ("fee", "margin_interest")),
        ("fee", "non-resident tax", 0, ("tax", "withholding")),
        ("transfer", "split", 5, ("corporate_action", "split")),
        ("transfer", "transfer", 5, ("transfer", "security_in")),
        ("transfer", "send", -5, ("transfer", "security_out")),
        ("transfer", "expire", -1, ("trade", "option_expiration")),
        ("cancel", "buy", 5, ("adjustment", "cancel")),
        ("buy", "trade", 5, ("trade", "buy")),
        ("buy", None, 5, ("trade", "buy")),
        ("new type", "new subtype", 5, ("other", None)),
    ],
)
def test_investment_words(kind: str, subtype: str | None, quantity: int, expected: tuple[str, str | None]) -> None:
    record = investment(type=kind, subtype=subtype, quantity=quantity)

    assert (record.type, record.subtype) == expected


def test_investment_with_a_security_that_is_not_listed_is_kept_and_flagged() -> None:
    record = investment(security_id="nobody")

    assert (record.security, record.flags) == (None, ("security_unknown",))


def test_all_words_of_the_tables_lead_into_the_closed_vocabulary() -> None:
    for table in (CODES, CATEGORIES, INVESTMENT_SUBTYPES):
        assert all(isinstance(kind, TransactionType) for kind, _ in table.values())


# Transactions and accounts


def test_transaction_is_credit_positive() -> None:
    assert mapped(amount=72.1).amount == Decimal("-72.1")
    assert mapped(amount=-100).amount == Decimal(100)


def test_transaction_is_read_in_full() -> None:
    record = mapped(pending_transaction_id="p", datetime="2025-03-05T10:00:00Z", original_description="x")

    assert (record.description, record.counterparty, record.category) == (
        "CORNER GROCERY 12",
        "Corner Grocery",
        "FOOD_AND_DRINK_GROCERIES",
    )
    assert (record.posted_date, record.pending_key, record.currency) == (date(2025, 3, 5), "p", "USD")
    assert record.occurred_at is not None


def test_pending_is_a_status() -> None:
    assert mapped(pending=True).status is TransactionStatus.PENDING
    assert mapped(pending=False).status is TransactionStatus.POSTED


def test_unofficial_currency_is_used_when_there_is_no_official_one() -> None:
    assert mapped(iso_currency_code=None, unofficial_currency_code="BTC").currency == "BTC"


@pytest.mark.deep
@pytest.mark.parametrize(
    ("code", "category", "amount", "expected"),
    [
        ("atm", "TRANSFER_OUT", 5, ("payment", "atm")),
        ("bank charge", None, 5, ("fee", "account_fee")),
        ("interest", None, -5, ("income", "interest")),
        (None, "INCOME_DIVIDENDS", -5, ("income", "dividend")),
        (None, "INCOME_WAGES", -5, ("transfer", "deposit")),
        (None, "TRANSFER_OUT_ACCOUNT_TRANSFER", 5, ("transfer", "withdrawal")),
        (None, "LOAN_PAYMENTS_MORTGAGE_PAYMENT", 5, ("payment", "loan_payment")),
        (None, "BANK_FEES_ATM_FEES", 5, ("fee", "account_fee")),
        (None, "FOOD_AND_DRINK_COFFEE", 5, ("payment", "purchase")),
        (None, "FOOD_AND_DRINK_COFFEE", -5, ("payment", "refund")),
        ("new code", None, 5, ("other", None)),
        (None, None, 5, ("other", None)),
    ],
)
def test_what_the_bank_says_counts_before_what_plaid_thinks(
    code: str | None, category: str | None, amount: int, expected: tuple[str, str | None]
) -> None:
    primaries = ("INCOME", "TRANSFER_OUT", "TRANSFER_IN", "LOAN_PAYMENTS", "BANK_FEES", "FOOD_AND_DRINK")
    primary = next((word for word in primaries if category and category.startswith(word)), None)
    given = {"primary": primary, "detailed": category} if category else None

    record = mapped(transaction_code=code, personal_finance_category=given, amount=amount)

    assert (record.type, record.subtype) == expected


@pytest.mark.deep
@pytest.mark.parametrize(
    ("kind", "current", "expected"),
    [
        ("depository", 110.94, "110.94"),
        ("credit", 410, "-410"),
        ("credit", -5, "5"),
        ("loan", 65262, "-65262"),
        ("investment", 320.76, "320.76"),
        ("brokerage", 1, "1"),
        ("other", 1, "1"),
    ],
)
def test_debts_are_negative(kind: str, current: float, expected: str) -> None:
    _, balance = account(type=kind, balances={"current": current, "limit": 500, "available": None})

    assert (balance.current, balance.credit_limit, balance.available) == (Decimal(expected), Decimal(500), None)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("brokerage", AccountType.INVESTMENT), ("payroll", AccountType.OTHER), ("credit", AccountType.CREDIT)],
)
def test_account_types_are_closed(kind: str, expected: AccountType) -> None:
    record, _ = account(type=kind)

    assert (record.type, record.provider_type) == (expected, kind)


@pytest.mark.deep
@pytest.mark.parametrize(
    ("word", "ours"),
    [
        ("checking", "checking"),
        ("money market", "money_market"),
        ("credit card", "credit_card"),
        ("401k", "401k"),
        ("403B", "403b"),
        ("roth", "roth_ira"),
        ("roth 401k", "roth_401k"),
        ("sep ira", "sep_ira"),
        ("ugma", "custodial"),
        ("non-custodial wallet", "crypto_wallet"),
        ("variable annuity", "annuity"),
        (None, "other"),
        ("", "other"),
        ("!!", "other"),
    ],
)
def test_subtypes_are_in_snake_case(word: str | None, ours: str) -> None:
    record, _ = account(subtype=word)

    assert (record.subtype, record.provider_subtype) == (ours, word)


def test_account_without_names_or_figures_is_still_an_account() -> None:
    record, balance = mapping.account(b'{"account_id":"a","type":"depository","balances":{},"mask":"123456789"}')

    assert isinstance(balance, BalanceRecord)
    assert (record.name, record.mask, record.currency) == ("Account", "6789", "USD")
    assert (balance.current, balance.as_of) == (None, None)


@pytest.mark.parametrize(
    ("balances", "currency"),
    [
        ({"current": "a lot", "iso_currency_code": "CAD"}, "CAD"),
        ({"current": 1, "limit": "none", "unofficial_currency_code": "BTC"}, "BTC"),
        ({"current": []}, "USD"),
    ],
)
def test_figure_that_cannot_be_read_costs_the_balance_and_not_the_account(balances: object, currency: str) -> None:
    listed = [
        plaid_account("acc_checking", balances=balances),
        plaid_account("acc_savings"),
    ]

    page = plaid_pages.accounts_page(json.dumps({"accounts": listed}).encode())

    assert [(one.account_key, one.currency) for one in page.accounts] == [
        ("acc_checking", currency),
        ("acc_savings", "USD"),
    ]
    assert [one.account_key for one in page.balances] == ["acc_savings"]
    assert [(one.kind, one.account_key) for one in page.rejects] == [("balance", "acc_checking")]
    assert "balances" in (page.rejects[0].payload or {})
    assert page.accounts_complete


def test_account_says_by_what_it_is_recognised_under_another_item() -> None:
    listed = [plaid_account("one") | {"persistent_account_id": "lasting"}, plaid_account("two")]

    page = plaid_pages.accounts_page(json.dumps({"accounts": listed, "item": {"institution_id": "ins_1"}}).encode())

    assert [(one.institution, one.stable_keys) for one in page.accounts] == [("ins_1", ("lasting",)), ("ins_1", ())]


@pytest.mark.parametrize("item", [None, 7, {}, {"institution_id": 7}], ids=str)
def test_item_that_does_not_say_its_institution_costs_no_account(item: object) -> None:
    page = plaid_pages.accounts_page(json.dumps({"accounts": [plaid_account("one")], "item": item}).encode())

    assert [one.institution for one in page.accounts] == [None]


@pytest.mark.parametrize("balances", [None, [], {"current": 1, "iso_currency_code": 5}])
def test_account_of_which_nobody_can_tell_the_currency_is_not_given_one(balances: object) -> None:
    listed = [plaid_account("acc_checking", balances=balances), plaid_account("acc_savings")]

    page = plaid_pages.accounts_page(json.dumps({"accounts": listed}).encode())

    assert [one.account_key for one in page.accounts] == ["acc_savings"]
    assert [one.kind for one in page.rejects] == ["account"]
    assert not page.accounts_complete


def test_balance_says_when_it_was_true() -> None:
    _, balance = account(balances={"current": 1, "last_updated_datetime": "2025-03-10T10:00:00"})

    assert balance.as_of is not None
    assert balance.as_of.tzinfo is not None


# Errors


@pytest.mark.deep
@pytest.mark.parametrize(
    ("code", "kind", "expected", "scope"),
    [
        ("ITEM_LOGIN_REQUIRED", "ITEM_ERROR", ReauthRequired, Scope.PROVIDER),
        ("ACCESS_NOT_GRANTED", "ITEM_ERROR", ReauthRequired, Scope.PROVIDER),
        ("ITEM_LOCKED", "ITEM_ERROR", ReauthRequired, Scope.PROVIDER),
        ("INVALID_ACCESS_TOKEN", "INVALID_INPUT", ReauthRequired, Scope.PROVIDER),
        ("ITEM_NOT_FOUND", "ITEM_ERROR", ReauthRequired, Scope.PROVIDER),
        ("INVALID_API_KEYS", "INVALID_INPUT", AppMisconfigured, Scope.APP),
        ("INSTITUTION_DOWN", "INSTITUTION_ERROR", InstitutionDown, Scope.INSTITUTION),
        ("INSTITUTION_NOT_RESPONDING", "INSTITUTION_ERROR", InstitutionDown, Scope.INSTITUTION),
        ("ACCOUNTS_LIMIT", "RATE_LIMIT_EXCEEDED", RateLimited, Scope.PROVIDER),
    ],
)
def test_error_of_the_whole_item_stops_the_sync(
    code: str, kind: str, expected: type[ProviderError], scope: Scope
) -> None:
    with pytest.raises(expected) as caught:
        sync(answering("/transactions/sync", plaid_error(code, kind)))

    assert (caught.value.reason, caught.value.scope) == (code, scope)


@pytest.mark.deep
@pytest.mark.parametrize(
    ("code", "kind", "status", "expected"),
    [
        ("INTERNAL_SERVER_ERROR", "API_ERROR", 500, Transient),
        ("PLANNED_MAINTENANCE", "API_ERROR", 503, Transient),
        ("INVALID_FIELD", "INVALID_REQUEST", 400, BadRequest),
        ("SOMETHING_NEW", "INVALID_INPUT", 400, BadRequest),
        ("SOMETHING_NEW", "SOMETHING_NEW", 400, BadRequest),
        ("SOMETHING_NEW", "INVALID_RESULT", 400, BadPayload),
        ("INSTITUTION_NO_LONGER_SUPPORTED", "INSTITUTION_ERROR", 400, Unsupported),
    ],
)
def test_error_of_one_part_is_a_problem_and_the_others_go_on(
    code: str, kind: str, status: int, expected: type[ProviderError]
) -> None:
    pages = sync(answering("/transactions/sync", plaid_error(code, kind, status)))

    (problem,) = problems(pages)
    assert (type(problem), problem.reason) == (expected, code)
    assert investments_in(pages)


def test_accounts_that_link_tells_are_what_a_sync_lists_but_for_what_link_does_not_know() -> None:
    told = {"institution": {"institution_id": "ins_1", "name": "Bank"}, "accounts": [], "link_session_id": "x"}
    one = {"id": "a", "name": "Checking", "mask": "000001", "type": "depository", "subtype": "checking"}
    nameless = {"id": "b", "name": None, "mask": None, "type": "invented", "class_type": None}

    (found,) = pages.accounts_of_link(json.dumps(told | {"accounts": [one, nameless]}))

    assert (found.name, found.mask, found.type, found.institution) == ("Checking", "0001", "depository", "ins_1")


@pytest.mark.parametrize("told", ["", "null", "[]", "{}", '{"accounts":[{}]}', '{"accounts":7}', "\ud800", "[" * 9999])
def test_what_link_tells_in_another_way_is_nothing(told: str) -> None:
    assert pages.accounts_of_link(told) == []

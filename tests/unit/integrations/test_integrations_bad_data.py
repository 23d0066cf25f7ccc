"""Records that cannot be trusted: they go to quarantine, and the rest of the page lands."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from typing import Any

import httpx
import pytest

from tests.unit.integrations.scripts import (
    NOW,
    PLAID_SECURITIES,
    SCHWAB_NUMBERS,
    all_pages,
    plaid_account,
    plaid_error,
    plaid_row,
    plaid_sync,
    provider,
    schwab_account,
    schwab_healthy,
    schwab_trade,
    sync_request,
)
from worker.errors import BadPayload, BadRecord
from worker.integrations.kit.base import Page
from worker.integrations.kit.money import checked, negated, product, total
from worker.models.records import TransactionRecord
from worker.models.vocabulary import TransactionStatus

GOOD = plaid_row("good")


def plaid_pages(body: bytes, **more: Any) -> list[Page]:
    """All pages of a sync whose transactions feed answers `body`."""

    def handler(request: httpx.Request) -> httpx.Response:
        match request.url.path:
            case "/accounts/get":
                return httpx.Response(200, json={"accounts": [plaid_account("acc_checking")]})
            case "/transactions/sync":
                return httpx.Response(200, content=body)
        return plaid_error("NO_INVESTMENT_ACCOUNTS")

    return asyncio.run(all_pages(provider("plaid", handler, **more).integration.pages(sync_request())))


def page_of(*rows: str | dict[str, Any], body: Callable[[bytes], bytes] = lambda body: body) -> Page:
    """The page with these rows; a row given as text is put in as it stands."""
    texts = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    answer = plaid_sync([], "c1").content.replace(b'"added": []', b'"added": [' + ", ".join(texts).encode() + b"]")
    pages = [page for page in plaid_pages(body(answer)) if page.feed == "transactions"]
    assert len(pages) == 1
    return pages[0]


def read(page: Page) -> tuple[dict[str, TransactionRecord], dict[str, str]]:
    """What could be mapped, and the reason for each that could not."""
    good: dict[str, TransactionRecord] = {}
    bad = {str(reject.record_key or index): reject.reason for index, reject in enumerate(page.rejects)}
    assert page.map_transaction is not None
    for row in page.transactions:
        try:
            good[row.key] = page.map_transaction(row)
        except BadRecord as error:
            bad[row.key] = error.reason
    return good, bad


def with_amount(text: str) -> str:
    return json.dumps(plaid_row("bad", amount="AMOUNT")).replace('"AMOUNT"', text)


@pytest.mark.deep
@pytest.mark.parametrize(
    ("amount", "reason"),
    [
        ("NaN", "amount_not_finite"),
        ("Infinity", "amount_not_finite"),
        ("-Infinity", "amount_not_finite"),
        ('"NaN"', "amount_not_finite"),
        ('"sNaN123"', "amount_not_finite"),
        ("1e400", "amount_out_of_range"),
        ('"1e400"', "amount_out_of_range"),
        ("-1e30", "amount_out_of_range"),
        ("1e-400", "amount_too_long"),
        ("0." + "1" * 41, "amount_too_long"),
        ('"1,234.56"', "amount_unreadable"),
        ('""', "amount_unreadable"),
        ("true", "amount_unreadable"),
        ("null", "amount_unreadable"),
        ("{}", "amount_unreadable"),
        ("9" * 5000, "amount_out_of_range"),
    ],
)
def test_amount_that_is_no_money_is_quarantined_and_the_rest_lands(amount: str, reason: str) -> None:
    good, bad = read(page_of(with_amount(amount), GOOD))

    assert list(good) == ["good"]
    assert bad == {"bad": reason}


def test_amounts_are_exact() -> None:
    good, _ = read(page_of(plaid_row("a", amount=0), with_amount("0.1"), with_amount("0.2").replace("bad", "worse")))

    assert good["bad"].amount + good["worse"].amount == Decimal("-0.3")
    assert str(good["a"].amount) == "0"


def test_amount_of_forty_digits_keeps_every_one_of_them() -> None:
    text = "1234567890123456789012.123456789012345678"

    good, _ = read(page_of(with_amount(text)))

    assert str(good["bad"].amount) == f"-{text}"


def test_arithmetic_does_not_round() -> None:
    long = Decimal("1234567890123456789.0123456789012345678")

    assert str(negated(long)) == f"-{long}"
    assert product(long, Decimal(100)) == Decimal("123456789012345678901.23456789012345678")
    assert total([long, Decimal("0.0000000000000000001")]) == Decimal("1234567890123456789.0123456789012345679")
    assert str(negated(Decimal("-0.0"))) == "0"
    assert checked(Decimal("1E+5"), "amount") == 100_000


def test_nul_is_stripped_and_flagged() -> None:
    row = json.dumps(plaid_row("a", name="COR\x00NER \\u0000", merchant_name="S\x00hop"))

    good, _ = read(page_of(row, GOOD))

    assert (good["a"].description, good["a"].counterparty) == ("CORNER \\u0000", "Shop")
    assert good["a"].flags == ("nul_stripped",)
    assert good["good"].flags == ()


def test_nul_in_an_id_is_stripped_from_the_key() -> None:
    good, _ = read(page_of(json.dumps(plaid_row("a\x00b")), GOOD))

    assert set(good) == {"ab", "good"}


@pytest.mark.deep
@pytest.mark.parametrize("lone", ["\\ud800", "\\udc00", "\\ud83dx", "\\ud800\\ud800"])
def test_lone_surrogate_is_replaced_and_flagged(lone: str) -> None:
    row = json.dumps(plaid_row("a", name="NAME")).replace("NAME", f"A{lone} \\ud83d\\ude00 \\\\ud800")

    good, _ = read(page_of(row, GOOD))

    assert good["a"].description is not None
    assert good["a"].description.startswith("A\ufffd")
    assert good["a"].description.endswith(" \U0001f600 \\ud800")
    assert good["a"].flags == ("text_replaced",)
    assert good["good"].flags == ()


def test_repair_of_one_record_leaves_the_bytes_of_the_others_alone() -> None:
    alone = page_of(GOOD).transactions[0]

    beside = page_of(with_amount("NaN"), GOOD).transactions[1]

    assert beside == alone


@pytest.mark.deep
@pytest.mark.parametrize(
    "spoil",
    [
        lambda body: body.replace(b"CORNER", b"COR\xff\xfeNER"),
        lambda body: body[:-20],
        lambda body: b"<html>" + body,
        lambda body: body.replace(b'"added": [', b'"added": [' + b"[" * 100_000),
        lambda body: b"[]",
        lambda body: b"null",
        lambda body: b"",
        lambda body: body.replace(b'"has_more": false', b'"has_more": "no"'),
        lambda body: body.replace(b'"next_cursor": "c1", ', b""),
        lambda body: body.replace(b'"c1"', b"9" * 5000),
    ],
)
def test_page_that_cannot_be_read_is_a_problem_and_moves_no_cursor(spoil: Callable[[bytes], bytes]) -> None:
    pages = plaid_pages(spoil(plaid_sync([GOOD], "c1").content))

    assert [page for page in pages if page.feed == "transactions"] == []
    (problem,) = [problem for page in pages for problem in page.problems]
    assert isinstance(problem, BadPayload)
    assert pages[0].accounts, "what came before it stays"


def test_body_over_the_limit_is_refused_and_moves_no_cursor() -> None:
    pages = plaid_pages(plaid_sync([plaid_row(f"t{i}") for i in range(50)], "c1").content, max_bytes=4000)

    assert all(page.cursor is None for page in pages)
    assert [problem.reason for page in pages for problem in page.problems] == ["body_too_large"]


@pytest.mark.deep
@pytest.mark.parametrize("field", ["date", "datetime"])
@pytest.mark.parametrize("value", ["0000-00-00", "10000-01-01", "2025-13-01", "yesterday", 20250305, ""])
def test_date_that_is_none_is_quarantined(field: str, value: object) -> None:
    good, bad = read(page_of(plaid_row("bad", **{field: value}), GOOD))

    assert list(good) == ["good"]
    assert bad == {"bad": f"{field}_unreadable"}


def test_time_without_zone_is_taken_as_utc_and_flagged() -> None:
    good, _ = read(page_of(plaid_row("a", datetime="2025-03-05T10:00:00")))

    assert good["a"].occurred_at is not None
    assert good["a"].occurred_at.isoformat() == "2025-03-05T10:00:00+00:00"
    assert good["a"].flags == ("time_without_zone",)


@pytest.mark.deep
@pytest.mark.parametrize("row", ["null", "[]", "7", '"text"', "{}", '{"transaction_id":7,"account_id":"a"}'])
def test_row_without_ids_is_quarantined_at_once(row: str) -> None:
    page = page_of(row, GOOD)

    assert [record.key for record in page.transactions] == ["good"]
    assert len(page.rejects) == 1


def test_missing_amount_names_the_field() -> None:
    _, bad = read(page_of({"transaction_id": "a", "account_id": "acc_checking", "date": "2025-03-05"}))

    assert bad == {"a": "amount_missing"}


def test_unknown_fields_are_ignored() -> None:
    good, bad = read(page_of(plaid_row("a", surprise={"nested": [1, 2]}, other=9 * 10**100)))

    assert (list(good), bad) == (["a"], {})


def test_empty_account_list_is_not_called_complete() -> None:
    for key, empty in (("plaid", {"accounts": []}), ("schwab", [])):
        subject = provider(key, lambda request, empty=empty: httpx.Response(200, json=empty))  # type: ignore[misc]

        async def first_page(pages: Any) -> Page:
            async for page in pages:
                return page
            raise AssertionError

        page = asyncio.run(first_page(subject.integration.pages(sync_request())))

        assert page.accounts == []
        assert not page.accounts_complete


def test_account_that_cannot_be_read_is_quarantined_and_the_list_not_called_complete() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/accounts/get":
            accounts = [plaid_account("acc_checking"), plaid_account("x", name=5), None]
            return httpx.Response(200, json={"accounts": accounts})
        return plaid_error("PRODUCTS_NOT_SUPPORTED")

    (page,) = asyncio.run(all_pages(provider("plaid", handler).integration.pages(sync_request())))

    assert [account.account_key for account in page.accounts] == ["acc_checking"]
    assert not page.accounts_complete
    assert [(reject.kind, reject.reason) for reject in page.rejects] == [
        ("account", "name_unreadable"),
        ("account", "not_an_object"),
    ]


def test_holding_that_cannot_be_read_makes_no_holding_vanish() -> None:
    holdings = [
        {"account_id": "acc_brokerage", "security_id": "sec_acme", "quantity": 1},
        {"account_id": "acc_brokerage", "security_id": "nobody", "quantity": 1},
        {"account_id": "acc_brokerage", "security_id": "sec_acme", "quantity": "NaN"},
    ]
    answer = {"accounts": [plaid_account("acc_brokerage")], "holdings": holdings, "securities": PLAID_SECURITIES}

    def handler(request: httpx.Request) -> httpx.Response:
        match request.url.path:
            case "/accounts/get":
                return httpx.Response(200, json={"accounts": [plaid_account("acc_brokerage")]})
            case "/investments/holdings/get":
                return httpx.Response(200, json=answer)
        return plaid_error("NO_ACCOUNTS")

    page = asyncio.run(all_pages(provider("plaid", handler).integration.pages(sync_request())))[1]

    assert len(page.holdings) == 1
    assert [reject.reason for reject in page.rejects] == ["security_unknown", "quantity_not_finite"]
    assert page.holdings_complete_for == frozenset()


# Schwab's pages have another shape and the same guarantees.


def schwab_rows(*rows: str | dict[str, Any], numbers: Any = SCHWAB_NUMBERS) -> list[Page]:
    number = next(iter(numbers))
    text = "[" + ",".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "]"

    def handler(request: httpx.Request) -> httpx.Response:
        if "/transactions" in request.url.path and numbers[number] in request.url.path:
            return httpx.Response(200, content=text.encode())
        return schwab_healthy(request)

    pages = asyncio.run(
        all_pages(provider("schwab", handler).integration.pages(sync_request(backfill=NOW.date() - date(2025, 3, 1))))
    )
    return [page for page in pages if page.feed == f"account:{numbers[number]}"]


def schwab_row(activity_id: int, **changes: Any) -> dict[str, Any]:
    return schwab_trade("12345678", activity_id, NOW, **changes)


@pytest.mark.deep
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"netAmount": "1,234.56"}, "netAmount_unreadable"),
        ({"netAmount": "NaN"}, "netAmount_not_finite"),
        ({"netAmount": None}, "netAmount_unreadable"),
        ({"tradeDate": "0000-00-00T00:00:00+0000"}, "tradeDate_unreadable"),
        ({"time": "10000-01-01T00:00:00+0000"}, "time_unreadable"),
        ({"time": None, "tradeDate": None}, "time_missing"),
    ],
)
def test_schwab_record_that_cannot_be_trusted_is_quarantined(changes: dict[str, Any], reason: str) -> None:
    (page,) = schwab_rows(schwab_row(1, **changes), schwab_row(2))

    good, bad = read(page)

    assert list(good) == ["2"]
    assert bad == {"1": reason}


def test_schwab_row_of_another_account_is_quarantined_with_its_number_masked() -> None:
    (page,) = schwab_rows(schwab_row(1, accountNumber="99998888"), schwab_row(2))

    assert [row.key for row in page.transactions] == ["2"]
    (reject,) = page.rejects
    assert reject.reason == "account_unknown"
    assert reject.payload is not None
    assert reject.payload["accountNumber"] == "…8888"


def test_schwab_id_of_five_thousand_digits_is_quarantined() -> None:
    endless = json.dumps(schwab_row(1)).replace('"activityId": 1', '"activityId": ' + "9" * 5000)

    (page,) = schwab_rows(endless, schwab_row(2))

    assert [row.key for row in page.transactions] == ["2"]
    assert [reject.reason for reject in page.rejects] == ["activityId_unreadable"]


def without_id(activity_id: int, **changes: Any) -> dict[str, Any]:
    return {name: value for name, value in schwab_row(activity_id, **changes).items() if name != "activityId"}


def test_schwab_pending_rows_without_id_are_recognised_by_their_content() -> None:
    coffee, shirt = without_id(1, status="PENDING", netAmount=-5), without_id(1, status="PENDING", netAmount=-50)
    shuffled = json.dumps(dict(reversed(coffee.items())), separators=(",", ":"))

    (page,) = schwab_rows(coffee, shirt, coffee, schwab_row(2, status=5))
    (again,) = schwab_rows(schwab_row(2, status=5), shuffled, shuffled, shirt)

    keys = [row.key for row in page.transactions]
    assert sorted(keys) == sorted(row.key for row in again.transactions)
    assert len(set(keys)) == 4
    assert keys[2] == f"{keys[0]}:2"
    good, bad = read(page)
    assert (good[keys[1]].amount, good[keys[1]].status, bad) == (
        Decimal(-50),
        TransactionStatus.PENDING,
        {"2": "status_unreadable"},
    )


def test_schwab_settled_row_without_id_is_quarantined() -> None:
    (page,) = schwab_rows(without_id(1), schwab_row(2))

    assert [row.key for row in page.transactions] == ["2"]
    assert [reject.reason for reject in page.rejects] == ["activityId_missing"]


def test_schwab_nan_spoils_one_row_only() -> None:
    (page,) = schwab_rows(json.dumps(schwab_row(1)).replace("-1512.66", "NaN"), schwab_row(2))

    assert read(page)[1] == {"1": "netAmount_not_finite"}
    assert list(read(page)[0]) == ["2"]


def test_schwab_account_without_a_hash_is_quarantined_masked_and_the_list_not_called_complete() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/accounts"):
            return httpx.Response(200, json=[schwab_account("12345678"), schwab_account("55556666")])
        return schwab_healthy(request)

    pages = asyncio.run(
        all_pages(provider("schwab", handler).integration.pages(sync_request(backfill=NOW.date() - date(2025, 3, 9))))
    )

    assert [account.mask for account in pages[0].accounts] == ["5678"]
    assert not pages[0].accounts_complete
    (reject,) = pages[0].rejects
    assert (reject.reason, reject.payload) == ("account_without_hash", {"mask": "6666"})

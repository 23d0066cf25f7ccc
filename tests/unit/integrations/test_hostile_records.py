"""Whole records with anything in any field: each is mapped or refused alone, and what is mapped can be stored."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import httpx
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.integrations.scripts import (
    NOW,
    PLAID_SECURITIES,
    SCHWAB_NUMBERS,
    plaid_account,
    plaid_investment,
    plaid_row,
    schwab_account,
    schwab_trade,
)
from tests.unit.integrations.test_integrations_bad_data import page_of, plaid_pages, read, schwab_rows
from worker.crud.sync.work import read as read_one
from worker.errors import BadPayload, BadRecord
from worker.integrations.kit import reading
from worker.integrations.kit.base import Page, RawRecord
from worker.integrations.plaid import pages as plaid_pages_module
from worker.integrations.schwab import pages as schwab_pages_module
from worker.models.records import TransactionRecord

NUMBER = next(iter(SCHWAB_NUMBERS))
DEEP = "[" * 100_000 + "]" * 100_000
EXTREME_TIMES = [
    "0001-01-01T00:00:00+0100",
    "0001-01-01T00:00:00Z",
    "0001-01-01T00:00:00",
    "9999-12-31T23:59:59-0500",
    "9999-12-31T23:59:59.999999Z",
]

# What providers have sent, and what nobody should.
ODD_VALUES = [None, True, 0, -1, 10**400, 1e308, -0.0, "", "NaN", "1e400", "\x00", "\ud800", "x" * 600, [], {}, [[1]]]
ODD_WORDS = [*EXTREME_TIMES, "0001-01-01", "9999-12-31", "10000-01-01", "U", "USD", "usd", "U" * 500]
ODD = st.sampled_from([*ODD_VALUES, *ODD_WORDS, {"a": {"b": []}}])
ANYTHING = (
    ODD
    | st.text(max_size=30)
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.datetimes().map(datetime.isoformat)
    | st.datetimes(timezones=st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes)))).map(
        datetime.isoformat
    )
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of all fields of a record."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*path, key)
        yield from places(item, (*path, key))


@st.composite
def spoilt(draw: st.DrawFn, record: dict[str, Any]) -> dict[str, Any]:
    """A good record with anything in up to four of its fields, or without them."""
    result: dict[str, Any] = json.loads(json.dumps(record))
    for path in draw(st.lists(st.sampled_from(list(places(record))), min_size=1, max_size=4)):
        holder = result
        for key in path[:-1]:
            holder = holder[key] if isinstance(holder, list | dict) and _has(holder, key) else {}
        if _has(holder, path[-1]):
            if isinstance(holder, dict) and draw(st.booleans()):
                del holder[path[-1]]
            else:
                holder[path[-1]] = draw(ANYTHING)
    return result


def _has(holder: Any, key: Any) -> bool:
    return key in holder if isinstance(holder, dict) else isinstance(holder, list) and key < len(holder)


def raws(*records: dict[str, Any]) -> list[msgspec.Raw]:
    """Records as a reader's first step gives them; what JSON has no word for is mended like on a page."""
    return reading.Reader(list[msgspec.Raw]).page(json.dumps(records).encode())


def assert_each_is_mapped_or_refused(page: Page, count: int) -> None:
    assert page.map_transaction is not None
    for row in page.transactions:
        try:
            record = page.map_transaction(row)
        except BadRecord:
            continue
        assert_storable(record)
    assert len(page.transactions) + len(page.rejects) == count
    for reject in page.rejects:
        assert not reject.reason.startswith("mapping_failed"), "the readers know their own faults"


def assert_storable(record: TransactionRecord) -> None:
    """No time zone leads out of the calendar; texts and figures are what columns take."""
    if record.occurred_at is not None:
        for hours in (-24, 24):
            record.occurred_at.astimezone(timezone(timedelta(hours=hours) - timedelta(minutes=1) * (hours // 24)))
    assert record.amount.is_finite()
    for text in (record.description, record.counterparty, record.currency, record.provider_type):
        assert text is None or "\x00" not in text
        (text or "").encode()
    assert 3 <= len(record.currency) <= 12


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(
    spoilt(plaid_row("t", pending=True, datetime="2025-03-05T10:00:00Z", authorized_datetime="2025-03-04T10:00:00Z"))
)
def test_plaid_row_with_anything_in_it_costs_itself_alone(row: dict[str, Any]) -> None:
    body = json.dumps({"added": [row, plaid_row("good")], "modified": [], "removed": [], "next_cursor": "c"}).encode()
    body = body[:-1] + b',"has_more":false}'

    page = plaid_pages_module.sync_page(body, plaid_pages_module.sync.page(body))

    assert_each_is_mapped_or_refused(page, 2)
    assert page.transactions[-1].key == "good"


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(spoilt(plaid_investment("i", "2025-03-05", transaction_datetime="2025-03-05T10:00:00+0100")))
def test_plaid_investment_with_anything_in_it_costs_itself_alone(row: dict[str, Any]) -> None:
    page = plaid_pages_module.investments_page(raws(row, plaid_investment("g", "2025-03-05")), raws(*PLAID_SECURITIES))

    assert_each_is_mapped_or_refused(page, 2)
    assert page.transactions[-1].key == "g"


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(spoilt(schwab_trade(NUMBER, 1, NOW)))
def test_schwab_row_with_anything_in_it_costs_itself_alone(row: dict[str, Any]) -> None:
    body = json.dumps([row, schwab_trade(NUMBER, 2, NOW)]).encode()

    page = schwab_pages_module.transactions_page(body, schwab_pages_module.rows.page(body), "key", NUMBER)

    assert_each_is_mapped_or_refused(page, 2)
    assert page.transactions[-1].key == "2"


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(spoilt(schwab_account(NUMBER)), st.none() | spoilt({"accountNumber": NUMBER, "hashValue": "A"}))
def test_schwab_account_with_anything_in_it_costs_itself_alone(account: dict[str, Any], pair: Any) -> None:
    other = "87654321"
    numbers = [pair or {"accountNumber": NUMBER, "hashValue": "A"}, {"accountNumber": other, "hashValue": "B"}]

    listing = schwab_pages_module.read_listing(
        json.dumps(numbers).encode(), json.dumps([account, schwab_account(other)]).encode(), None
    )

    assert "B" in {found.account_key for found in listing.page.accounts}
    assert "B" in {held.account_key for held in listing.page.holdings}
    assert all(not reject.reason.startswith("mapping_failed") for reject in listing.page.rejects)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(
    spoilt(plaid_account("acc_1") | {"balances": plaid_account("a")["balances"] | {"last_updated_datetime": "x"}}),
    spoilt({"account_id": "acc_1", "security_id": "sec_acme", "quantity": 1, "institution_price_as_of": "2025-03-05"}),
    spoilt(PLAID_SECURITIES[1]),
)
def test_plaid_account_position_or_security_with_anything_in_it_costs_itself_alone(
    account: dict[str, Any], holding: dict[str, Any], security: dict[str, Any]
) -> None:
    good = {"account_id": "good", "security_id": "sec_acme", "quantity": 1}

    listed = plaid_pages_module.accounts_page(json.dumps({"accounts": [account, plaid_account("good")]}).encode())
    held = plaid_pages_module.holdings_page(
        json.dumps(
            {"accounts": [account, good], "holdings": [holding, good], "securities": [security, PLAID_SECURITIES[0]]}
        ).encode()
    )

    assert "good" in {found.account_key for found in listed.accounts}
    assert "good" in {found.account_key for found in held.holdings}
    assert all(not r.reason.startswith("mapping_failed") for r in [*listed.rejects, *held.rejects])


@pytest.mark.deep
@pytest.mark.parametrize("field", ["time", "tradeDate", "settlementDate"])
@pytest.mark.parametrize("value", EXTREME_TIMES)
def test_schwab_time_at_the_edge_of_the_calendar_is_quarantined(field: str, value: str) -> None:
    bad = schwab_trade(NUMBER, 1, NOW, **{field: value})

    (page,) = schwab_rows(bad, schwab_trade(NUMBER, 2, NOW))

    assert read(page)[1] == {"1": f"{field}_out_of_range"}
    assert list(read(page)[0]) == ["2"]


@pytest.mark.deep
@pytest.mark.parametrize("field", ["datetime", "authorized_datetime"])
@pytest.mark.parametrize("value", EXTREME_TIMES)
def test_plaid_time_at_the_edge_of_the_calendar_is_quarantined(field: str, value: str) -> None:
    good, bad = read(page_of(plaid_row("bad", **{field: value}), plaid_row("good")))

    assert (list(good), bad) == (["good"], {"bad": f"{field}_out_of_range"})


@pytest.mark.deep
@pytest.mark.parametrize("year", ["0002", "9998"])
def test_time_that_every_time_zone_can_show_is_kept(year: str) -> None:
    good, _ = read(page_of(plaid_row("a", datetime=f"{year}-01-01T00:00:00+14:00")))

    assert good["a"].occurred_at is not None
    assert good["a"].occurred_at.tzinfo is UTC


def test_fault_of_the_mapping_itself_is_the_records_and_has_the_exceptions_name() -> None:
    def broken(row: RawRecord) -> TransactionRecord:
        raise OverflowError("date value out of range")

    page = Page(transactions=[RawRecord("a", "account", b"{}")], map_transaction=broken)

    refused = read_one(page, page.transactions[0])

    assert isinstance(refused, BadRecord)
    assert refused.reason == "mapping_failed:OverflowError"
    assert "out of range" not in str(refused), "what an exception says may quote the record"


@pytest.mark.deep
@pytest.mark.parametrize("code", ["U", "US", "USDX", "usd", "U$D", "U" * 500])
def test_currency_that_is_no_code_is_quarantined(code: str) -> None:
    good, bad = read(page_of(plaid_row("bad", iso_currency_code=code), plaid_row("good")))

    assert (list(good), bad) == (["good"], {"bad": "currency_malformed"})


@pytest.mark.deep
@pytest.mark.parametrize(
    ("code", "fine"), [("BTC", True), ("USDT", True), ("B", False), ("B" * 13, False), ("€", False)]
)
def test_unofficial_currency_has_three_to_twelve_letters_and_digits(code: str, fine: bool) -> None:
    good, bad = read(page_of(plaid_row("a", iso_currency_code=None, unofficial_currency_code=code)))

    assert (good["a"].currency if good else bad["a"]) == (code if fine else "currency_malformed")


def test_account_with_a_currency_that_is_no_code_is_quarantined() -> None:
    balances = {"current": 1, "iso_currency_code": "U" * 500}

    page = plaid_pages_module.accounts_page(
        json.dumps({"accounts": [plaid_account("bad", balances=balances), plaid_account("good")]}).encode()
    )

    assert [account.account_key for account in page.accounts] == ["good"]
    assert [reject.reason for reject in page.rejects] == ["currency_malformed"]


def twice(record: dict[str, Any], key: str, value: Any) -> str:
    """The record with one key a second time."""
    return json.dumps(record)[:-1] + f", {json.dumps(key)}: {json.dumps(value)}}}"


@pytest.mark.deep
@pytest.mark.parametrize(("key", "value"), [("amount", 1), ("date", "2025-01-01")])
def test_plaid_row_that_says_a_thing_twice_is_quarantined(key: str, value: Any) -> None:
    good, bad = read(page_of(twice(plaid_row("bad"), key, value), plaid_row("good")))

    assert (list(good), bad) == (["good"], {"bad": f"key_twice:{key}"})


@pytest.mark.deep
@pytest.mark.parametrize(("key", "value"), [("netAmount", 1), ("tradeDate", "2025-01-01T00:00:00Z")])
def test_schwab_row_that_says_a_thing_twice_is_quarantined(key: str, value: Any) -> None:
    (page,) = schwab_rows(twice(schwab_trade(NUMBER, 1, NOW), key, value), schwab_trade(NUMBER, 2, NOW))

    assert read(page)[1] == {"1": f"key_twice:{key}"}


def test_schwab_units_that_one_transfer_says_twice_are_quarantined() -> None:
    text = json.dumps(schwab_trade(NUMBER, 1, NOW)).replace('"amount": 10.0', '"amount": 10.0, "amount": 100')

    (page,) = schwab_rows(text, schwab_trade(NUMBER, 2, NOW))

    assert read(page)[1] == {"1": "key_twice:amount"}


def test_schwab_balance_and_position_that_say_a_thing_twice_are_quarantined_and_the_account_is_kept() -> None:
    text = json.dumps([schwab_account(NUMBER)])
    text = text.replace('"longQuantity": 25.0', '"longQuantity": 25.0, "longQuantity": 2').replace(
        '"liquidationValue": 5002.5, "long', '"liquidationValue": 5002.5, "liquidationValue": 9, "long'
    )

    listing = schwab_pages_module.read_listing(
        json.dumps([{"accountNumber": NUMBER, "hashValue": "A"}]).encode(), text.encode(), None
    )

    assert [account.account_key for account in listing.page.accounts] == ["A"]
    assert {(reject.kind, reject.reason) for reject in listing.page.rejects} == {
        ("balance", "key_twice:liquidationValue"),
        ("holding", "key_twice:longQuantity"),
    }
    assert listing.page.holdings_complete_for == frozenset()


def test_plaid_row_nested_without_end_costs_itself_alone_and_the_cursor_moves() -> None:
    deep = json.dumps(plaid_row("bad", location="DEEP")).replace('"DEEP"', DEEP)

    page = page_of(deep, plaid_row("good"))

    assert page.cursor == "c1"
    assert read(page)[1] == {"bad": "nested_too_deep"}
    assert list(read(page)[0]) == ["good"]
    assert page.transactions[1] == page_of(plaid_row("good")).transactions[0], "the others keep their bytes"


def test_element_that_is_nothing_but_depth_is_quarantined_without_a_name() -> None:
    page = page_of(DEEP, plaid_row("good"))

    assert [row.key for row in page.transactions] == ["good"]
    assert [reject.reason for reject in page.rejects] == ["nested_too_deep"]


def test_depth_that_does_not_end_is_no_page() -> None:
    pages = plaid_pages(b'{"added": [' + b"[" * 100_000)

    assert [problem.reason for page in pages for problem in page.problems] == ["not_json"]


@pytest.mark.deep
def test_schwab_row_nested_without_end_costs_itself_alone() -> None:
    deep = json.dumps(schwab_trade(NUMBER, 1, NOW, user="DEEP")).replace(
        '"DEEP"', '{"a":' * 50_000 + "1" + "}" * 50_000
    )

    (page,) = schwab_rows(deep, schwab_trade(NUMBER, 2, NOW))

    assert read(page)[1] == {"1": "nested_too_deep"}
    assert list(read(page)[0]) == ["2"]


def test_schwab_position_nested_without_end_costs_no_account() -> None:
    text = json.dumps([schwab_account(NUMBER), schwab_account("87654321")])
    text = text.replace('"assetType"', f'"x": {DEEP}, "assetType"', 1)
    numbers = [{"accountNumber": number, "hashValue": number[:2]} for number in (NUMBER, "87654321")]

    listing = schwab_pages_module.read_listing(json.dumps(numbers).encode(), text.encode(), None)

    assert listing.page.accounts_complete
    assert len(listing.page.balances) == 2
    assert [holding.account_key for holding in listing.page.holdings] == ["87"]
    assert [(reject.kind, reject.account_key, reject.reason) for reject in listing.page.rejects] == [
        ("holding", "12", "nested_too_deep")
    ]


def test_schwab_pair_of_number_and_hash_that_cannot_be_read_costs_that_account_alone() -> None:
    numbers = [{"accountNumber": NUMBER, "hashValue": None}, {"accountNumber": "87654321", "hashValue": "B"}]
    accounts = [schwab_account(NUMBER), schwab_account("87654321")]

    listing = schwab_pages_module.read_listing(json.dumps(numbers).encode(), json.dumps(accounts).encode(), None)

    assert [account.account_key for account in listing.page.accounts] == ["B"]
    assert not listing.page.accounts_complete


def test_end_of_consent_at_the_edge_of_the_calendar_is_not_believed() -> None:
    body = httpx.Response(200, json={"item": {"consent_expiration_time": EXTREME_TIMES[0]}}).content

    with pytest.raises(BadPayload, match="consent_expiration_time_out_of_range"):
        plaid_pages_module.consent_expires(body)

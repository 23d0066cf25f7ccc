"""Schwab's pages and words."""

from __future__ import annotations

import asyncio
import json
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import httpx
import pytest

from tests.unit.integrations.scripts import (
    ACCESS_TOKEN,
    NOW,
    SCHWAB_NUMBERS,
    all_pages,
    provider,
    schwab_account,
    schwab_healthy,
    schwab_trade,
    sync_request,
)
from worker.errors import (
    AccessExpired,
    AccountGone,
    BadPayload,
    BadRequest,
    Forbidden,
    ProviderError,
    RateLimited,
    Scope,
    Transient,
)
from worker.integrations.kit.base import Caller, Page, RawRecord, Window
from worker.integrations.schwab import mapping
from worker.integrations.schwab import pages as schwab_pages
from worker.integrations.schwab.vocabulary import SECURITY_TYPES, TYPES
from worker.models.records import HoldingRecord, TransactionRecord
from worker.models.vocabulary import SecurityType, TransactionStatus, TransactionType

TODAY = NOW.date()
FIRST = "12345678"
FIRST_HASH = SCHWAB_NUMBERS[FIRST]


def sync(handler: Any = None, **more: Any) -> list[Page]:
    return asyncio.run(all_pages(provider("schwab", handler).integration.pages(sync_request(**more))))


def mapped(**changes: Any) -> TransactionRecord:
    row = schwab_trade(FIRST, 7, NOW, **changes)
    return mapping.transaction(RawRecord("7", "key", json.dumps(row).encode()))


def item(amount: float, asset_type: str = "EQUITY", **more: Any) -> dict[str, Any]:
    instrument = {"assetType": asset_type, "symbol": "ACME"} | more.pop("instrument", {})
    return {"instrument": instrument, "amount": amount, "price": 2.5} | more


# Transactions


def test_trade_is_read_in_full() -> None:
    record = mapped()

    assert (record.type, record.subtype, record.status) == ("trade", "buy", "posted")
    assert (record.amount, record.quantity, record.price, record.fees) == (
        Decimal("-1512.66"),
        Decimal("10.0"),
        Decimal("151.2"),
        Decimal("0.66"),
    )
    assert (record.posted_date, record.settlement_date, record.occurred_at) == (TODAY, TODAY, NOW)
    assert record.security is not None
    assert (record.security.key, record.security.symbol) == ("cusip:000000AA1", "ACME")
    assert (record.account_key, record.transaction_key, record.provider_type) == ("key", "7", "TRADE")
    assert record.flags == ()


@pytest.mark.deep
@pytest.mark.parametrize(
    ("amount", "effect", "subtype"),
    [
        (10, "OPENING", "buy"),
        (10, "CLOSING", "buy_to_cover"),
        (10, None, "buy"),
        (10, "AUTOMATIC", "buy"),
        (-10, "CLOSING", "sell"),
        (-10, "OPENING", "short_sell"),
        (-10, None, "sell"),
        (-10, "UNKNOWN", "sell"),
    ],
)
@pytest.mark.parametrize("asset_type", ["EQUITY", "OPTION", "MUTUAL_FUND", "FUTURE"])
def test_buy_and_sell_follow_from_units_and_effect(
    amount: int, effect: str | None, subtype: str, asset_type: str
) -> None:
    record = mapped(transferItems=[item(amount, asset_type, positionEffect=effect)])

    assert (record.type, record.subtype, record.quantity) == (TransactionType.TRADE, subtype, Decimal(amount))


@pytest.mark.deep
@pytest.mark.parametrize(
    ("description", "subtype"),
    [
        ("REMOVAL OF OPTION DUE TO EXPIRATION", "option_expiration"),
        ("Removed due to Exercise", "option_exercise"),
        ("REMOVAL DUE TO ASSIGNMENT", "option_assignment"),
    ],
)
@pytest.mark.parametrize("kind", ["TRADE", "RECEIVE_AND_DELIVER"])
def test_end_of_an_option_is_recognised_by_its_description(description: str, subtype: str, kind: str) -> None:
    record = mapped(type=kind, netAmount=0, description=description, transferItems=[item(1, "OPTION")])

    assert (record.type, record.subtype) == (TransactionType.TRADE, subtype)


def test_option_words_about_something_else_change_nothing() -> None:
    assert mapped(description="EXERCISE BIKE CO", transferItems=[item(5)]).subtype == "buy"


@pytest.mark.parametrize(("amount", "subtype"), [(5, "security_in"), (-5, "security_out")])
def test_units_that_move_without_a_trade_are_a_transfer(amount: int, subtype: str) -> None:
    record = mapped(type="RECEIVE_AND_DELIVER", netAmount=0, transferItems=[item(amount)])

    assert (record.type, record.subtype) == (TransactionType.TRANSFER, subtype)


def test_several_instruments_leave_the_row_without_one_and_flagged() -> None:
    record = mapped(transferItems=[item(1, "OPTION"), item(-1, "OPTION")])

    assert (record.type, record.subtype, record.security, record.quantity) == ("trade", None, None, None)
    assert record.flags == ("several_instruments",)


@pytest.mark.parametrize("cost", [0.66, -0.66])
def test_fees_are_one_positive_sum_whatever_their_sign(cost: float) -> None:
    fees = [
        {"instrument": {"assetType": "CURRENCY"}, "cost": cost, "feeType": "COMMISSION"},
        {"amount": 0.04, "cost": 0, "feeType": "SEC_FEE"},
        {"feeType": "TAF_FEE"},
    ]

    assert mapped(transferItems=[*fees, item(1)]).fees == Decimal("0.70")


@pytest.mark.deep
@pytest.mark.parametrize(
    ("description", "items", "kind", "subtype"),
    [
        ("ACME CASH DIVIDEND", [], "income", "dividend"),
        ("QUALIFIED DIV ACME", [], "income", "dividend"),
        ("CREDIT INTEREST", [], "income", "interest"),
        ("BOND INTEREST", [], "income", "interest"),
        ("MARGIN INTEREST", [], "fee", "margin_interest"),
        ("REINVEST DIVIDEND ACME", [], "reinvestment", "dividend_reinvest"),
        ("LONG TERM CAP GAIN DISTRIBUTION", [], "income", "capital_gain_long"),
        ("SHORT TERM CAP GAIN", [], "income", "capital_gain_short"),
        ("RETURN OF CAPITAL", [], "income", "return_of_capital"),
        ("FOREIGN TAX PAID", [], "tax", "foreign_tax"),
        ("NRA TAX ADJ", [], "tax", "withholding"),
        (None, [item(1)], "income", "dividend"),
        (None, [item(1, "COLLECTIVE_INVESTMENT")], "income", "dividend"),
        (None, [item(1, "FIXED_INCOME")], "income", "interest"),
        (None, [item(1, "CURRENCY")], "income", None),
        ("SOMETHING ELSE", [], "income", None),
    ],
)
def test_income_is_told_apart_by_words_then_by_its_payer(
    description: str | None, items: list[Any], kind: str, subtype: str | None
) -> None:
    record = mapped(type="DIVIDEND_OR_INTEREST", netAmount=8.4, description=description, transferItems=items)

    assert (record.type, record.subtype) == (kind, subtype)


@pytest.mark.deep
@pytest.mark.parametrize(
    ("kind", "amount", "expected"),
    [
        ("ACH_RECEIPT", 5, ("transfer", "ach")),
        ("ACH_DISBURSEMENT", -5, ("transfer", "ach")),
        ("CASH_RECEIPT", 5, ("transfer", "deposit")),
        ("CASH_DISBURSEMENT", -5, ("transfer", "withdrawal")),
        ("ELECTRONIC_FUND", 5, ("transfer", "deposit")),
        ("ELECTRONIC_FUND", -5, ("transfer", "withdrawal")),
        ("WIRE_IN", 5, ("transfer", "wire")),
        ("WIRE_OUT", -5, ("transfer", "wire")),
        ("JOURNAL", 5, ("transfer", "internal")),
        ("MONEY_MARKET", 5, ("transfer", "internal")),
        ("MEMORANDUM", 0, ("other", "memorandum")),
        ("MARGIN_CALL", 0, ("other", "margin_call")),
        ("SMA_ADJUSTMENT", 0, ("other", "sma_adjustment")),
    ],
)
def test_movement_of_money_is_named_by_its_type(kind: str, amount: int, expected: tuple[str, str]) -> None:
    record = mapped(type=kind, netAmount=amount, transferItems=[])

    assert (record.type, record.subtype) == expected
    assert record.amount == amount


def test_all_published_types_are_in_the_table() -> None:
    published = {
        "TRADE", "RECEIVE_AND_DELIVER", "DIVIDEND_OR_INTEREST", "ACH_RECEIPT", "ACH_DISBURSEMENT", "CASH_RECEIPT",
        "CASH_DISBURSEMENT", "ELECTRONIC_FUND", "WIRE_OUT", "WIRE_IN", "JOURNAL", "MEMORANDUM", "MARGIN_CALL",
        "MONEY_MARKET", "SMA_ADJUSTMENT",
    }  # fmt: skip

    assert set(TYPES) == published


def test_correction_is_an_adjustment_whatever_it_corrects() -> None:
    record = mapped(activityType="ACTIVITY_CORRECTION")

    assert (record.type, record.subtype) == (TransactionType.ADJUSTMENT, "correction")


@pytest.mark.deep
@pytest.mark.parametrize(
    ("status", "expected", "flags"),
    [
        ("VALID", TransactionStatus.POSTED, ()),
        ("PENDING", TransactionStatus.PENDING, ()),
        ("INVALID", TransactionStatus.CANCELED, ()),
        ("UNKNOWN", TransactionStatus.POSTED, ("status_unknown",)),
        (None, TransactionStatus.POSTED, ("status_unknown",)),
    ],
)
def test_status(status: str | None, expected: TransactionStatus, flags: tuple[str, ...]) -> None:
    record = mapped(status=status)

    assert (record.status, record.flags) == (expected, flags)


def test_type_that_is_new_is_other_and_flagged() -> None:
    record = mapped(type="CRYPTO_TRANSFER", transferItems=[])

    assert (record.type, record.flags, record.provider_type) == ("other", ("type_unknown",), "CRYPTO_TRANSFER")


def test_time_with_another_offset_is_booked_on_its_utc_day() -> None:
    record = mapped(tradeDate="2025-03-04T22:00:00-0500", time=None)

    assert record.posted_date == date(2025, 3, 5)


def test_time_without_zone_is_utc_and_flagged() -> None:
    record = mapped(time="2025-03-04T22:00:00")

    assert record.occurred_at is not None
    assert record.occurred_at.utcoffset() == timedelta(0)
    assert record.flags == ("time_without_zone",)


def test_row_needs_no_more_than_id_type_amount_and_time() -> None:
    raw = b'{"activityId":7,"type":"TRADE","netAmount":-1,"time":"2025-03-04T22:00:00+0000"}'

    record = mapping.transaction(RawRecord("7", "key", raw))

    assert (record.type, record.subtype, record.security, record.fees) == ("trade", None, None, None)


# Accounts, balances, positions


def listing(account: dict[str, Any]) -> Page:
    numbers = json.dumps([{"accountNumber": FIRST, "hashValue": FIRST_HASH}]).encode()
    return schwab_pages.read_listing(numbers, json.dumps([account]).encode(), None).page


def position(**changes: Any) -> HoldingRecord:
    given = schwab_account(FIRST)
    instrument = {"assetType": "EQUITY", "symbol": "ACME"} | changes.pop("instrument", {})
    values = {"longQuantity": 2, "shortQuantity": 0, "averagePrice": 1.5, "marketValue": 4, "instrument": instrument}
    given["securitiesAccount"]["positions"] = [values | changes]
    (holding,) = listing(given).holdings
    return holding


def test_account_is_a_brokerage_with_margin_as_a_flag() -> None:
    (account,) = listing(schwab_account(FIRST)).accounts

    assert (account.account_key, account.provider_ref, account.mask) == (FIRST_HASH, FIRST_HASH, "5678")
    assert (account.type, account.subtype, account.margin, account.provider_type) == (
        "investment",
        "brokerage",
        True,
        "MARGIN",
    )


@pytest.mark.parametrize(
    ("changes", "current", "source"),
    [
        ({}, "5002.5", "aggregatedBalance.currentLiquidationValue"),
        ({"aggregatedBalance": {}}, "5002.5", "currentBalances.liquidationValue"),
    ],
)
def test_balance_is_taken_from_the_first_place_that_states_one(
    changes: dict[str, Any], current: str, source: str
) -> None:
    (balance,) = listing(schwab_account(FIRST, **changes)).balances

    assert (balance.current, balance.source) == (Decimal(current), source)
    assert (balance.cash, balance.market_value) == (Decimal("1200.0"), Decimal("3802.5"))


def test_balance_falls_back_to_the_start_of_the_day_and_says_so() -> None:
    account = schwab_account(FIRST, aggregatedBalance={})
    account["securitiesAccount"]["currentBalances"] = {"totalCash": 7, "cashAvailableForTrading": 6}

    (balance,) = listing(account).balances

    assert (balance.current, balance.source) == (Decimal(4990), "initialBalances.accountValue")
    assert (balance.cash, balance.available, balance.market_value) == (Decimal(7), Decimal(6), None)


def test_account_without_any_figure_has_an_unknown_balance() -> None:
    account = {"securitiesAccount": {"accountNumber": FIRST}}

    page = listing(account)

    assert (page.balances[0].current, page.balances[0].source) == (None, "none")
    assert page.holdings == []
    assert page.holdings_complete_for == {FIRST_HASH}


@pytest.mark.parametrize(
    ("aggregated", "reason"),
    [
        ({"currentLiquidationValue": "NaN"}, "current_not_finite"),
        ({"currentLiquidationValue": "1,0"}, "currentLiquidationValue_unreadable"),
        ([], "not_an_object"),
    ],
)
def test_balance_that_is_no_money_is_quarantined_and_the_account_stays(aggregated: object, reason: str) -> None:
    page = listing(schwab_account(FIRST, aggregatedBalance=aggregated))

    assert len(page.accounts) == 1
    assert page.balances == []
    assert [(reject.kind, reject.reason) for reject in page.rejects] == [("balance", reason)]


def test_short_position_is_negative() -> None:
    holding = position(longQuantity=0, shortQuantity=3)

    assert (holding.quantity, holding.cost_basis) == (Decimal(-3), Decimal("-4.5"))
    assert holding.holding_key.endswith(":short")


def test_cost_of_an_option_counts_its_multiplier() -> None:
    holding = position(instrument={"assetType": "OPTION", "symbol": "ACME 250117C00150000"})

    assert (holding.security.type, holding.security.multiplier) == (SecurityType.OPTION, 100)
    assert (holding.quantity, holding.cost_basis) == (Decimal(2), Decimal("300.0"))


# Positions have the one (`AccountOption`), transactions the other (`TransactionOption`).
@pytest.mark.parametrize("field", ["optionMultiplier", "optionPremiumMultiplier"])
def test_multiplier_that_schwab_states_is_used(field: str) -> None:
    option = {"assetType": "OPTION", "symbol": "ACME7", field: 10}

    holding = position(instrument=option, averagePrice=3.00)
    traded = mapped(transferItems=[item(2, "OPTION", instrument=option)])

    assert (holding.quantity, holding.security.multiplier, holding.cost_basis) == (2, Decimal(10), Decimal(60))
    assert traded.security == holding.security


@pytest.mark.parametrize("value", [0, None])
def test_multiplier_that_schwab_leaves_open_is_the_usual_hundred(value: object) -> None:
    holding = position(instrument={"assetType": "OPTION", "symbol": "ACME7", "optionMultiplier": value})

    assert holding.security.multiplier == 100


def test_multiplier_below_zero_is_quarantined() -> None:
    account = schwab_account(FIRST)
    option = {"assetType": "OPTION", "symbol": "ACME7", "optionMultiplier": -10}
    account["securitiesAccount"]["positions"][0]["instrument"] = option

    page = listing(account)

    assert page.holdings == []
    assert [reject.reason for reject in page.rejects] == ["optionMultiplier_negative"]


def test_etf_is_a_collective_investment_that_says_so() -> None:
    etf = position(instrument={"assetType": "COLLECTIVE_INVESTMENT", "type": "EXCHANGE_TRADED_FUND"})
    trust = position(instrument={"assetType": "COLLECTIVE_INVESTMENT", "type": "UNIT_INVESTMENT_TRUST"})

    assert (etf.security.type, trust.security.type) == (SecurityType.ETF, SecurityType.OTHER)


def test_cost_of_a_bond_is_not_guessed() -> None:
    holding = position(instrument={"assetType": "FIXED_INCOME"})

    assert (holding.cost_basis, holding.average_price) == (None, Decimal("1.5"))


@pytest.mark.deep
@pytest.mark.parametrize("asset_type", [*SECURITY_TYPES, "NEW_KIND"])
def test_every_asset_type_has_a_security_type(asset_type: str) -> None:
    assert isinstance(position(instrument={"assetType": asset_type}).security.type, SecurityType)


def test_security_without_cusip_is_keyed_by_type_and_symbol() -> None:
    assert position().security.key == "schwab:equity:ACME"


def test_position_without_any_identity_is_quarantined() -> None:
    account = schwab_account(FIRST)
    account["securitiesAccount"]["positions"] = [{"instrument": {"assetType": "EQUITY"}, "longQuantity": 1}]

    page = listing(account)

    assert [reject.reason for reject in page.rejects] == ["instrument_without_identity"]
    assert page.holdings_complete_for == frozenset()


def test_security_listed_twice_in_an_account_is_two_holdings() -> None:
    account = schwab_account(FIRST)
    account["securitiesAccount"]["positions"] *= 2

    keys = [holding.holding_key for holding in listing(account).holdings]

    assert keys == ["cusip:000000AA1:long", "cusip:000000AA1:long:2"]


# Account keys


def keys_after(*days: dict[str, str]) -> list[dict[str, str]]:
    cursor, result = None, []
    for hashes in days:
        keys, cursor = schwab_pages.assign_keys(hashes, cursor)
        result.append(keys)
    return result


def test_new_grant_lists_its_accounts_with_two_calls_and_no_transactions() -> None:
    schwab = provider("schwab")

    listed = asyncio.run(schwab.integration.list_accounts(Caller(manual=True), access_token=ACCESS_TOKEN))

    assert [(one.account_key, one.mask) for one in listed] == [(SCHWAB_NUMBERS[n], n[-4:]) for n in SCHWAB_NUMBERS]
    assert [request.url.path for request in schwab.requests] == [
        "/trader/v1/accounts/accountNumbers",
        "/trader/v1/accounts",
    ]
    assert {request.headers["authorization"] for request in schwab.requests} == {f"Bearer {ACCESS_TOKEN}"}


def test_new_grant_that_is_refused_lists_nothing() -> None:
    schwab = provider("schwab", lambda _: httpx.Response(401))

    with pytest.raises(AccessExpired):
        asyncio.run(schwab.integration.list_accounts(Caller(), access_token=ACCESS_TOKEN))


def test_account_keeps_its_key_under_a_new_hash() -> None:
    before, after, later = keys_after({"11112222": "H1"}, {"11112222": "H2"}, {"11112222": "H2"})

    assert before == after == later == {"11112222": "H1"}


def test_accounts_of_other_digits_are_not_mixed_up_when_all_hashes_change() -> None:
    before, after = keys_after(
        {"11112222": "H1", "33334444": "H2"}, {"33334444": "N2", "11112222": "N1", "55556666": "N3"}
    )

    assert after == before | {"55556666": "N3"}


def test_account_is_new_when_its_digits_leave_a_doubt() -> None:
    _, after = keys_after({"11112222": "H1", "99992222": "H2"}, {"11112222": "N1", "99992222": "N2"})

    assert after == {"11112222": "N1", "99992222": "N2"}


def test_newcomer_does_not_inherit_from_an_account_that_is_still_there() -> None:
    _, after = keys_after({"11112222": "H1"}, {"11112222": "H1", "99992222": "H9"})

    assert after == {"11112222": "H1", "99992222": "H9"}


def test_unreadable_cursor_begins_anew() -> None:
    keys, _ = schwab_pages.assign_keys({"11112222": "H1"}, "nonsense")

    assert keys == {"11112222": "H1"}


def test_cursor_of_keys_holds_no_account_number() -> None:
    _, cursor = schwab_pages.assign_keys({"11112222": "H1"}, None)

    assert "11112222" not in cursor


# Windows


def windows_asked(subject: Any, account_hash: str = FIRST_HASH) -> list[tuple[str, str]]:
    return [
        (request.url.params["startDate"], request.url.params["endDate"])
        for request in subject.requests
        if account_hash in request.url.path
    ]


def test_first_sync_reads_windows_oldest_first_without_a_gap() -> None:
    subject = provider("schwab")

    asyncio.run(all_pages(subject.integration.pages(sync_request(backfill=timedelta(days=200)))))

    asked = windows_asked(subject)
    assert [(start[:10], end[:10]) for start, end in asked] == [
        ("2024-08-22", "2024-11-19"),
        ("2024-11-20", "2025-02-17"),
        ("2025-02-18", "2025-03-10"),
    ]
    assert asked[0] == ("2024-08-22T00:00:00.000Z", "2024-11-19T23:59:59.999Z")
    assert asked[-1][1] == "2025-03-10T12:00:00.000Z"


@pytest.mark.deep
def test_all_types_are_asked_for() -> None:
    subject = provider("schwab")

    asyncio.run(all_pages(subject.integration.pages(sync_request(since=TODAY))))

    assert set(subject.requests[-1].url.params["types"].split(",")) == set(TYPES)


@pytest.mark.deep
def test_later_sync_reads_the_overlap_again() -> None:
    subject = provider("schwab")
    cursors = {f"account:{FIRST_HASH}": '{"through":"2025-03-08"}'}

    pages = asyncio.run(all_pages(subject.integration.pages(sync_request(cursors, overlap=timedelta(days=10)))))

    assert [(start[:10], end[:10]) for start, end in windows_asked(subject)] == [("2025-02-26", "2025-03-10")]
    (page,) = [page for page in pages if page.feed == f"account:{FIRST_HASH}"]
    assert (page.cursor, page.more) == ('{"through":"2025-03-10"}', False)


def test_days_that_are_surely_listed_leave_out_the_edges_but_today() -> None:
    pages = sync(backfill=timedelta(days=100))

    listed = [page.windows for page in pages if page.feed == f"account:{FIRST_HASH}"]
    assert listed == [
        (Window(FIRST_HASH, date(2024, 12, 1), date(2025, 2, 26)),),
        (Window(FIRST_HASH, date(2025, 3, 1), TODAY),),
    ]


def test_window_is_never_longer_than_a_year() -> None:
    subject = provider("schwab")

    asyncio.run(
        all_pages(subject.integration.pages(sync_request(window=timedelta(days=3000), backfill=timedelta(days=500))))
    )

    for start, end in windows_asked(subject):
        assert date.fromisoformat(end[:10]) - date.fromisoformat(start[:10]) < timedelta(days=366)


@pytest.mark.deep
def test_reading_again_since_a_day_resumes_where_it_broke_off() -> None:
    feed = f"account:{FIRST_HASH}"
    since = TODAY - timedelta(days=200)
    subject = provider("schwab")

    async def first_two() -> str:
        seen = []
        async for page in subject.integration.pages(sync_request({feed: '{"through":"2025-03-09"}'}, since=since)):
            if page.feed == feed:
                seen.append(page.cursor)
            if len(seen) == 1:
                break
        return str(seen[0])

    cursor = asyncio.run(first_two())
    resumed = provider("schwab")
    asyncio.run(all_pages(resumed.integration.pages(sync_request({feed: cursor}, since=since))))

    assert windows_asked(subject)[0][0][:10] == since.isoformat()
    assert windows_asked(resumed)[0][0][:10] == "2024-11-20"


def crowded(days: dict[str, int]) -> Any:
    """A provider whose first account has so many rows on these days; it lists at most 3,000."""
    rows = [
        (day, b'{"activityId":%d,"accountNumber":"12345678"}' % (number * 10_000 + i))
        for number, (day, count) in enumerate(days.items(), 1)
        for i in range(count)
    ]

    def handler(request: httpx.Request) -> httpx.Response:
        if "/transactions" not in request.url.path or FIRST_HASH not in request.url.path:
            return schwab_healthy(request)
        first, last = (request.url.params[name][:10] for name in ("startDate", "endDate"))
        listed = [text for day, text in rows if first <= day <= last][:3000]
        return httpx.Response(200, content=b"[" + b",".join(listed) + b"]")

    return handler


@pytest.mark.deep
def test_full_window_is_split_until_every_row_is_listed() -> None:
    handler = crowded({"2025-03-02": 1400, "2025-03-05": 1400, "2025-03-09": 1400})
    subject = provider("schwab", handler, max_bytes=1 << 24)

    pages = asyncio.run(all_pages(subject.integration.pages(sync_request(since=date(2025, 3, 1)))))

    rows = [row.key for page in pages for row in page.transactions if row.account_key == FIRST_HASH]
    assert len(rows) == len(set(rows)) == 4200
    assert not [problem for page in pages for problem in page.problems]


@pytest.mark.deep
def test_single_day_that_is_full_is_kept_and_said() -> None:
    subject = provider("schwab", crowded({"2025-03-05": 3500, "2025-03-06": 1}), max_bytes=1 << 24)

    pages = asyncio.run(all_pages(subject.integration.pages(sync_request(since=date(2025, 3, 4)))))

    own = [page for page in pages if page.feed == f"account:{FIRST_HASH}"]
    assert sum(len(page.transactions) for page in own) == 3001
    (problem,) = [problem for page in own for problem in page.problems]
    assert (problem.reason, problem.account_key, problem.scope) == ("day_with_3000_rows", FIRST_HASH, Scope.ACCOUNT)
    assert not any(window.first <= date(2025, 3, 5) <= window.last for page in own for window in page.windows)


# Errors


def transactions_answer(answer: httpx.Response) -> Any:
    def handler(request: httpx.Request) -> httpx.Response:
        return answer if FIRST_HASH in request.url.path else schwab_healthy(request)

    return handler


def test_account_that_an_earlier_run_of_this_reading_has_read_is_listed_and_asked_no_more() -> None:
    pages = sync(transactions_answer(httpx.Response(503)), done=frozenset({f"account:{FIRST_HASH}"}))

    assert FIRST_HASH in {account.account_key for account in pages[0].accounts}
    assert [problem for page in pages for problem in page.problems] == []
    assert any(page.transactions for page in pages)


@pytest.mark.deep
@pytest.mark.parametrize(
    ("answer", "kind", "reason"),
    [
        (httpx.Response(400, json={"message": "Bad request", "errors": ["startDate"]}), BadRequest, "http_400"),
        (httpx.Response(404, json={"message": "Account not found"}), AccountGone, "http_404"),
        (httpx.Response(503, text="<html>"), Transient, "http_503"),
        (httpx.Response(200, text="<html>"), BadPayload, "not_json"),
        (httpx.Response(200, json={"rows": []}), BadPayload, "unexpected_shape:page"),
        (
            httpx.Response(
                400, json={"fault": {"faultstring": "x", "detail": {"errorcode": "protocol.http.TooBigBody"}}}
            ),
            BadRequest,
            "protocol.http.TooBigBody",
        ),
    ],
)
def test_trouble_with_one_account_is_a_problem_and_the_others_go_on(
    answer: httpx.Response, kind: type[ProviderError], reason: str
) -> None:
    pages = sync(transactions_answer(answer))

    (problem,) = [problem for page in pages for problem in page.problems]
    assert (type(problem), problem.reason, problem.account_key, problem.scope) == (
        kind,
        reason,
        FIRST_HASH,
        Scope.ACCOUNT,
    )
    assert any(page.transactions for page in pages if page.feed == f"account:{SCHWAB_NUMBERS['87654321']}")


@pytest.mark.deep
@pytest.mark.parametrize(
    ("answer", "kind", "reason"),
    [
        (
            httpx.Response(401, json={"errors": [{"id": "1", "status": 401, "title": "Unauthorized", "detail": "x"}]}),
            AccessExpired,
            "Unauthorized",
        ),
        (httpx.Response(401, text=""), AccessExpired, "http_401"),
        (httpx.Response(429, json={"message": "slow down"}, headers={"retry-after": "5"}), RateLimited, "http_429"),
    ],
)
def test_trouble_with_the_login_or_the_application_stops_the_sync(
    answer: httpx.Response, kind: type[ProviderError], reason: str
) -> None:
    with pytest.raises(kind) as caught:
        sync(transactions_answer(answer))

    assert caught.value.reason == reason


@pytest.mark.deep
@pytest.mark.parametrize(
    ("answer", "kind", "reason"),
    [
        (httpx.Response(403, json={"message": "Access is denied"}), Forbidden, "http_403"),
        (httpx.Response(403, text="<html>blocked</html>"), Transient, "http_403_unreadable"),
    ],
)
def test_refusal_of_one_account_is_that_accounts_and_of_the_listing_this_logins(
    answer: httpx.Response, kind: type[ProviderError], reason: str
) -> None:
    pages = sync(transactions_answer(answer))
    with pytest.raises(kind) as caught:
        sync(lambda request: answer)

    ((problem,),) = [page.problems for page in pages if page.problems]
    assert (type(problem), problem.reason, problem.scope, problem.account_key) == (
        kind,
        reason,
        Scope.ACCOUNT,
        FIRST_HASH,
    )
    assert any(page.transactions for page in pages if page.feed == f"account:{SCHWAB_NUMBERS['87654321']}")
    assert (caught.value.reason, caught.value.scope is Scope.APP) == (reason, False)


@pytest.mark.parametrize("body", [b"", b"[]", b'{"errors":[]}', b'{"errors":"x"}', b'{"fault":"x"}', b'{"fault":{}}'])
def test_error_of_any_shape_is_survived(body: bytes) -> None:
    with pytest.raises(AccessExpired):
        sync(lambda request: httpx.Response(401, content=body))


def test_schwab_has_no_revocation() -> None:
    from worker.integrations.kit.base import Caller

    subject = provider("schwab")

    assert asyncio.run(subject.integration.revoke(Caller(), access_token="a", refresh_token="b")) is False
    assert subject.requests == []

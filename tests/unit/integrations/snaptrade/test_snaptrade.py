"""SnapTrade's answers: what a stand-in in good order would not do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.integrations.test_hostile_records import assert_each_is_mapped_or_refused, spoilt
from worker.errors import (
    AccessExpired,
    AccountGone,
    BadPayload,
    BadRecord,
    Forbidden,
    NotReady,
    ProviderError,
    RateLimited,
    ReauthRequired,
    Scope,
    Transient,
)
from worker.integrations.kit.base import Caller, Page, SyncRequest
from worker.integrations.kit.contract.subject import BASE_URL, every, rows_of, scripted_api
from worker.integrations.kit.windows import DateCursor
from worker.integrations.snaptrade.integration import Snaptrade, SnaptradeSettings
from worker.integrations.snaptrade.stand_in import StandIn
from worker.models.records import HoldingRecord, TransactionRecord
from worker.models.vocabulary import AccountStatus, AccountType, SecurityType, TransactionType

NOW = datetime(2025, 3, 10, 12, 0, tzinfo=UTC)
TODAY = NOW.date()
USD = {"id": "57f81c53-bdda-45a7-a51f-032afd1ae41b", "code": "USD", "name": "US Dollar"}
ACME = {"id": "sym-acme", "symbol": "ACME", "raw_symbol": "ACME", "currency": USD, "type": {"code": "cs"}}
OPTION = {"id": "sym-option", "ticker": "ACME  261218C00240000", "option_type": "CALL", "is_mini_option": False}
Handler = Callable[[httpx.Request], httpx.Response]


def account(id_: str = "A", *, connection: str = "C0", **more: Any) -> dict[str, Any]:
    done = {"initial_sync_completed": True}
    return {
        "id": id_,
        "brokerage_authorization": connection,
        "name": f"Individual {id_}",
        "number": "Q6542138443",
        "institution_name": "Robinhood",
        "created_date": "2025-01-01T00:00:00Z",
        "sync_status": {
            "transactions": {**done, "last_successful_sync": str(TODAY)},
            "holdings": {**done, "last_successful_sync": "2025-03-10 08:00:00.5+00:00"},
        },
        "balance": {"total": {"amount": 1500.25, "currency": "USD"}},
        "account_category": "INVESTMENT",
        "is_paper": False,
        **more,
    }


def activity(id_: str | None, day: date = TODAY, **more: Any) -> dict[str, Any]:
    usual = {"type": "CONTRIBUTION", "amount": 5.25, "currency": USD, "description": "ACH", "symbol": None}
    return {"id": id_, "trade_date": f"{day}T15:04:05Z", **usual, **more}


def buy(**more: Any) -> dict[str, Any]:
    usual = {"type": "BUY", "symbol": ACME, "units": 10, "price": 151.2, "amount": -1512.66, "fee": 0.66}
    return activity("t", **{**usual, **more})


def position(**more: Any) -> dict[str, Any]:
    thing = {"kind": "stock", "id": "sym-acme", "symbol": "ACME", "raw_symbol": "ACME", "currency": "USD"}
    return {"instrument": thing, "units": "10.5", "price": "123.45", "cost_basis": "118.2", "currency": "USD", **more}


@dataclass
class Server:
    """SnapTrade with these accounts. `answers` are given in place of its own, by the end of the path."""

    accounts: list[dict[str, Any]] = field(default_factory=lambda: [account()])
    connections: list[dict[str, Any]] = field(default_factory=lambda: [{"id": "C0", "disabled": False}])
    activities: list[dict[str, Any]] = field(default_factory=list)
    positions: list[Any] = field(default_factory=list)
    cash: list[dict[str, Any]] = field(default_factory=lambda: [{"currency": USD, "cash": 300.71}])
    answers: dict[str, Handler] = field(default_factory=dict)
    at_most: int = 1000

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        for end, answer in self.answers.items():
            if path.endswith(end):
                return answer(request)
        if path == "/authorizations":
            return httpx.Response(200, json=self.connections)
        if path == "/accounts":
            return httpx.Response(200, json=self.accounts)
        if path.endswith("/balances"):
            return httpx.Response(200, json=self.cash)
        if path.endswith("/positions/all"):
            return httpx.Response(200, json={"results": self.positions, "data_freshness": {"as_of": str(NOW)}})
        return self.page(request)

    def page(self, request: httpx.Request) -> httpx.Response:
        asked = request.url.params
        days = [row for row in self.activities if asked["startDate"] <= row["trade_date"][:10] <= asked["endDate"]]
        first, limit = int(asked["offset"]), min(int(asked["limit"]), self.at_most)
        told = {"offset": first, "limit": limit, "total": len(days)}
        return httpx.Response(200, json={"data": days[first : first + limit], "pagination": told})


def connected(handler: Handler) -> tuple[Snaptrade, list[httpx.Request]]:
    api, requests = scripted_api("snaptrade", handler, gate=None, max_bytes=1 << 24)
    values: dict[str, Any] = {**StandIn.credentials, "base_url": BASE_URL}
    return Snaptrade(SnaptradeSettings(_env_file=None, **values), api), requests


def request_of(cursors: dict[str, str] | None = None, **more: Any) -> SyncRequest:
    usual: dict[str, Any] = {"caller": Caller(), "backfill": timedelta(days=200)}
    return SyncRequest(access_token="at_1", cursors=cursors or {}, now=NOW, **{**usual, **more})


def read(handler: Handler, cursors: dict[str, str] | None = None, **more: Any) -> list[Page]:
    return asyncio.run(every(connected(handler)[0].pages(request_of(cursors, **more))))


def cursors_of(pages: list[Page]) -> dict[str, str]:
    return {page.feed: page.cursor for page in pages if page.cursor is not None}


def problems_of(pages: list[Page]) -> list[tuple[type[ProviderError], str, str | None]]:
    return [(type(error), error.reason, error.account_key) for page in pages for error in page.problems]


def row_of(record: dict[str, Any]) -> TransactionRecord:
    (found,) = [row for page in read(Server(activities=[record])) for row in rows_of(page).values()]
    return found


def refused(record: dict[str, Any]) -> str:
    with pytest.raises(BadRecord) as caught:
        row_of(record)
    return caught.value.reason


def held(*positions: Any, **server: Any) -> Page:
    (page,) = (page for page in read(Server(positions=list(positions), **server)) if page.balances)
    return page


def answering(status: int, body: Any = None, **headers: str) -> Handler:
    return lambda request: httpx.Response(status, json=body, headers=headers)


# Consent


def test_user_consents_at_the_dashboard_with_pkce_and_hooks_are_asked_for_where_there_is_a_key() -> None:
    integration, _ = connected(Server())
    address = urlsplit(integration.authorize_url("state-1", "challenge-1"))
    asked = {name: values[0] for name, values in parse_qs(address.query).items()}

    assert f"{address.scheme}://{address.netloc}{address.path}" == "https://dashboard.snaptrade.com/oauth/authorize"
    assert (asked["code_challenge"], asked["code_challenge_method"]) == ("challenge-1", "S256")
    assert asked["scope"] == "read webhook"


def test_without_a_consumer_key_no_hooks_are_asked_for() -> None:
    api, _ = scripted_api("snaptrade", Server(), gate=None, max_bytes=1000)
    values: dict[str, Any] = {**StandIn.credentials, "base_url": BASE_URL, "consumer_keys": None}
    integration = Snaptrade(SnaptradeSettings(_env_file=None, **values), api)

    assert integration.hooks is None
    assert parse_qs(urlsplit(integration.authorize_url("s", "c")).query)["scope"] == ["read"]


@pytest.mark.parametrize(
    ("sub", "login"),
    [({"snaptrade_user_id": "b5980c55"}, "b5980c55"), ({}, None), (None, None), ("b5980c55", None), ([1], None)],
)
def test_login_is_known_by_the_user_that_the_token_answer_names(sub: Any, login: str | None) -> None:
    tokens = {"access_token": "at_1", "refresh_token": "rt_1", "token_type": "Bearer", "expires_in": 36000, "sub": sub}
    integration, requests = connected(answering(200, tokens))
    answer = asyncio.run(integration.exchange(Caller(), {"code": "c", "code_verifier": "v"}, now=NOW))

    assert (answer.external_id, answer.refresh_token, answer.lifetime) == (login, "rt_1", timedelta(hours=10))
    assert requests[0].url.path == "/oauth/token/"
    assert parse_qs(requests[0].content.decode())["code_verifier"] == ["v"]


def test_grant_is_ended_by_its_refresh_token() -> None:
    integration, requests = connected(answering(200))

    assert asyncio.run(integration.revoke(Caller(), access_token="at_1", refresh_token="rt_1"))
    assert requests[0].url.path == "/oauth/revoke_token/"
    assert parse_qs(requests[0].content.decode()) == {"token": ["rt_1"], "token_type_hint": ["refresh_token"]}
    assert requests[0].headers["authorization"].startswith("Basic ")


# Accounts


def test_account_is_read_as_stated() -> None:
    (found,) = read(Server([account(raw_type="Margin", number="****8443", institution_account_id="54953432x")]))[
        0
    ].accounts

    assert (found.account_key, found.type, found.subtype, found.mask) == (
        "A",
        AccountType.INVESTMENT,
        "brokerage",
        "8443",
    )
    assert (found.currency, found.margin, found.official_name) == ("USD", True, "Robinhood Individual A")
    assert (found.institution, found.stable_keys) == ("Robinhood", ("54953432x",))


@pytest.mark.parametrize("number", ["Q6542138443", "****8443", "8443"])
def test_institution_s_id_that_may_be_the_account_number_is_not_kept(number: str) -> None:
    pages = read(Server([account(number=number, institution_account_id="6542138443")]))

    assert pages[0].accounts[0].stable_keys == ()
    assert "6542138443" not in repr(pages)


@pytest.mark.parametrize(
    ("given", "status", "subtype"),
    [
        ({"status": "open"}, AccountStatus.ACTIVE, "brokerage"),
        ({"status": None}, AccountStatus.ACTIVE, "brokerage"),
        ({"status": "closed"}, AccountStatus.CLOSED, "brokerage"),
        ({"status": "archived"}, AccountStatus.CLOSED, "brokerage"),
        ({"status": "unavailable"}, AccountStatus.INACCESSIBLE, "brokerage"),
        ({"account_category": "DEPOSIT"}, AccountStatus.ACTIVE, "deposit"),
        ({"account_category": None}, AccountStatus.ACTIVE, "brokerage"),
        ({"is_paper": True}, AccountStatus.ACTIVE, "paper"),
    ],
)
def test_state_and_kind_of_an_account(given: dict[str, Any], status: AccountStatus, subtype: str) -> None:
    (found,) = read(Server([account(**given)]))[0].accounts

    assert (found.status, found.subtype) == (status, subtype)


@pytest.mark.parametrize("balance", [None, {}, {"total": None}, {"total": {"amount": 1, "currency": None}}])
def test_account_without_a_stated_currency_gets_the_code_for_none_and_none_is_guessed(balance: Any) -> None:
    page = read(Server([account(balance=balance), account("B")]))[0]

    assert [one.currency for one in page.accounts] == ["XXX", "USD"]


def test_account_without_a_connection_is_refused_alone() -> None:
    bad = account()
    del bad["brokerage_authorization"]
    page = read(Server([bad, account("B")]))[0]

    assert [one.account_key for one in page.accounts] == ["B"]
    assert [one.kind for one in page.rejects] == ["account"]
    assert not page.accounts_complete


def test_empty_list_is_no_proof_that_all_accounts_are_gone() -> None:
    assert not read(Server([]))[0].accounts_complete


# Connections


BROKEN = [{"id": "C0", "disabled": False}, {"id": "C1", "disabled": True, "disabled_date": "2025-03-01T00:00:00Z"}]


def test_broken_connection_is_the_problem_of_its_accounts_and_the_others_go_on() -> None:
    server = Server([account("A"), account("B", connection="C1")], BROKEN, [activity("t")])
    integration, requests = connected(server)
    pages = asyncio.run(every(integration.pages(request_of())))

    assert problems_of(pages) == [(ReauthRequired, "connection_disabled", "B")]
    assert [one.account_key for one in pages[0].accounts] == ["A", "B"]
    assert not [one for one in requests if "/accounts/B" in one.url.path], (
        "its data comes from a store, and is not read"
    )
    assert {page.balances[0].account_key for page in pages if page.balances} == {"A"}
    assert cursors_of(pages).keys() == {"account:A"}


@pytest.mark.parametrize("bad", [None, {}, {"id": None}, {"id": "C0", "disabled": "yes"}, [], "C0", {"id": 7}])
def test_connection_that_cannot_be_read_stops_nothing(bad: Any) -> None:
    pages = read(Server([account("A"), account("B", connection="C1")], [bad, BROKEN[1]]))

    assert problems_of(pages) == [(ReauthRequired, "connection_disabled", "B")]
    assert cursors_of(pages).keys() == {"account:A"}


def test_account_that_a_new_connection_has_too_is_read_once_and_is_no_problem() -> None:
    same = {"institution_account_id": "I-1"}
    new = account("B2", created_date="2025-03-05T00:00:00Z", **same)
    pages = read(Server([account("B", connection="C1", **same), new], BROKEN))

    assert [(one.account_key, one.stable_keys) for one in pages[0].accounts] == [("B2", ("I-1",))]
    assert problems_of(pages) == []


def test_equal_ids_of_two_institutions_are_two_accounts() -> None:
    same = {"institution_account_id": "I-1"}
    pages = read(Server([account("A", **same), account("B", institution_name="Questrade", **same)]))

    assert [one.account_key for one in pages[0].accounts] == ["A", "B"]


@pytest.mark.parametrize("end", ["/balances", "/positions/all", "/activities"])
def test_connection_that_breaks_while_it_is_read_is_the_same_problem(end: str) -> None:
    body = {"detail": "Unable to sync with brokerage account because the connection is disabled.", "code": 3003}
    pages = read(Server([account("A"), account("B")], answers={f"/B{end}": answering(402, body)}))

    assert set(problems_of(pages)) == {(ReauthRequired, "connection_disabled", "B")}
    assert "account:A" in cursors_of(pages)


# Errors


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (401, {"detail": "Unable to verify signature sent", "code": "1076"}, AccessExpired),
        (403, {"detail": "No", "status_code": 403, "code": "1066"}, Forbidden),
        (503, {"detail": "Invalid response from Brokerage API.", "code": "3002"}, Transient),
        (402, {"default_detail": "disabled", "default_code": 3003}, ReauthRequired),
        (425, None, NotReady),
        (404, {}, AccountGone),
    ],
)
def test_meaning_of_an_answer_to_the_list_of_accounts(status: int, body: Any, error: type[ProviderError]) -> None:
    with pytest.raises(error):
        read(Server(answers={"/accounts": answering(status, body)}))


def test_account_that_is_being_populated_is_asked_again_and_the_others_go_on() -> None:
    body = {"detail": "The resource is currently being populated. Please try again later.", "code": 3012}
    server = Server([account("A"), account("B")], answers={"/A/activities": answering(425, body)})
    pages = read(server)

    (problem,) = [one for page in pages for one in page.problems]
    assert (type(problem), problem.account_key, problem.retry_after) == (NotReady, "A", timedelta(minutes=5))
    assert cursors_of(pages).keys() == {"account:B"}


def test_history_that_is_not_complete_yet_is_not_taken_for_all_of_it() -> None:
    first = account("A")
    first["sync_status"]["transactions"]["initial_sync_completed"] = False
    pages = read(Server([first], activities=[activity("t")]))

    assert problems_of(pages) == [(NotReady, "initial_sync", "A")]
    assert cursors_of(pages) == {}
    assert not [page for page in pages if page.transactions]


THROTTLED = {"detail": "Request was throttled. Expected available in 7 seconds.", "status_code": 429, "code": "0000"}


@pytest.mark.parametrize(
    ("headers", "scope", "seconds"),
    [
        ({}, Scope.APP, 7),
        ({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "31"}, Scope.APP, 31),
        ({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "soon"}, Scope.APP, 60),
        ({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "3", "X-RateLimit-Account-Remaining": "0",
          "X-RateLimit-Account-Reset": "40"}, Scope.APP, 40),
    ],
)  # fmt: skip
def test_limit_of_the_application_stops_the_sync_for_the_time_that_is_named(
    headers: dict[str, str], scope: Scope, seconds: int
) -> None:
    with pytest.raises(RateLimited) as caught:
        read(Server(answers={"/balances": answering(429, THROTTLED, **headers)}))

    assert (caught.value.scope, caught.value.retry_after) == (scope, timedelta(seconds=seconds))


def test_limit_of_one_account_is_its_problem_alone() -> None:
    headers = {"X-RateLimit-Remaining": "200", "X-RateLimit-Reset": "9"}
    headers |= {"X-RateLimit-Account-Remaining": "0", "X-RateLimit-Account-Reset": "23"}
    server = Server([account("A"), account("B")], answers={"/A/balances": answering(429, THROTTLED, **headers)})
    pages = read(server)

    (problem,) = [one for page in pages for one in page.problems]
    assert (type(problem), problem.account_key, problem.retry_after) == (RateLimited, "A", timedelta(seconds=23))
    assert "account:B" in cursors_of(pages)


def test_account_whose_last_call_is_used_is_left_alone_and_the_others_are_read() -> None:
    server = Server([account("A"), account("B")])
    last = {"X-RateLimit-Account-Remaining": "0", "X-RateLimit-Account-Reset": "50"}
    server.answers["/A/positions/all"] = answering(200, {"results": [], "data_freshness": {}}, **last)
    integration, requests = connected(server)
    pages = asyncio.run(every(integration.pages(request_of())))

    assert problems_of(pages) == [(RateLimited, "limit_reached", "A")]
    assert not [one for one in requests if one.url.path == "/accounts/A/activities"]
    assert cursors_of(pages).keys() == {"account:B"}


def test_nothing_more_is_sent_when_the_application_s_last_call_is_used() -> None:
    server = Server(answers={"/authorizations": answering(200, [], **{"X-RateLimit-Remaining": "0"})})
    integration, requests = connected(server)

    with pytest.raises(RateLimited, match="limit_reached"):
        asyncio.run(every(integration.pages(request_of())))
    assert len(requests) == 1


# Balances and positions


def test_numbers_are_exact_and_cost_is_of_all_units() -> None:
    page = held(position(units="10.500000000000000001", price="123.45", cost_basis="118.2"))
    (found,) = page.holdings

    assert found.quantity == Decimal("10.500000000000000001")
    assert found.market_value == Decimal("1296.22500000000000012345")
    assert (found.average_price, found.cost_basis) == (Decimal("118.2"), Decimal("1241.1000000000000001182"))
    assert (page.balances[0].current, page.balances[0].cash) == (Decimal("1500.25"), Decimal("300.71"))
    assert page.balances[0].as_of == datetime(2025, 3, 10, 8, 0, 0, 500_000, tzinfo=UTC)


def option(**more: Any) -> dict[str, Any]:
    thing = {"kind": "option", "id": "x", "symbol": OPTION["ticker"], "multiplier": "100", "option_type": "CALL"}
    return position(instrument={**thing, **more}, units="-2", price="1.5", cost_basis="2.25")


@pytest.mark.parametrize(("more", "value"), [({}, -300), ({"multiplier": "10"}, -30), ({"multiplier": None}, -300)])
def test_option_is_counted_in_contracts_and_priced_by_the_share(more: dict[str, Any], value: int) -> None:
    (found,) = held(option(**more)).holdings

    assert (found.quantity, found.market_value, found.security.type) == (-2, value, SecurityType.OPTION)
    assert found.security.key == f"snaptrade:option:{OPTION['ticker']}"
    assert found.holding_key.endswith(":short")


def test_option_held_and_option_traded_are_one_security() -> None:
    traded = row_of(buy(symbol=None, option_symbol=OPTION, option_type="BUY_TO_OPEN"))

    assert traded.security is not None
    assert traded.security.key == held(option()).holdings[0].security.key
    assert (traded.security.multiplier, traded.subtype) == (100, "buy_to_open")


@pytest.mark.parametrize(
    ("kind", "type_"),
    [
        ("stock", SecurityType.EQUITY),
        ("adr", SecurityType.EQUITY),
        ("etf", SecurityType.ETF),
        ("mutualfund", SecurityType.MUTUAL_FUND),
        ("cef", SecurityType.MUTUAL_FUND),
        ("crypto", SecurityType.CRYPTO),
        ("future", SecurityType.FUTURE),
        ("cfd", SecurityType.DERIVATIVE),
        ("other", SecurityType.OTHER),
        ("a-new-kind", SecurityType.OTHER),
    ],
)
def test_kind_of_a_position(kind: str, type_: SecurityType) -> None:
    (found,) = held(position(instrument={"kind": kind, "id": "x", "symbol": "X", "root_symbol": "X"})).holdings

    assert found.security.type is type_


def test_money_fund_is_cash_and_is_not_added_to_it() -> None:
    page = held(position(cash_equivalent=True, units="250.00", price="1", cost_basis="1"), position())
    kinds = {one.security.type: one.market_value for one in page.holdings}

    assert kinds[SecurityType.CASH] == 250
    assert page.balances[0].cash == Decimal("300.71")
    assert len({one.security.key for one in page.holdings}) == 2, (
        "one fund may be cash in one account and not in another"
    )


def test_money_in_several_currencies_is_a_position_of_each() -> None:
    cad = {"currency": {"code": "CAD"}, "cash": -20.5}
    page = held(cash=[{"currency": USD, "cash": 300.71}, cad, {"currency": {"code": "EUR"}, "cash": 0}])

    assert [(one.currency, one.quantity, one.security.type) for one in page.holdings] == [
        ("USD", Decimal("300.71"), SecurityType.CASH),
        ("CAD", Decimal("-20.5"), SecurityType.CASH),
    ]
    assert (page.balances[0].cash, page.balances[0].current) == (None, Decimal("1500.25"))


def test_holdings_that_the_brokerage_does_not_show_are_not_taken_for_none() -> None:
    hidden = account()
    hidden["sync_status"]["holdings"]["holdings_unavailable"] = True
    integration, requests = connected(Server([hidden]))
    pages = asyncio.run(every(integration.pages(request_of())))

    (page,) = (page for page in pages if page.balances)
    assert page.holdings_complete_for == frozenset()
    assert (page.balances[0].current, page.balances[0].cash) == (Decimal("1500.25"), None)
    assert not [one for one in requests if "positions" in one.url.path]


@pytest.mark.parametrize("body", [{}, {"data_freshness": {}}, {"results": None}, [], None, {"results": {}}])
def test_positions_without_a_list_are_a_bad_answer_and_close_nothing(body: Any) -> None:
    pages = read(Server(answers={"/positions/all": answering(200, body)}))

    assert [(kind, key) for kind, _, key in problems_of(pages)] == [(BadPayload, "A")]
    assert not [page for page in pages if page.holdings_complete_for or page.balances]
    assert "account:A" in cursors_of(pages)


@pytest.mark.parametrize(
    "bad",
    [
        {"units": None},
        {"units": "NaN"},
        {"units": "1,5"},
        {"price": "1e400"},
        {"instrument": None},
        {"currency": "usd"},
    ],
)
def test_bad_position_is_refused_alone_and_then_none_is_closed(bad: dict[str, Any]) -> None:
    page = held(position(**bad), position(instrument={"kind": "stock", "id": "good", "symbol": "GOOD"}))

    assert [one.security.key for one in page.holdings] == ["snaptrade:good"]
    assert [(one.kind, one.account_key) for one in page.rejects] == [("holding", "A")]
    assert page.holdings_complete_for == frozenset()


@pytest.mark.parametrize("amount", ["NaN", "1e400", "x", {}])
def test_bad_total_refuses_the_balance_alone(amount: Any) -> None:
    pages = read(Server([account(balance={"total": {"amount": amount, "currency": "USD"}})], positions=[position()]))

    assert {one.kind for page in pages for one in page.rejects} == {"balance"}
    assert [one.account_key for one in pages[0].accounts] == ["A"]
    assert [page for page in pages if page.holdings]


# Activities


def test_activity_is_read_as_stated() -> None:
    found = row_of(buy(settlement_date="2025-03-11T00:00:00Z"))

    assert (found.type, found.subtype, found.amount) == (TransactionType.TRADE, "buy", Decimal("-1512.66"))
    assert (found.quantity, found.price, found.fees) == (10, Decimal("151.2"), Decimal("0.66"))
    assert (found.posted_date, found.settlement_date) == (TODAY, TODAY + timedelta(days=1))
    assert found.security is not None
    assert (found.security.key, found.security.type) == ("snaptrade:sym-acme", SecurityType.EQUITY)
    assert found.flags == ()


@pytest.mark.parametrize("text", ["2025-03-09", "2025-03-09 15:04:05+00:00", "2025-03-09T23:04:05-01:00"])
def test_trade_date_may_be_a_day_or_a_time(text: str) -> None:
    found = row_of(activity("t", trade_date=text))

    assert found.posted_date == (date(2025, 3, 10) if "-01:00" in text else date(2025, 3, 9))


def test_type_that_nobody_has_said_is_other_with_a_flag() -> None:
    found = row_of(activity("t", type="BROKERAGES_OWN_WORD"))

    assert (found.type, found.provider_type, found.flags) == (
        TransactionType.OTHER,
        "BROKERAGES_OWN_WORD",
        ("type_unknown",),
    )


def test_trade_without_an_amount_has_that_of_its_units_and_price_and_says_so() -> None:
    bought, sold = row_of(buy(amount=None)), row_of(buy(amount=None, type="SELL", units=-10))
    contracts = row_of(buy(amount=None, symbol=None, option_symbol=OPTION, units=2, price=1.5, fee=None))

    assert (bought.amount, sold.amount, contracts.amount) == (Decimal("-1512.66"), Decimal("1511.34"), -300)
    assert {one.flags for one in (bought, sold, contracts)} == {("amount_computed",)}


@pytest.mark.parametrize(
    "kind", ["SPLIT", "EXTERNAL_ASSET_TRANSFER_IN", "OPTIONEXPIRATION", "STOCK_DIVIDEND", "ADJUSTMENT"]
)
def test_what_moves_units_alone_has_no_amount(kind: str) -> None:
    found = row_of(buy(type=kind, amount=None, price=None, currency=None))

    assert (found.amount, found.quantity, found.currency, found.flags) == (0, 10, "USD", ("currency_of_account",))


@pytest.mark.parametrize(
    "more", [{"type": "DIVIDEND"}, {"type": "FEE"}, {"price": None}, {"units": None}, {"type": "NEW"}, {"symbol": None}]
)
def test_money_that_is_not_stated_is_not_invented(more: dict[str, Any]) -> None:
    assert refused(buy(**{"amount": None, **more})) == "amount_missing"


def test_units_for_which_a_dividend_is_paid_do_not_move() -> None:
    assert row_of(buy(type="DIVIDEND", amount=12.5)).quantity is None


def test_amount_in_a_coin_has_the_coin_as_its_currency() -> None:
    found = row_of(buy(currency=None, currency_universal_symbol={"id": "x", "symbol": "USDT"}))

    assert (found.currency, found.flags) == ("USDT", ())


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"trade_date": "2025-03-10T99:00:00Z"}, "trade_date_unreadable"),
        ({"trade_date": "2025-03-10T00:00:00Z", "settlement_date": "2025-02-30"}, "settlement_date_unreadable"),
        ({"amount": "NaN"}, "amount_not_finite"),
        ({"amount": "1,5"}, "amount_unreadable"),
        ({"currency": {"code": "dollars"}}, "currency_malformed"),
        ({"symbol": {"id": "", "symbol": "ACME"}}, "instrument_without_identity"),
        ({"type": None}, "type_unreadable"),
    ],
)
def test_activity_that_cannot_be_trusted_is_refused_by_name(more: dict[str, Any], reason: str) -> None:
    assert refused(buy(**more)) == reason


def test_activity_without_a_date_takes_the_day_of_settlement() -> None:
    settled = activity("a", trade_date=None, settlement_date="2025-03-08T00:00:00Z")
    body = {"data": [settled, activity("b", trade_date=None)], "pagination": {"total": 2}}
    (page,) = (page for page in read(Server(answers={"/activities": answering(200, body)})) if page.transactions)
    assert page.map_transaction is not None
    first, second = page.transactions

    assert page.map_transaction(first).posted_date == date(2025, 3, 8)
    with pytest.raises(BadRecord, match="trade_date_missing"):
        page.map_transaction(second)


@pytest.mark.parametrize("id_", [None, "", [], {}])
def test_activity_without_an_id_goes_to_quarantine(id_: Any) -> None:
    pages = read(Server(activities=[activity(id_), activity("b")]))

    assert [row.key for page in pages for row in page.transactions] == ["b"]
    assert len([one for page in pages for one in page.rejects]) == 1


@pytest.mark.deep
@settings(suppress_health_check=[HealthCheck.too_slow])
@given(spoilt(buy(option_symbol=OPTION, currency_universal_symbol=ACME, settlement_date="2025-03-11T00:00:00Z")))
def test_activity_with_anything_in_it_costs_itself_alone(row: dict[str, Any]) -> None:
    def page_of(request: httpx.Request) -> httpx.Response:
        body = json.dumps({"data": [row, activity("good")], "pagination": {"total": 2}}).encode()
        return httpx.Response(200, content=body)

    pages = [page for page in read(Server(answers={"/activities": page_of})) if page.map_transaction is not None]
    (page,) = pages

    assert_each_is_mapped_or_refused(page, 2)
    assert "good" in {one.key for one in page.transactions}


@pytest.mark.deep
@settings(suppress_health_check=[HealthCheck.too_slow])
@given(
    spoilt(account(institution_account_id="I-1")), spoilt(position()), st.none() | spoilt({"currency": USD, "cash": 1})
)
def test_account_or_position_with_anything_in_it_costs_itself_alone(
    given_account: dict[str, Any], held_there: dict[str, Any], cash: Any
) -> None:
    def listed(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=json.dumps([given_account, account("good")]).encode())

    def positions(request: httpx.Request) -> httpx.Response:
        good = position(instrument={"kind": "stock", "id": "good", "symbol": "GOOD"})
        return httpx.Response(200, content=json.dumps({"results": [held_there, good]}).encode())

    def money(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=json.dumps([cash or {"currency": USD, "cash": 1}]).encode())

    answers: dict[str, Handler] = {"/accounts": listed, "/positions/all": positions, "/balances": money}
    pages = read(Server(answers=answers))
    holdings: list[HoldingRecord] = [one for page in pages for one in page.holdings]

    assert "good" in {one.account_key for one in pages[0].accounts}
    assert "snaptrade:good" in {one.security.key for one in holdings if one.account_key == "good"}
    assert all(not one.reason.startswith("mapping_failed") for page in pages for one in page.rejects)


# Windows and offsets


def days_back(count: int, rows: int = 1) -> list[dict[str, Any]]:
    """Newest first, as SnapTrade lists them."""
    return [activity(f"{n}-{m}", TODAY - timedelta(days=n)) for n in range(count) for m in range(rows)]


@pytest.mark.deep
def test_first_sync_is_one_window_read_page_by_page() -> None:
    integration, requests = connected(Server(activities=days_back(200, 12)))
    pages = asyncio.run(every(integration.pages(request_of())))

    asked = [one.url.params for one in requests if one.url.path.endswith("/activities")]
    assert [(one["startDate"], one["offset"]) for one in asked] == [
        (str(TODAY - timedelta(days=200)), offset) for offset in ("0", "1000", "2000")
    ]
    assert sum(len(page.transactions) for page in pages) == 2400


@pytest.mark.deep
def test_window_with_very_many_activities_is_halved() -> None:
    integration, requests = connected(Server(activities=days_back(200, 60)))
    pages = asyncio.run(every(integration.pages(request_of())))

    sizes = [len(page.transactions) for page in pages if page.transactions]
    assert sum(sizes) == 12_000
    assert max(sizes) <= 5000
    assert len([one for one in requests if one.url.path.endswith("/activities")]) <= 20


@pytest.mark.deep
def test_single_day_is_read_whole_however_many_activities_it_has() -> None:
    pages = read(Server(activities=days_back(1, 7000)))

    assert sum(len(page.transactions) for page in pages) == 7000


def test_list_that_moves_while_it_is_read_is_read_again() -> None:
    server = Server(activities=days_back(30, 50))
    calls: list[str] = []

    def moving(request: httpx.Request) -> httpx.Response:
        calls.append(request.url.params["offset"])
        if len(calls) == 2:  # a row comes in at the front, so the second page begins with a row of the first
            server.activities.insert(0, activity("new"))
        return server.page(request)

    server.answers["/activities"] = moving
    pages = read(server)

    assert calls == ["0", "1000", "0", "1000"]
    assert len({row.key for page in pages for row in page.transactions}) == 1501
    assert problems_of(pages) == []


@pytest.mark.deep
def test_row_that_goes_and_one_that_comes_at_the_same_time_are_noticed_although_the_total_is_the_same() -> None:
    server = Server(activities=days_back(30, 50))
    calls: list[str] = []

    def moving(request: httpx.Request) -> httpx.Response:
        calls.append(request.url.params["offset"])
        if len(calls) == 2:
            server.activities.insert(0, activity("new"))
            server.activities.pop()
        return server.page(request)

    server.answers["/activities"] = moving
    pages = read(server)

    assert len(calls) == 4
    assert len({row.key for page in pages for row in page.transactions}) == 1500


@pytest.mark.parametrize("total", [5, 1, 10**9, -1])
def test_total_that_never_fits_refuses_the_window_and_moves_no_cursor(total: int) -> None:
    rows = [activity("a"), activity("b")]

    def contradicting(request: httpx.Request) -> httpx.Response:
        page = rows if request.url.params["offset"] == "0" else []
        return httpx.Response(200, json={"data": page, "pagination": {"total": total}})

    server = Server([account("A"), account("B")], answers={"/A/activities": contradicting})
    pages = read(server)

    assert problems_of(pages) == [(BadPayload, "total_does_not_fit", "A")]
    assert cursors_of(pages).keys() == {"account:B"}


@pytest.mark.parametrize(
    "body", [{}, [], {"data": []}, {"data": [], "pagination": {}}, {"data": None, "pagination": {}}]
)
def test_activities_without_a_list_or_a_total_move_no_cursor(body: Any) -> None:
    pages = read(Server(answers={"/activities": answering(200, body)}))

    assert [(kind, key) for kind, _, key in problems_of(pages)] == [(BadPayload, "A")]
    assert cursors_of(pages) == {}


def test_server_that_gives_fewer_rows_than_asked_for_is_read_to_the_end() -> None:
    pages = read(Server(activities=days_back(20, 10), at_most=70))

    assert sum(len(page.transactions) for page in pages) == 200


# Cursors


def test_activities_are_not_asked_for_again_until_snaptrade_has_asked_the_brokerage() -> None:
    server = Server(activities=[activity("t")])
    cursors = cursors_of(read(server))
    integration, requests = connected(server)
    asyncio.run(every(integration.pages(request_of(cursors))))

    assert not [one for one in requests if one.url.path.endswith("/activities")]
    server.accounts[0]["sync_status"]["holdings"]["last_successful_sync"] = "2025-03-10 20:00:00+00:00"
    again = read(server, cursors)
    assert [row.key for page in again for row in page.transactions] == ["t"]


@pytest.mark.parametrize(
    "more", [{"caller": Caller(manual=True)}, {"since": TODAY - timedelta(days=30)}, {"hooked": True}]
)
def test_person_or_hook_that_asks_gets_the_activities_read(more: dict[str, Any]) -> None:
    server = Server(activities=[activity("t")])

    assert [page for page in read(server, cursors_of(read(server)), **more) if page.transactions]


def test_cursor_stays_where_snaptrade_s_own_reading_stands() -> None:
    stalled = TODAY - timedelta(days=40)
    late = account()
    late["sync_status"]["transactions"]["last_successful_sync"] = str(stalled)
    server = Server([late])
    cursor = DateCursor.parse(cursors_of(read(server))["account:A"])
    late["sync_status"]["transactions"]["last_successful_sync"] = str(TODAY)
    server.activities = [activity("came late", stalled + timedelta(days=5))]

    assert cursor.through == stalled
    again = read(server, {"account:A": str(cursor)})
    assert [row.key for page in again for row in page.transactions] == ["came late"]


def test_rows_that_are_not_listed_any_more_are_withdrawn_but_not_at_the_edges_of_a_window() -> None:
    (window,) = [one for page in read(Server()) for one in page.windows]

    assert (window.first, window.last, window.posted) == (TODAY - timedelta(days=199), TODAY, True)


# Hooks


def test_kinds_of_hooks() -> None:
    hooks = connected(Server())[0].hooks
    assert hooks is not None
    ours = {"oauthClientId": "sandbox-app", "userId": "U"}
    read_ = {
        kind: hooks.read({"eventType": kind, **ours}) for kind in ("CONNECTION_BROKEN", "TRADE_UPDATE", "NEW_KIND")
    }

    assert [(bool(one.asks), one.is_known, one.login) for one in read_.values()] == [
        (True, True, "U"),
        (False, True, "U"),
        (False, False, "U"),
    ]
    assert not hooks.read({"eventType": "CONNECTION_BROKEN", "clientId": "sandbox-app", "userId": "U"}).is_ours

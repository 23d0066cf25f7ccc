"""What the two APIs accept and refuse."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.sandbox.asking import ask, form_request, get_request, plaid_request
from worker.sandbox.core import LoginSpec, Sandbox
from worker.sandbox.wire import Answer, Request

pytestmark = pytest.mark.unit

TOKEN = "/v1/oauth/token"
WINDOW = {
    "startDate": "2025-06-01T00:00:00.000Z",
    "endDate": "2026-03-11T00:00:00.000Z",
    "types": "TRADE,ACH_RECEIPT,JOURNAL",
}


def parsed(answer: Answer) -> Any:
    return json.loads(answer.body, parse_float=Decimal)


def access(sandbox: Sandbox, login: str = "schwab-1") -> str:
    return str(sandbox.profiles["schwab"].mint(sandbox.logins[login])["access_token"])


def get(sandbox: Sandbox, path: str, token: str, **query: str) -> Answer:
    return ask(sandbox.profiles["schwab"], get_request(f"/trader/v1{path}", token, **query))


def redirect_of_authorize(sandbox: Sandbox, **more: str) -> str:
    query = {"client_id": "sandbox-app", "redirect_uri": "https://127.0.0.1", "response_type": "code"}
    answer = ask(sandbox.profiles["schwab"], get_request("/v1/oauth/authorize", "", **query, **more))
    return dict(answer.headers)[b"location"].decode()


def exchange(sandbox: Sandbox, code: str, redirect_uri: str = "https://127.0.0.1") -> Answer:
    form = {"grant_type": "authorization_code", "code": code, "redirect_uri": redirect_uri}
    return ask(sandbox.profiles["schwab"], form_request(TOKEN, form))


def test_authorize_sends_back_a_code_ending_in_an_encoded_at_sign(sandbox: Sandbox) -> None:
    location = redirect_of_authorize(sandbox, state="s1")
    query = parse_qs(urlsplit(location).query)
    assert "%40&session=" in location
    assert (query["code"][0][-1], query["state"]) == ("@", ["s1"])


def test_code_works_once_and_only_decoded(sandbox: Sandbox) -> None:
    code = parse_qs(urlsplit(redirect_of_authorize(sandbox)).query)["code"][0]
    assert exchange(sandbox, code.replace("@", "%40")).status == 400
    answer = exchange(sandbox, code)
    assert set(parsed(answer)) == {"expires_in", "token_type", "scope", "refresh_token", "access_token"}
    assert exchange(sandbox, code).status == 400


def test_code_dies_after_seconds_and_with_another_redirect(sandbox: Sandbox) -> None:
    late, elsewhere = (parse_qs(urlsplit(redirect_of_authorize(sandbox)).query)["code"][0] for _ in range(2))
    assert exchange(sandbox, elsewhere, "https://127.0.0.1/").status == 400
    sandbox.clock.offset += 30
    assert parsed(exchange(sandbox, late))["error"] == "invalid_grant"


def test_wrong_app_secret_is_invalid_client_without_a_word_of_refresh_tokens(sandbox: Sandbox) -> None:
    form = {"grant_type": "refresh_token", "refresh_token": "x"}
    answer = ask(sandbox.profiles["schwab"], form_request(TOKEN, form, "Basic c2FuZGJveC1hcHA6d3Jvbmc="))
    assert (answer.status, parsed(answer)["error"]) == (401, "invalid_client")
    assert "refresh token" not in parsed(answer)["error_description"]


@pytest.mark.parametrize(
    ("shape", "status", "words"),
    [
        ("unsupported_token_type", 400, "refresh_token_authentication_error"),
        ("invalid_client", 401, "refresh token invalid"),
        ("invalid_grant", 400, "refresh token"),
    ],
)
def test_dead_grant_has_three_faces(sandbox: Sandbox, shape: str, status: int, words: str) -> None:
    profile, login = sandbox.profiles["schwab"], sandbox.logins["schwab-1"]
    token = profile.mint(login)["refresh_token"]
    profile.configure({"dead_grant": shape})
    profile.revoke(login)
    answer = ask(profile, form_request(TOKEN, {"grant_type": "refresh_token", "refresh_token": token}))
    assert (answer.status, parsed(answer)["error"]) == (status, shape)
    assert words in parsed(answer)["error_description"]


def test_every_answer_but_a_tokens_carries_a_correlation_id(sandbox: Sandbox) -> None:
    for answer in (get(sandbox, "/accounts", access(sandbox)), get(sandbox, "/accounts", "no such token")):
        assert b"schwab-client-correlid" in dict(answer.headers)


def test_expired_access_token_gets_the_gateways_401(sandbox: Sandbox) -> None:
    token = access(sandbox)
    sandbox.profiles["schwab"].expire_access(sandbox.logins["schwab-1"])
    answer = get(sandbox, "/accounts", token)
    assert (answer.status, parsed(answer)["errors"][0]["detail"]) == (401, "Client not authorized")


def test_accounts_show_positions_only_on_request_and_hashes_never(sandbox: Sandbox) -> None:
    token = access(sandbox)
    numbers = parsed(get(sandbox, "/accounts/accountNumbers", token))
    plain, full = (parsed(get(sandbox, "/accounts", token, **q)) for q in ({}, {"fields": "positions"}))
    assert all("positions" not in row["securitiesAccount"] for row in plain)
    assert all(row["securitiesAccount"]["positions"] for row in full)
    assert not any(pair["hashValue"] in json.dumps(plain, default=str) for pair in numbers)


@pytest.mark.deep
@pytest.mark.parametrize("missing", ["startDate", "endDate", "types"])
def test_transactions_need_each_parameter(sandbox: Sandbox, missing: str) -> None:
    token = access(sandbox)
    account = parsed(get(sandbox, "/accounts/accountNumbers", token))[0]["hashValue"]
    query = {name: value for name, value in WINDOW.items() if name != missing}
    answer = get(sandbox, f"/accounts/{account}/transactions", token, **query)
    assert (answer.status, parsed(answer)["errors"]) == (400, [f"{missing} is required"])


@pytest.mark.deep
@pytest.mark.parametrize(
    "changed",
    [
        {"startDate": "2025-03-01T00:00:00.000Z"},
        {"startDate": "2026-03-12T00:00:00.000Z"},
        {"startDate": "2025-06-01"},
        {"startDate": "2025-06-31T00:00:00.000Z"},
        {"types": "BUY"},
    ],
)
def test_transactions_refuse_bad_windows_and_types(sandbox: Sandbox, changed: dict[str, str]) -> None:
    token = access(sandbox)
    account = parsed(get(sandbox, "/accounts/accountNumbers", token))[0]["hashValue"]
    assert get(sandbox, f"/accounts/{account}/transactions", token, **(WINDOW | changed)).status == 400


@pytest.mark.deep
def test_window_gives_its_newest_3000_rows_at_most(sandbox: Sandbox) -> None:
    spec = LoginSpec(profile="schwab", accounts=1, transactions=3200, history_days=100)
    (login,) = sandbox.add_logins(spec)
    token = access(sandbox, login.name)
    account = next(iter(login.ledger.accounts.values()))
    every = WINDOW | {"types": ",".join({row.kind for row in account.by_time})}
    rows = parsed(get(sandbox, f"/accounts/{account.id}/transactions", token, **every))
    assert [str(row["activityId"]) for row in rows] == [row.id for row in reversed(account.by_time)][:3000]


def test_plaid_wants_its_credentials_in_body_or_headers(sandbox: Sandbox) -> None:
    profile = sandbox.profiles["plaid"]
    token = profile.mint(sandbox.logins["plaid-1"])["access_token"]
    body = json.dumps({"access_token": token}).encode()
    keys = {b"plaid-client-id": b"sandbox-client", b"plaid-secret": b"sandbox-secret"}
    assert ask(profile, Request("POST", "/item/get", "", keys, body)).status == 200
    assert parsed(ask(profile, Request("POST", "/item/get", "", {}, body)))["error_code"] == "INVALID_API_KEYS"


def test_public_token_works_once(sandbox: Sandbox) -> None:
    profile = sandbox.profiles["plaid"]
    made = parsed(ask(profile, plaid_request("/sandbox/public_token/create", institution_id="ins_1")))
    swap = plaid_request("/item/public_token/exchange", public_token=made["public_token"])
    assert set(parsed(ask(profile, swap))) == {"access_token", "item_id", "request_id"}
    assert parsed(ask(profile, swap))["error_code"] == "INVALID_PUBLIC_TOKEN"


def test_revoked_item_names_the_reason(sandbox: Sandbox) -> None:
    profile, login = sandbox.profiles["plaid"], sandbox.logins["plaid-1"]
    token = profile.mint(login)["access_token"]
    profile.revoke(login)
    body = parsed(ask(profile, plaid_request("/accounts/get", token)))
    assert (body["error_code"], body["error_code_reason"]) == ("ITEM_LOGIN_REQUIRED", "OAUTH_USER_REVOKED")


def test_options_count_shares_at_plaid_and_contracts_in_the_books(sandbox: Sandbox) -> None:
    (login,) = sandbox.add_logins(LoginSpec(profile="plaid", accounts=15))
    token = sandbox.profiles["plaid"].mint(login)["access_token"]
    body = parsed(ask(sandbox.profiles["plaid"], plaid_request("/investments/holdings/get", token)))
    derivatives = {s["security_id"] for s in body["securities"] if s["type"] == "derivative"}
    sent = {(h["account_id"], h["security_id"]): h["quantity"] for h in body["holdings"]}
    held = [(a.id, h) for a in login.ledger.accounts.values() for h in a.holdings.values() if h.security.right]
    assert derivatives
    assert {sent[account, h.security.id] for account, h in held} == {h.quantity * 100 for _, h in held}


@pytest.mark.deep
def test_money_is_written_with_its_exact_digits(sandbox: Sandbox) -> None:
    login = sandbox.logins["plaid-1"]
    checking = next(iter(login.ledger.accounts.values()))
    row = checking.by_time[-1]
    login.ledger.modify(row, amount=Decimal("0.1") + Decimal("0.2"))
    token = sandbox.profiles["plaid"].mint(login)["access_token"]
    request = plaid_request("/transactions/sync", token, count=500, options={"days_requested": 730})
    body = parsed(ask(sandbox.profiles["plaid"], request))
    assert {r["transaction_id"]: str(r["amount"]) for r in body["added"]}[row.id] == "-0.3"


@pytest.mark.deep
def test_served_counts_what_the_client_holds(sandbox: Sandbox) -> None:
    login = sandbox.logins["schwab-1"]
    token = access(sandbox)
    account = next(iter(login.ledger.accounts.values()))
    every = WINDOW | {"types": ",".join({row.kind for row in account.by_time})}
    path = f"/accounts/{account.id}/transactions"
    first = {str(row["activityId"]) for row in parsed(get(sandbox, path, token, **every))}
    login.ledger.remove(login.ledger.transactions[min(first)])
    get(sandbox, path, token, **every)
    assert login.served.transactions == first - {min(first)}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
PLAID_PATHS = (
    "/link/token/create",
    "/sandbox/public_token/create",
    "/item/public_token/exchange",
    "/institutions/get_by_id",
    "/item/get",
    "/accounts/get",
    "/transactions/sync",
    "/investments/holdings/get",
    "/investments/transactions/get",
)
PLAID_FIELDS = (
    "options",
    "cursor",
    "count",
    "start_date",
    "end_date",
    "institution_id",
    "public_token",
    "access_token",
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    path=st.sampled_from(PLAID_PATHS),
    body=st.dictionaries(st.sampled_from(PLAID_FIELDS), JSON, max_size=4),
    option=st.dictionaries(st.sampled_from(("account_ids", "account_id", "count", "offset", "days_requested")), JSON),
)
def test_plaid_answers_any_json_with_data_or_a_published_error(
    sandbox: Sandbox, path: str, body: dict[str, Any], option: dict[str, Any]
) -> None:
    profile = sandbox.profiles["plaid"]
    fields = {"access_token": profile.mint(sandbox.logins["plaid-1"])["access_token"], "options": option} | body
    keys = {b"plaid-client-id": b"sandbox-client", b"plaid-secret": b"sandbox-secret"}
    answer = ask(profile, Request("POST", path, "", keys, json.dumps(fields).encode()))
    assert answer.status == 200 or parsed(answer)["error_code"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    path=st.sampled_from(
        ["/v1/oauth/authorize", "/v1/oauth/token", "/trader/v1/accounts", "/trader/v1/accounts/x/transactions"]
    )
    | st.text(max_size=10),
    query=st.text(max_size=30),
    body=st.binary(max_size=30),
)
def test_schwab_answers_anything(sandbox: Sandbox, path: str, query: str, body: bytes) -> None:
    token = access(sandbox)
    for method in ("GET", "POST"):
        request = Request(method, path, query, {b"authorization": f"Bearer {token}".encode()}, body)
        assert 200 <= ask(sandbox.profiles["schwab"], request).status < 500


@pytest.mark.deep
@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"\xff", b"[" * 100_000])
def test_plaid_body_that_is_no_object_has_no_credentials(sandbox: Sandbox, body: bytes) -> None:
    answer = ask(sandbox.profiles["plaid"], Request("POST", "/accounts/get", "", {}, body))
    assert parsed(answer)["error_code"] == "INVALID_API_KEYS"


PUBLISHED_BALANCES = {
    "CASH": {
        "cashAvailableForTrading",
        "cashAvailableForWithdrawal",
        "cashCall",
        "longNonMarginableMarketValue",
        "totalCash",
        "cashDebitCallValue",
        "unsettledCash",
    },
    "MARGIN": {
        "availableFunds",
        "availableFundsNonMarginableTrade",
        "buyingPower",
        "buyingPowerNonMarginableTrade",
        "dayTradingBuyingPower",
        "dayTradingBuyingPowerCall",
        "equity",
        "equityPercentage",
        "longMarginValue",
        "maintenanceCall",
        "maintenanceRequirement",
        "marginBalance",
        "regTCall",
        "shortBalance",
        "shortMarginValue",
        "sma",
        "isInCall",
        "stockBuyingPower",
        "optionBuyingPower",
    },
}
SEEN_IN_LIVE_ANSWERS = {
    "cashBalance",
    "liquidationValue",
    "longMarketValue",
    "shortMarketValue",
    "savings",
    "pendingDeposits",
}


def test_schwab_balances_have_the_published_keys_of_their_type_and_those_that_were_seen(sandbox: Sandbox) -> None:
    accounts = parsed(get(sandbox, "/accounts", access(sandbox)))

    assert {account["securitiesAccount"]["type"] for account in accounts} == set(PUBLISHED_BALANCES)
    for account in accounts:
        assert set(account) == {"securitiesAccount", "aggregatedBalance"}
        published = PUBLISHED_BALANCES[account["securitiesAccount"]["type"]]
        assert set(account["securitiesAccount"]["currentBalances"]) - published == SEEN_IN_LIVE_ANSWERS
        assert set(account["securitiesAccount"]["projectedBalances"]) <= published


def test_schwab_option_has_one_multiplier_in_positions_and_another_in_transactions(sandbox: Sandbox) -> None:
    token = access(sandbox)
    accounts = parsed(get(sandbox, "/accounts", token, fields="positions"))
    held = [position["instrument"] for account in accounts for position in account["securitiesAccount"]["positions"]]
    options = [instrument for instrument in held if instrument["assetType"] == "OPTION"]

    assert options
    assert {(option["optionMultiplier"], "optionPremiumMultiplier" in option) for option in options} == {(100, False)}

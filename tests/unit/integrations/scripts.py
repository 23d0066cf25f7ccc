"""A small well-behaved provider for each integration, played over `httpx.MockTransport`.

For tests of what a stand-in would not do. Bodies are our own, in the published shapes; all names and numbers are made
up.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs

import httpx

from worker.integrations.kit.base import Caller, Page, SyncRequest
from worker.integrations.kit.contract.subject import BASE_URL, Handler, scripted_api
from worker.integrations.kit.http import Api, Gate
from worker.integrations.kit.integration import Integration
from worker.integrations.plaid.integration import Plaid, PlaidSettings
from worker.integrations.schwab.integration import Schwab, SchwabSettings

NOW = datetime(2025, 3, 10, 12, 0, tzinfo=UTC)
ACCESS_TOKEN = "access-SECRETWORD-1"
REFRESH_TOKEN = "refresh-SECRETWORD-2"
APP_SECRET = "app-SECRETWORD-3"
SECRET_WORD = "SECRETWORD"


@dataclass(frozen=True)
class Script:
    """How to test one integration.

    Attributes:
        connect: the integration over an `Api`.
        healthy: answers as a provider in good order; rows need several pages.
    """

    connect: Callable[[Api], Integration]
    healthy: Handler


@dataclass
class Provider:
    """An integration beside the provider that it talks to; `requests` is what was sent."""

    integration: Any
    requests: list[httpx.Request] = field(default_factory=list)

    def hosts(self) -> set[str]:
        return {request.url.host for request in self.requests}


def provider(key: str, handler: Handler | None = None, gate: Gate | None = None, max_bytes: int = 1 << 20) -> Provider:
    """The integration `key` over a provider that answers by `handler` (default: in good order)."""
    script = SCRIPTS[key]
    api, requests = scripted_api(key, handler or script.healthy, gate=gate, max_bytes=max_bytes)
    return Provider(script.connect(api), requests)


def sync_request(cursors: dict[str, str] | None = None, **more: Any) -> SyncRequest:
    """A request whose windows are so short that a first sync needs several."""
    values: dict[str, Any] = {"caller": Caller(), "access_token": ACCESS_TOKEN, "cursors": cursors or {}, "now": NOW}
    values["window"] = timedelta(days=90)
    return SyncRequest(**(values | more))


async def all_pages(pages: AsyncIterator[Page]) -> list[Page]:
    return [page async for page in pages]


# Schwab

SCHWAB_NUMBERS = {"12345678": "A" * 64, "87654321": "B" * 64}


def schwab_trade(number: str, activity_id: int, moment: datetime, **changes: Any) -> dict[str, Any]:
    stamp = moment.strftime("%Y-%m-%dT%H:%M:%S+0000")
    return {
        "activityId": activity_id,
        "time": stamp,
        "accountNumber": number,
        "type": "TRADE",
        "status": "VALID",
        "subAccount": "MARGIN",
        "tradeDate": stamp,
        "settlementDate": stamp,
        "netAmount": -1512.66,
        "transferItems": [
            {
                "instrument": {"assetType": "CURRENCY", "symbol": "CURRENCY_USD"},
                "amount": 0.66,
                "cost": -0.66,
                "feeType": "COMMISSION",
            },
            {
                "instrument": {"assetType": "EQUITY", "symbol": "ACME", "cusip": "000000AA1"},
                "amount": 10.0,
                "cost": -1512.0,
                "price": 151.2,
                "positionEffect": "OPENING",
            },
        ],
    } | changes


def schwab_account(number: str, **changes: Any) -> dict[str, Any]:
    return {
        "securitiesAccount": {
            "type": "MARGIN",
            "accountNumber": number,
            "positions": [
                {
                    "shortQuantity": 0.0,
                    "averagePrice": 151.2,
                    "longQuantity": 25.0,
                    "instrument": {"assetType": "EQUITY", "cusip": "000000AA1", "symbol": "ACME"},
                    "marketValue": 3802.5,
                }
            ],
            "initialBalances": {"cashBalance": 1200.0, "accountValue": 4990.0, "isInCall": False},
            "currentBalances": {"cashBalance": 1200.0, "liquidationValue": 5002.5, "longMarketValue": 3802.5},
        },
        "aggregatedBalance": {"currentLiquidationValue": 5002.5, "liquidationValue": 5002.5},
    } | changes


SCHWAB_ROWS = {
    number: [schwab_trade(number, 1000 * first + i, NOW - timedelta(days=40 * i, hours=1)) for i in range(20)]
    for first, number in enumerate(SCHWAB_NUMBERS, 1)
}


def schwab_healthy(request: httpx.Request) -> httpx.Response:
    path = request.url.path
    if path == "/v1/oauth/token":
        return schwab_tokens()
    if path.endswith("/accountNumbers"):
        return httpx.Response(200, json=[{"accountNumber": n, "hashValue": h} for n, h in SCHWAB_NUMBERS.items()])
    if path.endswith("/accounts"):
        return httpx.Response(200, json=[schwab_account(number) for number in SCHWAB_NUMBERS])
    number = next(n for n, h in SCHWAB_NUMBERS.items() if h in path)
    first, last = (request.url.params[name][:10] for name in ("startDate", "endDate"))
    return httpx.Response(200, json=[row for row in SCHWAB_ROWS[number] if first <= row["time"][:10] <= last])


def schwab_tokens(**changes: Any) -> httpx.Response:
    answer = {
        "expires_in": 1800,
        "token_type": "Bearer",
        "scope": "api",
        "refresh_token": "new-" + REFRESH_TOKEN,
        "access_token": "new-" + ACCESS_TOKEN,
    }
    return httpx.Response(200, json={k: v for k, v in (answer | changes).items() if v is not ...})


def form_of(request: httpx.Request) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(request.content.decode()).items()}


def _connect_schwab(api: Api) -> Schwab:
    settings = SchwabSettings(
        app_key="app", app_secret=APP_SECRET, redirect_uri="https://127.0.0.1/callback", base_url=BASE_URL
    )
    return Schwab(settings, api)


# Plaid

PLAID_ACCOUNTS = ("acc_checking", "acc_brokerage")


def plaid_account(account_id: str, **changes: Any) -> dict[str, Any]:
    investment = account_id == "acc_brokerage"
    return {
        "account_id": account_id,
        "balances": {
            "available": 100,
            "current": 110.94,
            "limit": None,
            "iso_currency_code": "USD",
            "unofficial_currency_code": None,
        },
        "mask": "0000",
        "name": account_id.title(),
        "official_name": None,
        "type": "investment" if investment else "depository",
        "subtype": "brokerage" if investment else "checking",
    } | changes


def plaid_row(transaction_id: str, **changes: Any) -> dict[str, Any]:
    return {
        "transaction_id": transaction_id,
        "account_id": "acc_checking",
        "amount": 72.1,
        "iso_currency_code": "USD",
        "unofficial_currency_code": None,
        "date": "2025-03-05",
        "datetime": None,
        "authorized_datetime": None,
        "name": "CORNER GROCERY 12",
        "merchant_name": "Corner Grocery",
        "pending": False,
        "pending_transaction_id": None,
        "transaction_code": None,
        "personal_finance_category": {"primary": "FOOD_AND_DRINK", "detailed": "FOOD_AND_DRINK_GROCERIES"},
    } | changes


def plaid_investment(transaction_id: str, day: str, **changes: Any) -> dict[str, Any]:
    return {
        "investment_transaction_id": transaction_id,
        "account_id": "acc_brokerage",
        "security_id": "sec_acme",
        "date": day,
        "name": "BUY ACME",
        "quantity": 10,
        "amount": 1512.66,
        "price": 151.2,
        "fees": 0.66,
        "type": "buy",
        "subtype": "buy",
        "iso_currency_code": "USD",
    } | changes


PLAID_SECURITIES = [
    {"security_id": "sec_acme", "type": "equity", "name": "Acme", "ticker_symbol": "ACME", "cusip": "000000AA1"},
    {"security_id": "sec_call", "type": "derivative", "name": "Acme call", "option_contract": {"strike_price": 1}},
]
PLAID_ROWS = [plaid_row(f"tx_{i}") for i in range(8)]
PLAID_INVESTMENTS = [
    plaid_investment(f"inv_{i}", (NOW - timedelta(days=12 * i + 1)).date().isoformat()) for i in range(30)
]
_PER_PAGE = 3


def plaid_sync(added: list[Any], next_cursor: str, *, more: bool = False, **changes: Any) -> httpx.Response:
    answer = {"added": added, "modified": [], "removed": [], "next_cursor": next_cursor, "has_more": more}
    return httpx.Response(200, content=json.dumps(answer | changes).encode())


def plaid_error(code: str, kind: str = "ITEM_ERROR", status: int = 400) -> httpx.Response:
    return httpx.Response(status, json={"error_type": kind, "error_code": code, "error_message": "…", "causes": []})


def plaid_healthy(request: httpx.Request) -> httpx.Response:
    asked = json.loads(request.content)
    match request.url.path:
        case "/item/public_token/exchange":
            return httpx.Response(200, json={"access_token": "new-" + ACCESS_TOKEN, "item_id": "item_1"})
        case "/item/get":
            return httpx.Response(200, json={"item": {"consent_expiration_time": "2025-06-01T00:00:00Z"}})
        case "/item/remove":
            return httpx.Response(200, json={"request_id": "r"})
        case "/accounts/get":
            return httpx.Response(200, json={"accounts": [plaid_account(account) for account in PLAID_ACCOUNTS]})
        case "/transactions/sync":
            start = int(asked.get("cursor", "0"))
            end = min(start + _PER_PAGE, len(PLAID_ROWS))
            return plaid_sync(PLAID_ROWS[start:end], str(end), more=end < len(PLAID_ROWS))
        case "/investments/holdings/get":
            return plaid_holdings()
        case "/investments/transactions/get":
            return plaid_investments(asked, PLAID_INVESTMENTS)
    return plaid_error("NOT_FOUND", "INVALID_REQUEST", 404)


def plaid_holdings(*more: dict[str, Any]) -> httpx.Response:
    rows = [
        {"account_id": "acc_brokerage", "security_id": "sec_acme", "quantity": 25, "institution_value": 3802.5},
        {"account_id": "acc_brokerage", "security_id": "sec_call", "quantity": 300, "institution_value": 450},
    ]
    accounts = [plaid_account("acc_brokerage")]
    return httpx.Response(200, json={"accounts": accounts, "holdings": [*rows, *more], "securities": PLAID_SECURITIES})


def plaid_investments(asked: dict[str, Any], rows: list[dict[str, Any]]) -> httpx.Response:
    listed = [row for row in rows if asked["start_date"] <= row["date"] <= asked["end_date"]]
    offset = asked["options"]["offset"]
    page = {
        "investment_transactions": listed[offset : offset + _PER_PAGE],
        "securities": PLAID_SECURITIES,
        "total_investment_transactions": len(listed),
    }
    return httpx.Response(200, json=page)


def _connect_plaid(api: Api) -> Plaid:
    return Plaid(PlaidSettings(client_id="client", secret=APP_SECRET, base_url=BASE_URL), api)


SCRIPTS: dict[str, Script] = {
    "schwab": Script(_connect_schwab, schwab_healthy),
    "plaid": Script(_connect_plaid, plaid_healthy),
}

"""The switches that launchers and other suites rely on."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from tests.support.sandbox import InProcess, SandboxAdmin
from worker.sandbox.app import create_app

URL = "http://sandbox"


@pytest.fixture
def transport() -> Iterator[InProcess]:
    made = InProcess(create_app(admin_token="made-up"))
    yield made
    made.close()


@pytest.fixture
def client(transport: InProcess) -> httpx.Client:
    return httpx.Client(base_url=URL, transport=transport)


@pytest.fixture
def sandbox(transport: InProcess) -> SandboxAdmin:
    return SandboxAdmin(URL, "made-up", transport)


def plaid(client: httpx.Client, path: str, token: str, **body: Any) -> dict[str, Any]:
    keys = {"client_id": "sandbox-client", "secret": "sandbox-secret", "access_token": token}
    return dict(client.post(f"/plaid{path}", json=keys | body).json())


@pytest.mark.deep
def test_callback_url_and_public_token_lead_to_credentials(client: httpx.Client, sandbox: SandboxAdmin) -> None:
    callback = urlsplit(sandbox.link("schwab-2", state="s", redirect_uri="https://127.0.0.1:8182")["callback_url"])
    query = parse_qs(callback.query)
    form = {"grant_type": "authorization_code", "code": query["code"][0], "redirect_uri": "https://127.0.0.1:8182"}
    token = client.post("/schwab/v1/oauth/token", auth=("sandbox-app", "sandbox-secret"), data=form).json()
    assert (query["state"], token["expires_in"]) == (["s"], 1800)
    public = sandbox.link("plaid-2")["public_token"]
    item = plaid(client, "/item/public_token/exchange", "", public_token=public)
    assert plaid(client, "/item/get", item["access_token"])["item"]["institution_id"] == "ins_2"
    assert [entry["kind"] for entry in sandbox.log() if entry["status"] == 200][:2] == ["exchange", "exchange"]


@pytest.mark.deep
def test_clock_offset_ends_access_and_grants(client: httpx.Client, sandbox: SandboxAdmin) -> None:
    (minted,) = sandbox.mint("schwab-1")
    headers = {"Authorization": f"Bearer {minted.access_token}"}
    path = "/schwab/trader/v1/accounts"
    assert client.get(path, headers=headers).status_code == 200
    sandbox.set_clock_offset(1801)
    assert client.get(path, headers=headers).status_code == 401
    form = {"grant_type": "refresh_token", "refresh_token": minted.refresh_token}
    sandbox.set_clock_offset(7 * 86_400 + 1)
    assert client.post("/schwab/v1/oauth/token", auth=("sandbox-app", "sandbox-secret"), data=form).is_client_error


@pytest.mark.deep
def test_broken_login_is_mended(client: httpx.Client, sandbox: SandboxAdmin) -> None:
    (minted,) = sandbox.mint("plaid-1")
    sandbox.break_login("plaid-1", "INSTITUTION_DOWN")
    assert plaid(client, "/accounts/get", minted.access_token)["error_code"] == "INSTITUTION_DOWN"
    sandbox.mend_login("plaid-1")
    assert plaid(client, "/accounts/get", minted.access_token)["accounts"]


def test_restarts_are_demanded_as_often_as_asked(client: httpx.Client, sandbox: SandboxAdmin) -> None:
    (minted,) = sandbox.mint("plaid-1")
    cursor = plaid(client, "/transactions/sync", minted.access_token, count=1)["next_cursor"]
    sandbox.demand_restarts("plaid-1", 1)
    answers = [plaid(client, "/transactions/sync", minted.access_token, cursor=cursor, count=1) for _ in range(2)]
    assert ["error_code" in answer for answer in answers] == [True, False]


@pytest.mark.deep
def test_served_says_what_the_client_was_given(client: httpx.Client, sandbox: SandboxAdmin) -> None:
    (minted,) = sandbox.mint("plaid-1")
    page = plaid(client, "/transactions/sync", minted.access_token, count=500, options={"days_requested": 730})
    holdings = plaid(client, "/investments/holdings/get", minted.access_token)["holdings"]
    served = sandbox.served()["plaid-1"]
    assert (served["transactions"], served["rows"]) == (len(page["added"]), len(page["added"]))
    assert served["holdings"] == len(holdings)
    assert len(holdings) == len(sandbox.books("plaid-1")["holdings"])
    assert set(sandbox.served()) == {"plaid-1"}


def test_odd_records_are_served_as_they_are(client: httpx.Client, sandbox: SandboxAdmin) -> None:
    (minted,) = sandbox.mint("schwab-1")
    account = sandbox.books("schwab-1")["accounts"][0]["provider_account_id"]
    record = '{"activityId":1,"netAmount":"1,234.56","description":"\\ud800"}'
    sandbox.serve_verbatim("schwab-1", record, account=account)
    sandbox.serve_verbatim("schwab-1", '{"securitiesAccount":null}', target="account")
    sandbox.serve_verbatim("schwab-1", '{"longQuantity":NaN}', target="holding", account=account)
    headers = {"Authorization": f"Bearer {minted.access_token}"}
    accounts = client.get("/schwab/trader/v1/accounts?fields=positions", headers=headers).text
    now = datetime.now(UTC)
    window = {
        "startDate": f"{now - timedelta(days=30):%Y-%m-%dT%H:%M:%S}.000Z",
        "endDate": f"{now:%Y-%m-%dT%H:%M:%S}.000Z",
        "types": "TRADE",
    }
    rows = client.get(f"/schwab/trader/v1/accounts/{account}/transactions", headers=headers, params=window).text
    assert rows.endswith(f"{record}]")
    assert accounts.endswith(',{"securitiesAccount":null}]')
    assert ',{"longQuantity":NaN}],"initialBalances"' in accounts


def test_faults_count_their_hits_and_are_cleared(client: httpx.Client, sandbox: SandboxAdmin) -> None:
    sandbox.inject("error", error="unavailable", times=None)
    assert [client.get("/schwab/trader/v1/accounts").status_code for _ in range(2)] == [503, 503]
    assert [(f["do"], f["hits"]) for f in sandbox.faults()] == [("error", 2)]
    sandbox.clear_faults()
    assert client.get("/schwab/trader/v1/accounts").status_code == 401


@pytest.mark.deep
def test_fleet_is_minted_at_once(sandbox: SandboxAdmin) -> None:
    names = sandbox.create_logins("schwab", 200, transactions=0, accounts=1)
    minted = sandbox.mint(*names)
    assert len({row.refresh_token for row in minted}) == 200
    assert sandbox.logins("schwab")[2:] == names

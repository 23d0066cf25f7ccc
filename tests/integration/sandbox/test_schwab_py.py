"""schwab-py, a client of others, against the sandbox: only its base addresses are changed."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from authlib.integrations.base_client.errors import OAuthError

from tests.support.sandbox import Minted, SandboxAdmin, SandboxProcess

with warnings.catch_warnings():
    # Its streaming side, unused here, imports a part of websockets that is on its way out.
    warnings.simplefilter("ignore", DeprecationWarning)
    from schwab import auth
    from schwab.client import Client

pytestmark = pytest.mark.deep

Connect = Callable[[Minted, float], Client]


class Shop:
    """Keeps what the client writes, as an application's token file would."""

    def __init__(self) -> None:
        self.token: dict[str, Any] = {}

    def write(self, token: dict[str, Any], *_: Any, **__: Any) -> None:
        self.token = token


@pytest.fixture
def shop() -> Shop:
    return Shop()


@pytest.fixture
def connect(sandbox_process: SandboxProcess, monkeypatch: pytest.MonkeyPatch, shop: Shop) -> Iterator[Connect]:
    monkeypatch.setenv("AUTHLIB_INSECURE_TRANSPORT", "1")
    monkeypatch.setattr(auth, "TOKEN_ENDPOINT", f"{sandbox_process.url('schwab')}/v1/oauth/token")

    def get_from_sandbox(client: Client, path: str, params: dict[str, Any]) -> httpx.Response:
        return client.session.get(sandbox_process.url("schwab") + path, params=params)

    monkeypatch.setattr(Client, "_get_request", get_from_sandbox)

    def build(minted: Minted, expires_at: float) -> Client:
        token = {
            "access_token": minted.access_token,
            "refresh_token": minted.refresh_token,
            "token_type": "Bearer",
            "expires_in": minted.expires_in,
            "expires_at": expires_at,
        }
        wrapped = {"creation_timestamp": int(time.time()), "token": token}
        client = auth.client_from_access_functions("sandbox-app", "sandbox-secret", lambda: wrapped, shop.write)
        opened.callback(client.session.close)
        return client

    with contextlib.ExitStack() as opened:
        yield build


def test_expired_access_token_is_refreshed_and_rotates(connect: Connect, sandbox: SandboxAdmin, shop: Shop) -> None:
    (minted,) = sandbox.mint("schwab-1")
    sandbox.expire_access_tokens("schwab-1")
    client = connect(minted, 1.0)
    answer = client.get_account_numbers()
    assert answer.status_code == 200
    assert shop.token["token"]["refresh_token"] not in ("", minted.refresh_token)
    assert [entry["status"] for entry in sandbox.refreshes("schwab-1")] == [200]


def test_accounts_come_with_every_kind_of_position(connect: Connect, sandbox: SandboxAdmin) -> None:
    (minted,) = sandbox.mint("schwab-1")
    client = connect(minted, time.time() + 1800)
    accounts = client.get_accounts(fields=[Client.Account.Fields.POSITIONS]).json()
    kinds = {p["instrument"]["assetType"] for a in accounts for p in a["securitiesAccount"]["positions"]}
    assert kinds == {"EQUITY", "COLLECTIVE_INVESTMENT", "MUTUAL_FUND", "FIXED_INCOME", "OPTION"}
    assert {a["securitiesAccount"]["type"] for a in accounts} == {"CASH", "MARGIN"}
    books = sandbox.books("schwab-1")["accounts"]
    stated = {f"{a['aggregatedBalance']['currentLiquidationValue']:.2f}" for a in accounts}
    assert stated == {row["current"] for row in books}


def test_transactions_equal_the_books(connect: Connect, sandbox: SandboxAdmin) -> None:
    (minted,) = sandbox.mint("schwab-1")
    client = connect(minted, time.time() + 1800)
    sandbox.advance(5, ["schwab-1"])
    now, seen = datetime.now(UTC), {}
    for pair in client.get_account_numbers().json():
        for back in (0, 360):
            end = now - timedelta(days=back)
            rows = client.get_transactions(
                pair["hashValue"], start_date=end - timedelta(days=360), end_date=end + timedelta(seconds=1)
            ).json()
            seen.update((str(row["activityId"]), row) for row in rows)
    books = sandbox.books("schwab-1")["transactions"]
    assert {i: f"{row['netAmount']:.2f}" for i, row in seen.items()} == {row["id"]: row["amount"] for row in books}


def test_one_account_and_preferences_answer(connect: Connect, sandbox: SandboxAdmin) -> None:
    (minted,) = sandbox.mint("schwab-2")
    client = connect(minted, time.time() + 1800)
    number = client.get_account_numbers().json()[0]
    one = client.get_account(number["hashValue"]).json()
    assert one["securitiesAccount"]["accountNumber"] == number["accountNumber"]
    assert "positions" not in one["securitiesAccount"]
    assert client.get_user_preferences().json()[0]["accounts"][0]["type"] == "BROKERAGE"


def test_revoked_grant_is_refused_on_refresh(connect: Connect, sandbox: SandboxAdmin) -> None:
    (minted,) = sandbox.mint("schwab-1")
    sandbox.set_policy("schwab", dead_grant="invalid_grant")
    sandbox.revoke("schwab-1")
    client = connect(minted, 1.0)
    with pytest.raises(OAuthError, match="invalid_grant"):
        client.get_account_numbers()

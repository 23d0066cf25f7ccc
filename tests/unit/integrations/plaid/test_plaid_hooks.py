"""Plaid's hooks: what each kind asks for, the environment, and the key that verifies them."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from tests.support.hook_vectors import Signer
from tests.unit.integrations.scripts import plaid_error, provider
from worker.errors import AppMisconfigured, BadPayload, HookRefused, ProviderError, RateLimited, Transient
from worker.integrations.kit.hooks import Ask, Delivery, Hook
from worker.integrations.plaid.hooks import ASKS, HEADER, NOTICES, PlaidHooks, environment_of
from worker.sandbox.clock import Clock

SIGNER = Signer()
CLOCK = Clock()
EXAMPLE = (
    '{"webhook_type":"TRANSACTIONS","webhook_code":"SYNC_UPDATES_AVAILABLE","item_id":"wz666MBjYWTp2PDzzggYhM6oWWmBb",'
    '"initial_update_complete":true,"historical_update_complete":false,"environment":"sandbox"}'
)


def _receive(body: str, *, environment: str = "sandbox", **answer: Any) -> Hook:
    async def ask_key(kid: str) -> bytes:
        return json.dumps({"key": SIGNER.jwk(**answer), "request_id": "r"}).encode()

    token = SIGNER.token(body.encode(), now=CLOCK.seconds())
    hooks = PlaidHooks(ask_key, environment=environment)
    return asyncio.run(hooks.receive(Delivery(((HEADER, token),), body.encode(), CLOCK.now())))


def _body(kind: str, **changes: Any) -> str:
    type_, code = kind.split("/")
    members = {"webhook_type": type_, "webhook_code": code, "item_id": "item-1", "environment": "sandbox"}
    return json.dumps(members | changes)


def test_published_example_asks_for_a_sync_of_its_item() -> None:
    hook = _receive(EXAMPLE)

    assert (hook.kind, hook.login) == ("TRANSACTIONS/SYNC_UPDATES_AVAILABLE", "wz666MBjYWTp2PDzzggYhM6oWWmBb")
    assert (hook.asks, hook.is_known, hook.is_ours) == ({Ask.SYNC}, True, True)
    assert hook.detail == {"initial_update_complete": True, "historical_update_complete": False}


@pytest.mark.parametrize("kind", ASKS)
def test_each_published_kind_is_known(kind: str) -> None:
    hook = _receive(_body(kind))

    assert (hook.is_known, hook.asks, hook.notice) == (True, ASKS[kind], NOTICES.get(kind))


def test_kinds_that_concern_the_state_of_a_login_ask_for_a_check() -> None:
    checked = {kind for kind, asks in ASKS.items() if Ask.CHECK in asks}

    assert checked == {
        "ITEM/ERROR",
        "ITEM/LOGIN_REPAIRED",
        "ITEM/PENDING_EXPIRATION",
        "ITEM/PENDING_DISCONNECT",
        "ITEM/USER_PERMISSION_REVOKED",
        "ITEM/USER_ACCOUNT_REVOKED",
    }


@pytest.mark.parametrize(
    "changes",
    [
        {"webhook_code": "SOMETHING_NEW"},
        {"webhook_type": None},
        {"webhook_code": ["SYNC_UPDATES_AVAILABLE"]},
        {"webhook_code": "x" * 1000},
    ],
)
def test_unknown_kind_asks_for_nothing(changes: dict[str, Any]) -> None:
    hook = _receive(_body("TRANSACTIONS/SYNC_UPDATES_AVAILABLE", **changes))

    assert (hook.is_known, hook.asks) == (False, frozenset())
    assert len(hook.kind) < 130


@pytest.mark.parametrize("item", [None, 7, "", "x" * 201, {}, "item\0", "item\ud800", "item\n"])
def test_item_that_is_no_id_names_no_login(item: Any) -> None:
    assert _receive(_body("ITEM/ERROR", item_id=item)).login is None


def test_nothing_personal_is_kept() -> None:
    hook = _receive(_body("HOLDINGS/DEFAULT_UPDATE", new_holdings=2, error={"display_message": "Ada"}, user_id="u-1"))

    assert hook.detail == {"new_holdings": 2}


@pytest.mark.parametrize("told", ["production", "Sandbox", None, 7])
def test_hook_for_another_environment_is_not_ours(told: Any) -> None:
    assert not _receive(_body("ITEM/ERROR", environment=told)).is_ours


@pytest.mark.parametrize(
    ("url", "environment"),
    [
        ("https://production.plaid.com", "production"),
        ("https://sandbox.plaid.com", "sandbox"),
        ("https://development.plaid.com", "development"),
        ("http://127.0.0.1:8765/plaid", "sandbox"),
    ],
)
def test_environment_is_that_of_the_api(url: str, environment: str) -> None:
    assert environment_of(url) == environment


@pytest.mark.parametrize("end", [True, "soon", 10**30, 1.5])
def test_end_of_a_key_that_cannot_be_read_is_no_verdict_on_the_hook(end: Any) -> None:
    with pytest.raises(BadPayload):
        _receive(EXAMPLE, expired_at=end)


@pytest.mark.parametrize("end", [1_700_000_000, "2023-11-14T22:13:20Z"])
def test_key_that_has_ended_verifies_nothing(end: Any) -> None:
    with pytest.raises(HookRefused, match="key_expired"):
        _receive(EXAMPLE, expired_at=end)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (plaid_error("INVALID_WEBHOOK_VERIFICATION_KEY_ID", "INVALID_INPUT"), HookRefused),
        (plaid_error("INVALID_API_KEYS", "INVALID_INPUT"), AppMisconfigured),
        (plaid_error("INTERNAL_SERVER_ERROR", "API_ERROR", 500), Transient),
        (plaid_error("RATE_LIMIT", "RATE_LIMIT_EXCEEDED", 429), RateLimited),
        (lambda _: httpx.Response(200, json={"key": None}), BadPayload),
        (lambda _: httpx.Response(200, text="<html>"), BadPayload),
    ],
)
def test_only_an_answer_about_the_key_refuses_the_hook(answer: Any, error: type[Exception]) -> None:
    plaid = provider("plaid", answer if callable(answer) else lambda _: answer)
    token = SIGNER.token(EXAMPLE.encode(), now=CLOCK.seconds())

    with pytest.raises(error) as raised:
        asyncio.run(plaid.integration.hooks.receive(Delivery(((HEADER, token),), EXAMPLE.encode(), CLOCK.now())))

    assert isinstance(raised.value, HookRefused | ProviderError)
    asked = plaid.requests[0]
    assert asked.url.path == "/webhook_verification_key/get"
    assert json.loads(asked.content) == {"key_id": SIGNER.kid}

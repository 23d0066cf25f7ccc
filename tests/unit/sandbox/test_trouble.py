"""What `broken` says of a login's accounts, and what a one-time token was issued for."""

from __future__ import annotations

import msgspec
import pytest

from worker.integrations.enable_banking.stand_in import StandIn
from worker.integrations.enable_banking.stand_in.published import APPLICATION_ID
from worker.integrations.kit.application_keys import ApplicationKey
from worker.sandbox.application_key import PRIVATE_KEY
from worker.sandbox.core import LoginSpec, Sandbox
from worker.sandbox.one_time import OneTimeTokens
from worker.sandbox.wire import Request, uuid


def test_trouble_is_that_of_the_account_with_the_number() -> None:
    sandbox = Sandbox(1, (StandIn,), {}, {})
    (login,) = sandbox.add_logins(LoginSpec(profile="enable_banking"))
    first, second, _ = login.ledger.accounts.values()

    assert (login.trouble_of(first), login.trouble_of(second)) == (None, None)
    login.broken = "ASPSP_ERROR/1"
    assert (login.trouble_of(first), login.trouble_of(second)) == (None, "ASPSP_ERROR")
    login.broken = "renumbered"
    assert (login.trouble_of(first), login.trouble_of(second)) == (None, None)


def test_token_keeps_what_the_application_asked_for() -> None:
    tokens = OneTimeTokens(Sandbox(1, (), {}, {}).clock)
    tokens.hand_out("code", "login", 300, about={"bank": "Mock"})
    tokens.hand_out("other", "login", 300, redirect_uri="https://x")
    found, other = tokens.take("code"), tokens.take("other")

    assert found is not None
    assert (found.login, found.about, tokens.take("code")) == ("login", {"bank": "Mock"}, None)
    assert other is not None
    assert (other.redirect_uri, other.about) == ("https://x", {})


def test_made_up_uuid_is_a_version_4_and_always_the_same() -> None:
    assert uuid(1, "a") == uuid(1, "a") != uuid(1, "b")
    assert uuid(1, "a")[14] == "4"


@pytest.mark.deep
def test_id_of_an_account_is_not_that_of_its_session() -> None:
    sandbox = Sandbox(1, (StandIn,), {}, {})
    (login,) = sandbox.add_logins(LoginSpec(profile="enable_banking"))
    stand_in = login.profile
    issuer, audience = "enablebanking.com", "api.enablebanking.com"
    key = ApplicationKey(PRIVATE_KEY, variable="KEY", key_id=APPLICATION_ID, issuer=issuer, audience=audience)
    signed = key.bearer()["authorization"].encode()

    def answer(method: str, id_: str) -> dict[str, object]:
        request = Request(method, f"/sessions/{id_}", "", {b"authorization": signed}, b"")
        found: dict[str, object] = msgspec.json.decode(stand_in.answer(request, stand_in.caller(request)).body)
        return found

    session_id = stand_in.mint(login)["access_token"]
    accounts = answer("GET", session_id)["accounts"]
    assert isinstance(accounts, list)

    for method in ("GET", "DELETE"):
        assert answer(method, accounts[0])["error"] == "SESSION_DOES_NOT_EXIST"
    assert answer("GET", session_id)["status"] == "AUTHORIZED"

"""A person links a login on our pages, against the sandbox, and goes back to the app."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit
from uuid import UUID

import httpx
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text
from sqlalchemy.orm import Session

from tests.factories import make_account
from tests.integration.web.conftest import APP, HOST, Person, make_key, make_person, runtime_run
from tests.support.link_journey import SESSIONS, Journey, MadeUp, form_of, leads_to, result_of
from tests.support.providers import LASTING_KEY, REFRESHED_KEY
from tests.support.sandbox import SandboxAdmin
from worker.integrations.kit.link_kinds import FILE, KEY_AND_SECRET, KEY_FILE, OAUTH_PKCE, SETUP_TOKEN, LinkKind
from worker.models import Provider
from worker.models.vocabulary import KeyScope
from worker.runtime import Runtime
from worker.services.access import keys

AS_FORM = {"Content-Type": "application/x-www-form-urlencoded"}
BACK = f"{APP}/linked?from=here"


@pytest.fixture
def ada(web_runtime: Runtime, client: TestClient) -> Iterator[Person]:
    """A user of their own, with a browser that holds no cookie."""
    client.cookies.clear()
    yield make_person(web_runtime)
    client.cookies.clear()


def _logins(client: TestClient, person: Person) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.get("/api/v1/providers", headers=person.headers).json()["items"]
    return found


def _add_accounts(rows: Session, login: dict[str, Any], *accounts: dict[str, Any]) -> None:
    """As if the login had been synced."""
    provider = rows.get_one(Provider, UUID(login["id"]))
    for account in accounts:
        make_account(rows, provider=provider, **account)
    rows.commit()


def _consent(sandbox: SandboxAdmin, page: Any, *, login: str = "") -> str:
    """The address on which the browser lands after consent at the address to which the page leads."""
    asked = {name: values[0] for name, values in parse_qs(urlsplit(leads_to(page)).query).items()}
    login = login or sandbox.create_logins(REFRESHED_KEY, 1)[0]
    return f"/oauth/{REFRESHED_KEY}/callback?{urlsplit(sandbox.link(login, **asked)['callback_url']).query}"


def _public_token(sandbox: SandboxAdmin) -> str:
    token: str = sandbox.link(sandbox.create_logins(LASTING_KEY, 1)[0])["public_token"]
    return token


# The whole way --------------------------------------------------------------------------------------------------------


def test_person_consents_at_the_provider_and_goes_back_with_a_result(
    client: TestClient, ada: Person, sandbox: SandboxAdmin
) -> None:
    journey = Journey.begin(client, ada.headers, provider_key=REFRESHED_KEY, alias="Main", return_url=BACK)

    start = journey.open()
    leaving = journey.send(start)
    landed = client.get(_consent(sandbox, leaving))

    (login,) = _logins(client, ada)
    assert (login["alias"], login["status"]) == ("Main", "active")
    assert leads_to(landed).startswith(f"{BACK}&")
    assert result_of(landed) == {
        "from": "here",
        "link_session": journey.made["id"],
        "status": "linked",
        "provider_id": login["id"],
    }
    assert journey.state(ada.headers)["status"] == "linked"
    assert journey.state(ada.headers)["provider_id"] == login["id"]
    for page in (start, leaving, landed):
        assert page.status_code == 200
        assert page.headers["cache-control"] == "no-store"
        assert page.headers["referrer-policy"] == "no-referrer"
        assert "script-src 'none'" in page.headers["content-security-policy"]
        assert "<script" not in page.text
        assert "style=" not in page.text


def test_pages_say_who_asks_for_what_and_whose_it_will_be(
    client: TestClient, web_runtime: Runtime, ada: Person
) -> None:
    with web_runtime.transaction() as session:
        session.execute(text("UPDATE users SET email = 'ada.1@example.org' WHERE id = :id"), {"id": ada.user_id})
    journey = Journey.begin(client, ada.headers, return_url=BACK)

    choice = journey.open()
    start = journey.open(REFRESHED_KEY)

    for page in (choice, start):
        assert "<b>tests</b> asks you" in page.text
        assert "a…@example.org" in page.text
        assert "ada.1@" not in page.text
        assert "<b>app.example.org</b>" in page.text
    assert "Charles Schwab" in choice.text
    assert "<li>transactions</li>" in start.text
    assert 'name="alias"' in start.text


@pytest.mark.deep
def test_person_chooses_the_institution_and_the_name(client: TestClient, ada: Person, sandbox: SandboxAdmin) -> None:
    journey = Journey.begin(client, ada.headers)

    landed = client.get(_consent(sandbox, journey.send(journey.open(REFRESHED_KEY), alias="My own <b>name</b>")))

    assert landed.status_code == 200
    assert leads_to(landed) == ""
    assert "You may close this page" in landed.text
    assert [login["alias"] for login in _logins(client, ada)] == ["My own <b>name</b>"]


@pytest.mark.deep
def test_provider_s_own_form_hands_over_a_public_token(
    client: TestClient, ada: Person, sandbox: SandboxAdmin, web_runtime: Runtime
) -> None:
    journey = Journey.begin(client, ada.headers, provider_key=LASTING_KEY, alias="Bank", return_url=BACK)
    front_end = web_runtime.integrations[LASTING_KEY].front_end
    assert front_end is not None

    opened = journey.send(journey.open())
    landed = journey.send(opened, public_token=_public_token(sandbox))

    policy = opened.headers["content-security-policy"]
    assert f"script-src 'self' {front_end.script};" in policy
    assert "unsafe" not in policy
    assert f'<script src="{front_end.script}" defer>' in opened.text
    assert 'data-token="link-sandbox-' in opened.text
    assert "Plaid.create" in client.get(f"/link/scripts/{LASTING_KEY}.js").text
    assert result_of(landed)["status"] == "linked"
    assert [login["status"] for login in _logins(client, ada)] == ["active"]


@pytest.mark.deep
def test_provider_s_own_form_goes_on_after_the_login_of_an_institution(
    client: TestClient, ada: Person, sandbox: SandboxAdmin
) -> None:
    """Some institutions take the page's place for their login, and send the browser to the redirect URI."""
    address = f"/oauth/{LASTING_KEY}/callback?oauth_state_id=x"
    journey = Journey.begin(client, ada.headers, provider_key=LASTING_KEY, return_url=BACK)
    name = sandbox.create_logins(LASTING_KEY, 9)[8]  # its Item has an id that no other test's has
    opened = journey.send(journey.open(), alias="My bank")

    again = client.get(address)
    kept = dict(client.cookies)
    client.cookies.clear()
    elsewhere = client.get(address)
    client.cookies.update(kept)
    landed = journey.send(again, public_token=sandbox.link(name)["public_token"])

    assert f'data-returned-to="{HOST}{address}"' in again.text
    assert form_of(again) == form_of(opened)
    assert again.headers["content-security-policy"] == opened.headers["content-security-policy"]
    assert elsewhere.status_code == 400
    assert result_of(landed)["status"] == "linked"
    assert [login["alias"] for login in _logins(client, ada)] == ["My bank"]
    assert result_of(client.get(address))["status"] == "linked"


@pytest.mark.deep
def test_bank_is_chosen_from_a_list_before_the_consent(client: TestClient, ada: Person, sandbox: SandboxAdmin) -> None:
    journey = Journey.begin(client, ada.headers, provider_key="enable_banking", alias="Bank", return_url=BACK)

    start = journey.open()
    unchosen = journey.send(start)
    made_up = journey.send(start, bank="<b>bank")
    leaving = journey.send(
        start, bank=re.findall(r'<option value="([^"]+)">Zweite Bank', start.text)[0].replace("&#34;", '"')
    )
    asked = dict(parse_qsl(urlsplit(leads_to(leaving)).query))
    callback = sandbox.link(sandbox.create_logins("enable_banking")[0], **asked)["callback_url"]
    landed = client.get(f"/oauth/enable_banking/callback?{urlsplit(callback).query}")

    assert re.findall(r'<optgroup label="(.*?)">', start.text) == ["DE", "FI"]
    assert "Mock Bank, FI, business, card" in start.text
    assert (unchosen.status_code, made_up.status_code) == (409, 409)
    assert "Nothing was given as bank" in unchosen.text
    assert "No bank has these words in its name" in made_up.text
    assert result_of(landed)["status"] == "linked"
    assert [login["status"] for login in _logins(client, ada)] == ["active"]


@pytest.mark.deep
def test_login_that_is_linked_already_is_told_after_the_consent_and_the_page_asks_a_second_time(
    client: TestClient, ada: Person, sandbox: SandboxAdmin, rows: Session
) -> None:
    name = sandbox.create_logins("enable_banking")[0]

    def consent(journey: Journey, start: Any, **more: str) -> Any:
        bank = re.findall(r'<option value="([^"]+)">Zweite Bank', start.text)[0].replace("&#34;", '"')
        asked = dict(parse_qsl(urlsplit(leads_to(journey.send(start, bank=bank, **more))).query))
        callback = sandbox.link(name, **asked)["callback_url"]
        return client.get(f"/oauth/enable_banking/callback?{urlsplit(callback).query}")

    first = Journey.begin(client, ada.headers, provider_key="enable_banking", alias="Bank", return_url=BACK)
    consent(first, first.open())
    hashes = [account["provider_account_id"] for account in sandbox.books(name)["accounts"]]
    _add_accounts(rows, _logins(client, ada)[0], *({"stable_keys": [one]} for one in hashes))
    second = Journey.begin(client, ada.headers, provider_key="enable_banking", alias="Again", return_url=BACK)

    told = consent(second, second.open())
    again = client.get(re.findall(r'href="([^"]+)" class="button">Try again', told.text)[0])
    landed = consent(second, again, anyway="yes")

    assert told.status_code == 409
    assert "This login is linked already as &#34;Bank&#34;" in told.text
    assert "Link this login a second time all the same" in again.text
    assert result_of(landed)["status"] == "linked"
    assert sorted(login["alias"] for login in _logins(client, ada)) == ["Again", "Bank"]


@pytest.mark.deep
def test_what_the_provider_s_own_form_tells_refuses_a_second_link_before_the_exchange(
    client: TestClient, ada: Person, sandbox: SandboxAdmin, web_runtime: Runtime, rows: Session
) -> None:
    name = sandbox.create_logins(LASTING_KEY, 5)[4]
    handed: dict[str, Any] = {}

    def hand_over(alias: str, **more: str) -> Any:
        journey = Journey.begin(client, ada.headers, provider_key=LASTING_KEY, alias=alias, return_url=BACK)
        opened = journey.send(journey.open(), **more)
        token = re.findall(r'data-token="([^"]+)"', opened.text)[0]
        address = f"{web_runtime.integrations[LASTING_KEY].settings.base_url}/link/sandbox/consent"
        handed.update(httpx.post(address, json={"link_token": token, "login": name}).json())
        return journey.send(opened, public_token=handed["public_token"], metadata=json.dumps(handed["metadata"]))

    hand_over("Bank")
    read = [{key: one[key] for key in ("name", "mask", "type")} for one in handed["metadata"]["accounts"]]
    institution = handed["metadata"]["institution"]["institution_id"]
    _add_accounts(rows, _logins(client, ada)[0], *({**one, "institution": institution} for one in read))
    exchanged = len(sandbox.log(kind="exchange"))

    told = hand_over("Again")

    assert told.status_code == 409
    assert "nothing was linked or exchanged" in told.text
    assert "Link this login a second time all the same" in told.text
    assert len(sandbox.log(kind="exchange")) == exchanged
    assert result_of(hand_over("Again", anyway="yes"))["status"] == "linked"


@pytest.mark.deep
def test_page_says_that_the_list_of_banks_cannot_be_had(
    client: TestClient, ada: Person, sandbox: SandboxAdmin, web_runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web_runtime.integrations["enable_banking"]._banks, "_kept_until", 0.0)  # the list is kept
    journey = Journey.begin(client, ada.headers, provider_key="enable_banking", alias="Bank", return_url=BACK)
    sandbox.inject("answer", status=503, body="<html>", profile="enable_banking", times=None)
    try:
        page = journey.open()
    finally:
        sandbox.clear_faults()

    assert page.status_code == 502
    assert "http_503" in page.text


@pytest.mark.deep
def test_setup_token_of_a_login_that_is_linked_already_is_good_for_the_second_question(
    client: TestClient, ada: Person, sandbox: SandboxAdmin, web_runtime: Runtime, rows: Session
) -> None:
    name = sandbox.create_logins("simplefin", 1)[0]
    first, second = (
        Journey.begin(client, ada.headers, provider_key="simplefin", alias=alias, return_url=BACK)
        for alias in ("Banks", "Again")
    )
    first.send(first.open(), setup_token=sandbox.link(name)["setup_token"])
    types = {one["provider_account_id"]: one["type"] for one in sandbox.books(name)["accounts"]}
    access, server = urlsplit(sandbox.mint(name)[0].access_token), web_runtime.integrations["simplefin"].settings
    listed = httpx.get(f"{server.base_url}/accounts", auth=(access.username or "", access.password or "")).json()
    read = [
        {"provider_account_id": one["id"], "type": types[one["id"]], "name": one["name"], "mask": one["name"][-5:-1]}
        for one in listed["accounts"]
    ]
    _add_accounts(rows, _logins(client, ada)[0], *read)
    token = sandbox.link(name)["setup_token"]

    told = second.send(second.open(), setup_token=token)
    landed = second.send(told, setup_token=token, anyway="yes")

    assert told.status_code == 409
    assert "This login is linked already as &#34;Banks&#34;" in told.text
    assert "enter the same setup token again" in told.text
    assert "Link this login a second time all the same" in told.text
    assert token not in told.text
    assert result_of(landed)["status"] == "linked"
    assert sorted(login["alias"] for login in _logins(client, ada)) == ["Again", "Banks"]


@pytest.mark.deep
def test_setup_token_is_entered_on_the_page_and_a_used_one_is_refused_there(
    client: TestClient, ada: Person, sandbox: SandboxAdmin
) -> None:
    token = sandbox.link(sandbox.create_logins("simplefin", 1)[0])["setup_token"]
    first, second = (
        Journey.begin(client, ada.headers, provider_key="simplefin", alias=alias, return_url=BACK)
        for alias in ("Banks", "Again")
    )

    landed = first.send(first.open(), setup_token=token)
    refused = second.send(second.open(), setup_token=token)
    nonsense = second.send(refused, setup_token="nonsense")

    assert result_of(landed)["status"] == "linked"
    assert (refused.status_code, nonsense.status_code) == (502, 502)
    assert "somebody else may have it" in refused.text
    assert "nothing was sent" in nonsense.text
    assert token not in landed.text + refused.text
    assert {login["alias"]: login["status"] for login in _logins(client, ada)} == {
        "Banks": "active",
        "Again": "pending",
    }


@pytest.mark.deep
def test_consent_with_a_code_verifier(
    client: TestClient, ada: Person, sandbox: SandboxAdmin, web_runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web_runtime.integrations[REFRESHED_KEY], "link_kind", OAUTH_PKCE, raising=False)
    journey = Journey.begin(client, ada.headers, provider_key=REFRESHED_KEY, alias="Main", return_url=BACK)

    leaving = journey.send(journey.open())
    landed = client.get(_consent(sandbox, leaving))

    assert "code_challenge_method=S256" in leads_to(leaving)
    assert result_of(landed)["status"] == "linked"


KINDS = [
    (SETUP_TOKEN, {"setup_token": "setup-1"}),
    (KEY_AND_SECRET, {"key": "k-1", "secret": "s-1"}),
    (KEY_FILE, {"key_id": "k-1", "key_file": "-----BEGIN\r\nabc\r\n-----END"}),
    (FILE, {}),
]


@pytest.fixture
def made_up(web_runtime: Runtime, request: pytest.FixtureRequest) -> Iterator[MadeUp]:
    """An enabled integration of the link kind that the test names."""
    integration = MadeUp(request.param)
    web_runtime.integrations[MadeUp.key] = integration
    yield integration
    del web_runtime.integrations[MadeUp.key]


@pytest.mark.deep
@pytest.mark.parametrize(
    ("made_up", "filled"), KINDS, indirect=["made_up"], ids=lambda value: getattr(value, "name", "")
)
def test_form_of_each_link_kind_links(client: TestClient, ada: Person, made_up: MadeUp, filled: dict[str, str]) -> None:
    journey = Journey.begin(client, ada.headers, provider_key=MadeUp.key, alias="Main", return_url=BACK)
    start = journey.open()

    landed = journey.send(start, **filled)

    kind: LinkKind = made_up.link_kind
    assert form_of(start).fields.keys() == {"form_token", *filled}
    assert [field.label for field in kind.fields if f"{field.label[1:]}</label>" not in start.text] == []
    assert result_of(landed)["status"] == "linked"
    assert made_up.exchanged == [filled]
    assert not any(value in landed.text for value in filled.values())


@pytest.mark.deep
@pytest.mark.parametrize("made_up", [KEY_AND_SECRET], indirect=True, ids=["key and secret"])
def test_form_that_is_not_filled_in_is_told_and_can_be_sent_again(
    client: TestClient, ada: Person, made_up: MadeUp
) -> None:
    journey = Journey.begin(client, ada.headers, provider_key=MadeUp.key, alias="Main", return_url=BACK)

    told = journey.send(journey.open(), key="k-1", secret=" ")
    landed = journey.send(told, key="k-1", secret="s-1")

    assert told.status_code == 409
    assert "Nothing was given as API secret" in told.text
    assert "k-1" not in told.text
    assert result_of(landed)["status"] == "linked"


# A login that is there already ----------------------------------------------------------------------------------------


@pytest.mark.deep
def test_consent_of_a_login_is_renewed_in_the_provider_s_form(
    client: TestClient, ada: Person, sandbox: SandboxAdmin, rows: Session
) -> None:
    name = sandbox.create_logins(LASTING_KEY, 3)[2]  # its Item has an id that no other test's has
    first = Journey.begin(client, ada.headers, provider_key=LASTING_KEY, alias="Bank", return_url=BACK)
    first.send(first.send(first.open()), public_token=sandbox.link(name)["public_token"])
    (login,) = _logins(client, ada)
    before = rows.execute(text("SELECT external_id FROM providers WHERE id = :id"), {"id": login["id"]}).scalar()
    rows.execute(text("UPDATE providers SET status = 'needs_reauth' WHERE id = :id"), {"id": login["id"]})
    rows.commit()

    journey = Journey.begin(client, ada.headers, provider_id=login["id"], return_url=BACK)
    opened = journey.send(journey.open())
    landed = journey.send(opened, public_token=sandbox.link(name)["public_token"])

    assert form_of(opened).fields["renewing"] == "yes"
    assert result_of(landed) == {
        "from": "here",
        "link_session": journey.made["id"],
        "status": "linked",
        "provider_id": login["id"],
    }
    after = rows.execute(text("SELECT external_id, status FROM providers WHERE id = :id"), {"id": login["id"]}).one()
    assert tuple(after) == (before, "active")


@pytest.mark.deep
def test_app_with_a_front_end_of_its_own_renews_by_the_api(
    client: TestClient, ada: Person, sandbox: SandboxAdmin, rows: Session
) -> None:
    made = {
        key: client.post("/api/v1/providers", headers=ada.headers, json={"provider_key": key, "alias": key}).json()[
            "id"
        ]
        for key in (LASTING_KEY, REFRESHED_KEY)
    }
    url, other = (f"/api/v1/providers/{made[key]}/authorization" for key in (LASTING_KEY, REFRESHED_KEY))
    never = client.post(f"{url}/renewal", headers=ada.headers)
    name = sandbox.create_logins(LASTING_KEY, 5)[4]  # its Item has an id that no other test's has
    client.put(url, headers=ada.headers, json=sandbox.link(name)).raise_for_status()
    sandbox.break_login(name, "ITEM_LOGIN_REQUIRED")
    rows.execute(text("UPDATE providers SET status = 'needs_reauth' WHERE id = :id"), {"id": made[LASTING_KEY]})
    rows.commit()

    begun = client.post(f"{url}/renewal", headers=ada.headers)
    early = client.put(f"{url}/renewal", headers=ada.headers)
    sandbox.link(name)  # the user logs in again in the form
    done = client.put(f"{url}/renewal", headers=ada.headers)
    unable = client.post(f"{other}/renewal", headers=ada.headers)

    assert begun.json()["link_token"].startswith("link-sandbox-")
    assert begun.json()["expires_at"] is not None
    assert [never.status_code, early.status_code, done.status_code, unable.status_code] == [409, 502, 200, 409]
    assert {login["alias"]: login["status"] for login in _logins(client, ada)}[LASTING_KEY] == "active"


@pytest.mark.deep
def test_login_is_linked_again_at_the_provider(client: TestClient, ada: Person, sandbox: SandboxAdmin) -> None:
    first = Journey.begin(client, ada.headers, provider_key=REFRESHED_KEY, alias="Main")
    client.get(_consent(sandbox, first.send(first.open())))
    (login,) = _logins(client, ada)

    journey = Journey.begin(client, ada.headers, provider_id=login["id"], return_url=BACK)
    start = journey.open()
    landed = client.get(_consent(sandbox, journey.send(start)))

    assert "renew the consent" in start.text
    assert 'name="alias"' not in start.text
    assert result_of(landed)["provider_id"] == login["id"]
    assert len(_logins(client, ada)) == 1


@pytest.mark.deep
def test_new_login_never_takes_the_place_of_one_with_its_name(
    client: TestClient, ada: Person, sandbox: SandboxAdmin
) -> None:
    early = Journey.begin(client, ada.headers, provider_key=REFRESHED_KEY, alias="Main", return_url=BACK)
    chosen = Journey.begin(client, ada.headers, return_url=BACK)
    waiting = _consent(sandbox, early.send(early.open()))
    first = Journey.begin(client, ada.headers, provider_key=REFRESHED_KEY, alias="Main")
    client.get(_consent(sandbox, first.send(first.open())))

    made = client.post(SESSIONS, headers=ada.headers, json={"provider_key": REFRESHED_KEY, "alias": "Main"})
    other = client.post(SESSIONS, headers=ada.headers, json={"provider_key": LASTING_KEY, "alias": "Main"})
    told = chosen.send(chosen.open(REFRESHED_KEY), alias="Main")
    late = client.get(waiting)

    assert [made.status_code, other.status_code, told.status_code, late.status_code] == [409, 409, 409, 400]
    assert "Choose another name" in told.text
    assert "Choose another name" in late.text
    assert len(_logins(client, ada)) == 1
    assert result_of(client.get(_consent(sandbox, chosen.send(told, alias="Other"))))["status"] == "linked"


# Errors and ends ------------------------------------------------------------------------------------------------------


def test_person_who_declines_at_the_provider_goes_back(client: TestClient, ada: Person) -> None:
    journey = Journey.begin(client, ada.headers, provider_key=REFRESHED_KEY, alias="Main", return_url=BACK)
    state = parse_qs(urlsplit(leads_to(journey.send(journey.open()))).query)["state"][0]

    landed = client.get(f"/oauth/{REFRESHED_KEY}/callback?error=access_denied&state={state}")

    assert result_of(landed) == {"from": "here", "link_session": journey.made["id"], "status": "cancelled"}
    assert journey.state(ada.headers)["status"] == "cancelled"
    assert _logins(client, ada) == []


@pytest.mark.deep
@pytest.mark.parametrize(
    "query", ["error=server_error&state={state}", "state={state}", "code=C0.unknown%40&state={state}"]
)
def test_trip_that_failed_can_be_tried_again(
    client: TestClient, ada: Person, sandbox: SandboxAdmin, query: str
) -> None:
    journey = Journey.begin(client, ada.headers, provider_key=REFRESHED_KEY, alias="Main", return_url=BACK)
    state = parse_qs(urlsplit(leads_to(journey.send(journey.open()))).query)["state"][0]

    told = client.get(f"/oauth/{REFRESHED_KEY}/callback?{query.format(state=state)}")
    again = client.get(f"/link/{journey.made['id']}/{REFRESHED_KEY}")
    landed = client.get(_consent(sandbox, journey.send(again)))

    assert told.status_code in (400, 500)
    assert f'href="/link/{journey.made["id"]}/{REFRESHED_KEY}"' in told.text
    assert result_of(landed)["status"] == "linked"


def test_person_who_cancels_goes_back_and_nothing_more_can_be_done(client: TestClient, ada: Person) -> None:
    journey = Journey.begin(client, ada.headers, provider_key=REFRESHED_KEY, alias="Main", return_url=BACK)
    start = journey.open()

    cancelled = journey.cancel(start)
    late = journey.send(start)

    assert result_of(cancelled)["status"] == "cancelled"
    assert result_of(late)["status"] == "cancelled"
    assert result_of(journey.open())["status"] == "cancelled"
    assert _logins(client, ada) == []


@pytest.mark.deep
def test_session_that_has_expired_links_nothing(
    client: TestClient, ada: Person, sandbox: SandboxAdmin, rows: Session
) -> None:
    journey = Journey.begin(client, ada.headers, provider_key=REFRESHED_KEY, alias="Main", return_url=BACK)
    start = journey.open()
    callback = _consent(sandbox, journey.send(start))
    rows.execute(text("UPDATE link_sessions SET expires_at = now() - interval '1 s'"))
    rows.commit()

    pages = [client.get(callback), journey.send(start), journey.open()]

    assert [result_of(page)["status"] for page in pages] == ["expired"] * 3
    assert journey.state(ada.headers)["status"] == "expired"
    assert _logins(client, ada) == []


@pytest.mark.deep
def test_revoked_key_ends_the_sessions_that_it_made(client: TestClient, web_runtime: Runtime, ada: Person) -> None:
    headers = make_key(web_runtime, ada.user_id, KeyScope.LINK)
    journey = Journey.begin(client, headers, provider_key=REFRESHED_KEY, alias="Main", return_url=BACK)
    prefix = headers["Authorization"].split("_")[1]
    runtime_run(web_runtime, keys.revoke(web_runtime, prefix, actor="operator:tests"))

    assert result_of(journey.open())["status"] == "expired"
    assert journey.state(ada.headers)["status"] == "expired"


@pytest.mark.deep
def test_second_way_to_the_provider_ends_the_first(client: TestClient, ada: Person, sandbox: SandboxAdmin) -> None:
    journey = Journey.begin(client, ada.headers, provider_key=REFRESHED_KEY, alias="Main", return_url=BACK)
    start = journey.open()
    first, second = (_consent(sandbox, journey.send(start)) for _ in range(2))

    assert client.get(first).status_code == 400
    assert result_of(client.get(second))["status"] == "linked"
    assert client.get(second).status_code == 400
    assert len(_logins(client, ada)) == 1


# Whose browser --------------------------------------------------------------------------------------------------------


def test_another_browser_gets_nothing_once_one_has_acted(
    client: TestClient, ada: Person, sandbox: SandboxAdmin
) -> None:
    journey = Journey.begin(client, ada.headers, provider_key=REFRESHED_KEY, alias="Main", return_url=BACK)
    start = journey.open()
    callback = _consent(sandbox, journey.send(start))
    mine = dict(client.cookies)

    client.cookies.clear()
    elsewhere = journey.open()
    stolen = client.get(callback)
    client.cookies.clear()
    without = client.get(f"/link/{journey.made['id']}/{REFRESHED_KEY}")
    client.cookies.update(mine)
    again = journey.open()
    landed = client.get(callback)

    assert [elsewhere.status_code, stolen.status_code, without.status_code] == [409, 400, 404]
    assert "another browser" in elsewhere.text
    assert again.status_code == 200
    assert result_of(landed)["status"] == "linked"


@pytest.mark.deep
def test_two_browsers_may_look_before_one_acts(client: TestClient, ada: Person, sandbox: SandboxAdmin) -> None:
    journey = Journey.begin(client, ada.headers, provider_key=REFRESHED_KEY, alias="Main", return_url=BACK)
    journey.open()  # for example a program that looks at links in mails
    client.cookies.clear()

    assert result_of(client.get(_consent(sandbox, journey.send(journey.open()))))["status"] == "linked"


@pytest.mark.deep
def test_form_that_another_site_sends_changes_nothing(client: TestClient, ada: Person) -> None:
    journey = Journey.begin(client, ada.headers, provider_key=REFRESHED_KEY, alias="Main", return_url=BACK)
    start = journey.open()
    form = form_of(start)

    answers = [
        client.post(form.action, data={}),
        client.post(form.action, data={"form_token": "x"}),
        client.post(form.action, data=form.fields, headers={"Origin": "https://evil.example"}),
        client.post(form.action, data=form.fields, headers={"Sec-Fetch-Site": "cross-site"}),
        client.post(form.action, json=form.fields),
        client.post(form_of(start, of=-1).action, data=form.fields),
        client.post(form.action, content=b"form_token=%ff&form_token=%00&" * 40, headers=AS_FORM),
    ]

    assert [answer.status_code for answer in answers] == [403] * 6 + [400]
    assert all(answer.headers["content-type"].startswith("text/html") for answer in answers)
    assert journey.state(ada.headers)["status"] == "open"


@pytest.mark.deep
@pytest.mark.parametrize(
    "path", ["/link?session=x", "/link?session=", "/link/{id}", "/link/{id}/nobank", "/link/x", "/link"]
)
def test_page_of_no_session_says_so(client: TestClient, path: str) -> None:
    answer = client.get(path.format(id="00000000-0000-7000-8000-00000000ffff"))

    assert answer.status_code in (404, 422)
    assert answer.headers["content-type"].startswith("text/html")
    assert "Traceback" not in answer.text


@pytest.mark.deep
def test_session_for_one_institution_links_no_other(client: TestClient, ada: Person) -> None:
    journey = Journey.begin(client, ada.headers, provider_key=REFRESHED_KEY, alias="Main", return_url=BACK)
    journey.open()

    assert client.get(f"/link/{journey.made['id']}/{LASTING_KEY}").status_code == 404
    assert client.get("/link/scripts/nobank.js").status_code == 404


@pytest.mark.deep
def test_secrets_are_stored_as_hashes_and_kept_from_scripts(client: TestClient, ada: Person, rows: Session) -> None:
    journey = Journey.begin(client, ada.headers, provider_key=REFRESHED_KEY, alias="Main", return_url=BACK)
    token = parse_qs(urlsplit(journey.made["url"]).query)["session"][0]

    answer = client.get(journey.made["url"], follow_redirects=False)
    secure = client.get(journey.made["url"].replace("http:", "https:"), follow_redirects=False)
    journey.send(journey.open())

    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert "Secure" not in cookie
    assert "set-cookie" not in secure.headers or "Secure" in secure.headers["set-cookie"]
    assert (answer.status_code, answer.headers["location"]) == (303, f"/link/{journey.made['id']}")
    browser = dict(client.cookies)[f"dashtam_link_session_{journey.made['id'].replace('-', '')}"].split(".")[1]
    stored = rows.execute(text("SELECT s::text FROM link_sessions AS s")).scalars().all()
    assert not any(secret in row for row in stored for secret in (token, browser))
    assert "url" not in {name for name, value in journey.state(ada.headers).items() if value}


@pytest.mark.deep
def test_audit_log_has_a_chain_for_each_session(client: TestClient, ada: Person, rows: Session) -> None:
    journey = Journey.begin(client, ada.headers, provider_key=REFRESHED_KEY, alias="Main", return_url=BACK)
    journey.cancel(journey.open())

    log = rows.execute(
        text("SELECT action, actor FROM provider_audit_logs WHERE provider_id = :id ORDER BY seq"),
        {"id": UUID(journey.made["id"])},
    ).all()

    assert [entry.action for entry in log] == ["link_session_created", "link_session_cancelled"]
    assert log[0].actor.startswith("user:key ")
    assert log[1].actor == "user"


# What an app may ask for ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example/",
        "http://app.example.org/",
        "//app.example.org/",
        "https:/app.example.org",
        "https:app.example.org",
        "https://app.example.org.evil.example/",
        "https://app.example.org@evil.example/",
        "https://ada:pw@app.example.org/",
        "https://app.example.org:444/",
        "https://app.example.org:99999/",
        "https://app.example.org:/",
        "https://app.example.org\\@evil.example/",
        "https://evil.example\\.app.example.org/",
        "https://app.example.org\t.evil.example/",
        "https://app.example.org/\r\nSet-Cookie: a=b",
        "https://app.example.org/#x",
        "https://app.example.org/?status=linked",
        "https://app.example.org/?provider_id=1",
        "https://app.example.org./",
        "https://www.app.example.org/",
        "https://\u0430pp.example.org/",
        "https://app%2eexample.org/",
        "javascript:alert(1)",
        "data:text/html,x",
        "myapp://linked",
        "http://127.0.0.1:3001/",
        "http://127.0.0.1.evil.example:3000/",
        "http://localhost:3000/",
        "/linked",
        "",
        "https://",
        "https://app.example.org/" + "x" * 1980,
    ],
)
def test_browser_goes_back_to_listed_origins_alone(client: TestClient, person: Person, url: str) -> None:
    answer = client.post(SESSIONS, headers=person.headers, json={"return_url": url})

    assert answer.status_code in (400, 422), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert "return_url" in answer.json()["detail"]


@pytest.mark.deep
@pytest.mark.parametrize(
    "url",
    [
        APP,
        f"{APP}/",
        f"{APP}:443/a/b?c=d&e=%20",
        "HTTPS://APP.example.org/x",
        "http://127.0.0.1:3000/linked?",
        f"{APP}?x=//evil.example",
    ],
)
def test_address_of_a_listed_origin_is_kept_as_it_is(client: TestClient, ada: Person, url: str) -> None:
    journey = Journey.begin(client, ada.headers, return_url=url)

    cancelled = journey.cancel(journey.open())

    assert leads_to(cancelled).startswith(url)
    assert result_of(cancelled)["status"] == "cancelled"


@pytest.mark.deep
@pytest.mark.parametrize(
    ("wanted", "status"),
    [
        ({"provider_key": "nobank"}, 400),
        ({"provider_key": ""}, 422),
        ({"alias": " "}, 422),
        ({"alias": "a\nb"}, 422),
        ({"user": "eve@example.org"}, 403),
        ({"provider_id": "x"}, 422),
        ({"provider_id": "00000000-0000-7000-8000-00000000ffff"}, 404),
        ({"provider_id": "00000000-0000-7000-8000-00000000ffff", "alias": "x"}, 400),
        ({"more": 1}, 422),
    ],
)
def test_session_that_cannot_be_is_not_made(
    client: TestClient, ada: Person, wanted: dict[str, Any], status: int
) -> None:
    answer = client.post(SESSIONS, headers=ada.headers, json=wanted)

    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.deep
def test_operator_makes_sessions_for_whom_they_name(
    client: TestClient, superuser_token_headers: dict[str, str], rows: Session
) -> None:
    client.cookies.clear()
    new = Journey.begin(client, superuser_token_headers, user="grace@example.org", return_url=BACK)
    bad = client.post(SESSIONS, headers=superuser_token_headers, json={"user": "no address"})
    own = Journey.begin(client, superuser_token_headers)

    assert "g…@example.org" in new.open().text
    assert "Go on only if you began this" in own.open().text
    assert bad.status_code == 400
    whose = text("SELECT email FROM link_sessions JOIN users ON users.id = user_id WHERE link_sessions.id = :id")
    assert rows.execute(whose, {"id": new.made["id"]}).scalar() == "grace@example.org"


@pytest.mark.deep
def test_nobody_sees_or_uses_sessions_and_logins_of_others(client: TestClient, ada: Person, stranger: Person) -> None:
    made = client.post(
        "/api/v1/providers", headers=ada.headers, json={"provider_key": REFRESHED_KEY, "alias": "Hers"}
    ).json()
    journey = Journey.begin(client, ada.headers, provider_id=made["id"])

    seen = client.get(f"{SESSIONS}/{journey.made['id']}", headers=stranger.headers)
    taken = client.post(SESSIONS, headers=stranger.headers, json={"provider_id": made["id"]})
    none = client.get(f"{SESSIONS}/00000000-0000-7000-8000-00000000ffff", headers=ada.headers)

    assert [seen.status_code, taken.status_code, none.status_code] == [403, 403, 404]


@pytest.mark.deep
def test_session_of_a_login_that_was_removed_links_nothing(
    client: TestClient, ada: Person, sandbox: SandboxAdmin
) -> None:
    made = client.post(
        "/api/v1/providers", headers=ada.headers, json={"provider_key": REFRESHED_KEY, "alias": "Hers"}
    ).json()
    journey = Journey.begin(client, ada.headers, provider_id=made["id"], return_url=BACK)
    callback = _consent(sandbox, journey.send(journey.open()))
    client.delete(f"/api/v1/providers/{made['id']}", headers=ada.headers)

    assert client.get(callback).status_code == 400
    assert client.get(f"/link/{journey.made['id']}").status_code == 404
    assert _logins(client, ada) == []


def test_address_of_the_page_is_on_the_host_that_was_asked(client: TestClient, person: Person) -> None:
    journey = Journey.begin(client, person.headers)

    assert journey.made["url"].startswith(f"{HOST}/link?session=")
    assert len(parse_qs(urlsplit(journey.made["url"]).query)["session"][0]) >= 43

"""Linking a login through the HTTP API, against the sandbox."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text
from sqlalchemy.orm import Session

from tests.integration.web.conftest import HOST, Person, Sent, make_person
from tests.support.providers import LASTING_KEY, REFRESHED_KEY
from tests.support.sandbox import SandboxAdmin
from worker.runtime import Runtime

PROVIDERS = "/api/v1/providers"
LINKS = 30


@pytest.fixture
def ada(web_runtime: Runtime, client: TestClient) -> Iterator[Person]:
    """A user of their own, with a browser that holds no cookie."""
    client.cookies.clear()
    yield make_person(web_runtime)
    client.cookies.clear()


def _make(client: TestClient, person: Person, key: str = REFRESHED_KEY, alias: str = "Main") -> str:
    answer = client.post(PROVIDERS, headers=person.headers, json={"provider_key": key, "alias": alias})
    return f"{PROVIDERS}/{answer.json()['id']}"


def _begin(client: TestClient, person: Person, login: str) -> dict[str, Any]:
    answer = client.post(f"{login}/authorization/", headers=person.headers)
    assert answer.status_code == 200, answer.text
    begun: dict[str, Any] = answer.json()
    return begun


def _consent(sandbox: SandboxAdmin, begun: dict[str, Any]) -> str:
    """The query with which the provider sends the browser back."""
    login = sandbox.create_logins(REFRESHED_KEY, 1)[0]
    asked = {name: values[0] for name, values in parse_qs(urlsplit(begun["auth_url"]).query).items()}
    return urlsplit(sandbox.link(login, **asked)["callback_url"]).query


def test_consent_in_the_same_browser_links_the_login(
    client: TestClient, ada: Person, sandbox: SandboxAdmin, rows: Session
) -> None:
    login = _make(client, ada)
    before = client.get(f"{login}/authorization", headers=ada.headers).json()
    begun = _begin(client, ada, login)

    answer = client.get(f"{login}/authorization/callback?{_consent(sandbox, begun)}")
    shown = client.get(login, headers=ada.headers).json()
    grant = client.get(f"{login}/authorization", headers=ada.headers).json()

    assert begun.keys() == {"auth_url", "state", "message"}
    assert before["status"] == "not_connected"
    assert answer.status_code == 200, answer.text
    assert answer.json()["alias"] == "Main"
    assert answer.json()["expires_in"] > 0
    assert (shown["status"], shown["is_connected"], shown["needs_reconnection"]) == ("active", True, False)
    assert shown["connected_at"] is not None
    assert (grant["status"], grant["has_refresh_token"]) == ("connected", True)
    assert not client.cookies
    stored = rows.execute(text("SELECT access_token, refresh_token FROM provider_tokens")).all()
    assert not any(token in f"{answer.text}{grant}" for row in stored for token in row if token)


@pytest.mark.deep
def test_what_is_asked_before_the_consent_comes_in_the_body(client: TestClient, ada: Person) -> None:
    body = {"provider_key": "enable_banking", "alias": "Bank"}
    made = client.post("/api/v1/providers", headers=ada.headers, json=body).json()
    address = f"/api/v1/providers/{made['id']}/authorization"

    begun = client.post(address, headers=ada.headers, json={"bank": "zweite"})
    vague = client.post(address, headers=ada.headers, json={"bank": "mock business"})
    nothing = client.post(address, headers=ada.headers)

    assert "/ais/start?sessionid=" in begun.json()["auth_url"]
    assert begun.json()["state"] not in begun.json()["auth_url"]
    assert (vague.status_code, nothing.status_code) == (400, 400)
    assert "these words fit 2: Mock Bank, FI, business, app; Mock Bank, FI, business, card" in vague.text
    assert "nothing was given as bank" in nothing.text


@pytest.mark.deep
def test_state_is_random_and_stored_as_a_hash(client: TestClient, ada: Person, rows: Session) -> None:
    login = _make(client, ada)

    states = [_begin(client, ada, login)["state"] for _ in range(2)]

    assert len(set(states)) == 2
    assert all(len(state) >= 43 and login.rpartition("/")[2] not in state for state in states)
    stored = rows.execute(text("SELECT encode(state_hash, 'escape') || alias FROM link_states")).scalars().all()
    assert stored
    assert not any(state in row for state in states for row in stored)


@pytest.mark.deep
def test_cookie_is_for_this_browser_alone(client: TestClient, ada: Person) -> None:
    login = _make(client, ada)

    cookie = client.post(f"{login}/authorization", headers=ada.headers).headers["set-cookie"]

    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert "Max-Age=900" in cookie


@pytest.mark.deep
def test_another_browser_cannot_finish_the_link_and_the_right_one_still_can(
    client: TestClient, ada: Person, sandbox: SandboxAdmin
) -> None:
    login = _make(client, ada)
    query = _consent(sandbox, _begin(client, ada, login))
    cookies = dict(client.cookies)

    client.cookies.clear()
    without = client.get(f"{login}/authorization/callback?{query}")
    client.cookies.update(dict.fromkeys(cookies, "x" * 43))
    forged = client.get(f"{login}/authorization/callback?{query}")
    client.cookies.clear()
    client.cookies.update(cookies)
    right = client.get(f"{login}/authorization/callback?{query}")
    client.cookies.update(cookies)
    again = client.get(f"{login}/authorization/callback?{query}")

    assert [answer.status_code for answer in (without, forged, right, again)] == [400, 400, 200, 400]
    assert "start linking again" in without.json()["detail"]


@pytest.mark.deep
def test_state_of_another_login_completes_nothing(client: TestClient, ada: Person, sandbox: SandboxAdmin) -> None:
    mine, other = _make(client, ada, alias="Mine"), _make(client, ada, alias="Other")
    query = _consent(sandbox, _begin(client, ada, mine))

    assert client.get(f"{other}/authorization/callback?{query}").status_code == 400
    assert client.get(other, headers=ada.headers).json()["status"] == "pending"
    assert client.get(f"{mine}/authorization/callback?{query}").status_code == 200


@pytest.mark.deep
def test_login_that_was_renamed_on_the_way_is_linked_under_its_new_name(
    client: TestClient, ada: Person, sandbox: SandboxAdmin
) -> None:
    login = _make(client, ada, alias="Old")
    query = _consent(sandbox, _begin(client, ada, login))
    client.patch(login, headers=ada.headers, json={"alias": "New"})

    assert client.get(f"{login}/authorization/callback?{query}").json()["alias"] == "New"
    assert client.get(PROVIDERS, headers=ada.headers).json()["total"] == 1


@pytest.mark.deep
@pytest.mark.parametrize(
    "query",
    ["error=access_denied&state={state}", "state={state}", "code=C0.x%40", "", "code=&state={state}", "%ff=%00"],
)
def test_user_who_declined_or_came_without_a_code_is_told(client: TestClient, ada: Person, query: str) -> None:
    login = _make(client, ada)
    state = _begin(client, ada, login)["state"]

    answer = client.get(f"{login}/authorization/callback?{query.format(state=state)}")

    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert client.get(login, headers=ada.headers).json()["status"] == "pending"


@pytest.mark.deep
def test_state_that_has_expired_is_refused(
    client: TestClient, ada: Person, sandbox: SandboxAdmin, rows: Session
) -> None:
    login = _make(client, ada)
    query = _consent(sandbox, _begin(client, ada, login))
    rows.execute(text("UPDATE link_states SET expires_at = now() - interval '1 s'"))
    rows.commit()

    assert client.get(f"{login}/authorization/callback?{query}").status_code == 400


@pytest.mark.deep
def test_code_that_the_provider_does_not_take_is_told_as_a_failed_exchange(
    client: TestClient, ada: Person, sandbox: SandboxAdmin
) -> None:
    login = _make(client, ada)
    state = _begin(client, ada, login)["state"]

    answer = client.get(f"{login}/authorization/callback?code=C0.unknown%40&state={state}")

    assert answer.status_code == 500
    assert "start linking again" in answer.json()["detail"]
    assert client.get(login, headers=ada.headers).json()["is_connected"] is False


def test_callback_of_a_login_that_is_not_there(client: TestClient) -> None:
    url = f"{PROVIDERS}/00000000-0000-7000-8000-00000000ffff/authorization/callback?code=x&state=y"

    assert client.get(url).status_code == 404


@pytest.mark.deep
def test_login_without_an_address_for_consent_is_linked_by_its_form(
    client: TestClient, ada: Person, sandbox: SandboxAdmin
) -> None:
    login = _make(client, ada, LASTING_KEY)
    refused = client.post(f"{login}/authorization", headers=ada.headers)
    form = sandbox.link(sandbox.create_logins(LASTING_KEY, 1)[0])

    wrong = client.put(f"{login}/authorization", headers=ada.headers, json={"nonsense": "x"})
    taken = client.put(f"{login}/authorization", headers=ada.headers, json=form)
    used = client.put(f"{login}/authorization", headers=ada.headers, json=form)

    assert (refused.status_code, wrong.status_code, taken.status_code) == (400, 400, 200)
    assert "public token" in refused.json()["detail"]
    assert used.status_code == 502
    assert client.get(login, headers=ada.headers).json()["status"] == "active"
    assert client.get(f"{login}/authorization/callback?code=x&state=y").status_code == 400


@pytest.mark.deep
def test_refresh_is_asked_for_and_the_grant_is_ended(
    client: TestClient, ada: Person, sandbox: SandboxAdmin, sent: Sent
) -> None:
    login = _make(client, ada)
    none = [client.request(method, f"{login}/authorization", headers=ada.headers) for method in ("PATCH", "DELETE")]
    client.get(f"{login}/authorization/callback?{_consent(sandbox, _begin(client, ada, login))}")

    refreshed = client.patch(f"{login}/authorization", headers=ada.headers)
    task, arguments, _ = sent.tasks[-1]
    ended = client.delete(f"{login}/authorization", headers=ada.headers)
    shown = client.get(login, headers=ada.headers).json()
    grant = client.get(f"{login}/authorization", headers=ada.headers).json()

    assert [answer.status_code for answer in none] == [404, 404]
    assert (refreshed.status_code, refreshed.json().keys()) == (200, {"message", "detail"})
    assert (task, arguments) == ("worker.tasks.tokens.refresh_providers", ([login.rpartition("/")[2]],))
    assert (ended.status_code, ended.content) == (204, b"")
    assert (shown["status"], shown["needs_reconnection"]) == ("revoked", True)
    assert grant["status"] == "not_connected"
    assert client.delete(login, headers=ada.headers).status_code == 200


@pytest.mark.deep
def test_cookie_is_sent_over_https_alone_where_there_is_https(client: TestClient, ada: Person) -> None:
    url = HOST.replace("http:", "https:") + _make(client, ada)

    assert "Secure" in client.post(f"{url}/authorization", headers=ada.headers).headers["set-cookie"]


@pytest.mark.deep
def test_person_who_lands_in_the_browser_reads_what_happened(
    client: TestClient, ada: Person, sandbox: SandboxAdmin
) -> None:
    login = _make(client, ada, alias="<b>Mine</b>")
    query = _consent(sandbox, _begin(client, ada, login))
    cookies = dict(client.cookies)
    url = f"/oauth/{REFRESHED_KEY}/callback?{query}"

    client.cookies.clear()
    elsewhere = client.get(url)
    client.cookies.update(cookies)
    landed = client.get(url)
    client.cookies.update(cookies)
    again = client.get(url)

    assert [answer.status_code for answer in (elsewhere, landed, again)] == [400, 200, 400]
    assert "&lt;b&gt;Mine&lt;/b&gt; is linked" in landed.text
    assert "start linking again" in again.text
    assert landed.headers["content-type"].startswith("text/html")
    assert "script" not in landed.text
    assert "style-src 'self'" in landed.headers["content-security-policy"]
    assert client.get(login, headers=ada.headers).json()["status"] == "active"


@pytest.mark.deep
@pytest.mark.parametrize(
    ("key", "query", "status"),
    [
        ("nobank", "code=x&state=y", 404),
        (LASTING_KEY, "code=x&state=y", 400),
        (REFRESHED_KEY, "error=access_denied&state=y", 400),
        (REFRESHED_KEY, "", 400),
    ],
)
def test_person_who_lands_without_a_link_reads_that_nothing_was_linked(
    client: TestClient, key: str, query: str, status: int
) -> None:
    answer = client.get(f"/oauth/{key}/callback?{query}")

    assert answer.status_code == status
    assert "This login was not linked" in answer.text


@pytest.mark.deep
def test_code_that_the_provider_does_not_take_is_told_on_the_page(client: TestClient, ada: Person) -> None:
    state = _begin(client, ada, _make(client, ada))["state"]

    assert client.get(f"/oauth/{REFRESHED_KEY}/callback?code=C0.unknown%40&state={state}").status_code == 500


@pytest.mark.deep
def test_replayed_forged_and_late_callbacks_link_nothing_twice_and_lose_nothing(
    client: TestClient, ada: Person, sandbox: SandboxAdmin, rows: Session
) -> None:
    """Many links; every fifth callback is preceded by a forged one, repeated, or too late."""
    made: list[tuple[str, int]] = []
    for number in range(LINKS):
        client.cookies.clear()
        login = _make(client, ada, alias=f"Login {number}")
        query = _consent(sandbox, _begin(client, ada, login))
        url, kind = f"{login}/authorization/callback?{query}", number % 15
        statuses = []
        if kind == 0:
            statuses.append(client.get(url.replace("state=", "state=x")).status_code)
        if kind == 5:
            rows.execute(text("UPDATE link_states SET expires_at = now() - interval '1 s'"))
            rows.commit()
        cookies = dict(client.cookies)
        statuses.append(client.get(url).status_code)
        if kind == 10:
            client.cookies.update(cookies)
            statuses.append(client.get(url).status_code)
        made.append((login, 400 if kind == 5 else 200))
        assert statuses == {0: [400, 200], 5: [400], 10: [200, 400]}.get(kind, [200])

    states = {login: client.get(login, headers=ada.headers).json()["is_connected"] for login, _ in made}
    assert states == {login: status == 200 for login, status in made}
    linked = text("SELECT count(*) FROM providers WHERE user_id = :user AND status = 'active'")
    count = rows.execute(linked, {"user": ada.user_id}).scalar()
    assert count == sum(status == 200 for _, status in made)

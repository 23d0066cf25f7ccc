"""Logging a browser in and out: the cookie, the tokens of forms, and where a login leads."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.integration.web.conftest import HOST, Person, Sent, make_key, runtime_run
from worker.errors import ConfigurationError, NotAuthenticated
from worker.models.vocabulary import KeyScope
from worker.runtime import Runtime
from worker.services.access import keys, sessions
from worker.settings import Settings, load
from worker.tasks import send as broker
from worker.web.application import create_app
from worker.web.forms import token
from worker.web.pages import asset_url


@pytest.fixture
def browser(client: TestClient) -> Iterator[TestClient]:
    """The client without cookies, before and after; it does not follow redirects."""
    client.cookies.clear()
    client.follow_redirects = False
    yield client
    client.cookies.clear()
    client.follow_redirects = True


def form_token(page: str, action: str) -> str:
    """The token of the form that is sent to this address."""
    found = re.search(rf'action="{re.escape(action)}".*?name="form_token" value="([^"]+)"', page, re.DOTALL)
    assert found, page
    return found[1]


def log_in(browser: TestClient, headers: dict[str, str], **fields: str) -> Any:
    """Fills in and sends the login form, as a browser does."""
    page = browser.get("/login").text
    key = headers["Authorization"].split()[1]
    return browser.post("/login", data={"form_token": form_token(page, "/login"), "key": key} | fields)


def test_key_logs_a_browser_in_and_out(browser: TestClient, person: Person) -> None:
    before = browser.get("/status")
    entered = log_in(browser, person.headers)
    page = browser.get("/status")
    left = browser.post("/logout", data={"form_token": form_token(page.text, "/logout")})
    after = browser.get("/status")

    assert (before.status_code, before.headers["location"]) == (303, "/login?next=%2Fstatus")
    assert (entered.status_code, entered.headers["location"]) == (303, "/status")
    assert page.status_code == 200
    assert (left.status_code, left.headers["location"]) == (303, "/login")
    assert after.status_code == 303


@pytest.mark.deep
def test_session_cookie_holds_no_key_and_is_kept_from_scripts(browser: TestClient, person: Person) -> None:
    key = person.headers["Authorization"].split()[1]

    cookie = log_in(browser, person.headers).headers["set-cookie"]

    assert "dashtam_session=" in cookie
    assert re.search(r"dashtam_session=[^;]+; HttpOnly; Max-Age=43200; Path=/; SameSite=lax", cookie)
    assert key not in cookie
    assert key[-43:] not in cookie


@pytest.mark.deep
def test_over_https_the_cookie_belongs_to_this_host_alone(web_runtime: Runtime, sent: Sent, person: Person) -> None:
    app = create_app(web_runtime, send=sent, transport=broker)
    with TestClient(app, base_url="https://127.0.0.1", follow_redirects=False) as browser:
        cookie = log_in(browser, person.headers).headers["set-cookie"]

        assert browser.get("/status").status_code == 200
    assert "__Host-dashtam_session=" in cookie
    assert "Secure" in cookie


@pytest.mark.deep
def test_revoking_the_key_ends_its_sessions(browser: TestClient, web_runtime: Runtime, person: Person) -> None:
    headers = make_key(web_runtime, person.user_id)
    log_in(browser, headers)
    prefix = headers["Authorization"].split()[1].split("_")[1]

    before = browser.get("/status")
    runtime_run(web_runtime, keys.revoke(web_runtime, prefix, actor="operator:tests"))

    assert (before.status_code, browser.get("/status").status_code) == (200, 303)


@pytest.mark.deep
def test_session_ends_by_itself(web_runtime: Runtime, person: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    key = person.headers["Authorization"].split()[1]
    value = runtime_run(web_runtime, sessions.begin(web_runtime, key))
    runtime_run(web_runtime, sessions.read(web_runtime, value))

    now = sessions.time.time()
    monkeypatch.setattr(sessions.time, "time", lambda: now + web_runtime.settings.web_session_seconds + 1)

    with pytest.raises(NotAuthenticated):
        runtime_run(web_runtime, sessions.read(web_runtime, value))


@pytest.mark.deep
@pytest.mark.parametrize("value", ["", "x", "é", "x" * 5000, "dashtam_00000000_" + "a" * 43])
def test_cookie_that_was_not_made_here_is_no_session(browser: TestClient, value: str) -> None:
    answer = browser.get("/status", headers={"Cookie": f"dashtam_session={value}".encode()})

    assert answer.status_code == 303


@pytest.mark.deep
def test_other_ciphertexts_of_this_server_are_no_session(web_runtime: Runtime) -> None:
    for text in ("[]", '{"kind":"other"}', "token"):
        with pytest.raises(NotAuthenticated):
            runtime_run(web_runtime, sessions.read(web_runtime, web_runtime.encryption.encrypt(text)))


@pytest.mark.deep
def test_key_that_is_not_known_is_told_and_logs_nobody_in(browser: TestClient) -> None:
    answer = log_in(browser, {"Authorization": f"Bearer dashtam_00000000_{'a' * 43}"})

    assert answer.status_code == 401
    assert "Not logged in." in answer.text
    assert "dashtam_session" not in answer.headers["set-cookie"]
    assert "aaaa" not in answer.text


@pytest.mark.deep
def test_key_that_may_not_read_is_refused(browser: TestClient, web_runtime: Runtime, person: Person) -> None:
    answer = log_in(browser, make_key(web_runtime, person.user_id, KeyScope.LINK))

    assert answer.status_code == 403
    assert "lacks the scope read" in answer.text


@pytest.mark.deep
@pytest.mark.parametrize(
    "fields",
    [{}, {"form_token": ""}, {"form_token": "wrong"}, {"form_token": token("of another browser", "/login")}],
    ids=["none", "empty", "wrong", "another-browser"],
)
def test_login_form_of_another_site_is_refused(browser: TestClient, person: Person, fields: dict[str, str]) -> None:
    browser.get("/login")

    answer = browser.post("/login", data={"key": person.headers["Authorization"].split()[1]} | fields)

    assert answer.status_code == 403
    assert "nothing was changed" in answer.text
    assert "set-cookie" not in answer.headers


@pytest.mark.deep
@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://example.com"},
        {"Origin": "http://127.0.0.1:8001"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
    ids=["origin", "port", "cross-site", "same-site"],
)
def test_form_that_a_browser_says_is_of_another_site_is_refused(
    browser: TestClient, person: Person, headers: dict[str, str]
) -> None:
    log_in(browser, person.headers)
    given = form_token(browser.get("/status").text, "/logout")

    assert browser.post("/logout", data={"form_token": given}, headers=headers).status_code == 403
    assert browser.post("/logout", data={"form_token": given}, headers={"Origin": HOST}).status_code == 303


def test_token_of_one_form_does_not_serve_another_or_another_session(
    browser: TestClient, person: Person, stranger: Person
) -> None:
    log_in(browser, stranger.headers)
    foreign = form_token(browser.get("/status").text, "/logout")
    browser.cookies.clear()
    log_in(browser, person.headers)

    assert browser.post("/logout", data={"form_token": foreign}).status_code == 403
    assert browser.post("/logout").status_code == 403
    assert browser.get("/status").status_code == 200


@pytest.mark.deep
def test_form_without_a_login_is_refused(browser: TestClient) -> None:
    answer = browser.post("/logout", data={"form_token": "x"})

    assert answer.status_code == 401
    assert "log in" in answer.text


@pytest.mark.deep
@pytest.mark.parametrize(
    ("wanted", "reached"),
    [
        ("/status?state=active&page=2", "/status?state=active&page=2"),
        ("https://example.com/", "/status"),
        ("//example.com", "/status"),
        ("/\\example.com", "/status"),
        ("/status\r\nSet-Cookie: a=b", "/status"),
        ("/status#x", "/status"),
        ("javascript:alert(1)", "/status"),
        ("", "/status"),
    ],
)
def test_login_leads_to_a_page_of_ours_alone(browser: TestClient, person: Person, wanted: str, reached: str) -> None:
    assert log_in(browser, person.headers, next=wanted).headers["location"] == reached


@pytest.mark.deep
def test_login_page_keeps_where_the_browser_wanted_to_go(browser: TestClient) -> None:
    assert 'name="next" value="/status?state=paused"' in browser.get("/login?next=/status%3Fstate%3Dpaused").text
    assert 'name="next" value="/status"' in browser.get("/login?next=//example.com").text


@pytest.mark.deep
@pytest.mark.parametrize("data", [{}, {"key": "x" * 201}])
def test_login_form_that_is_incomplete_is_told_on_a_page(browser: TestClient, data: dict[str, str]) -> None:
    given = form_token(browser.get("/login").text, "/login")

    answer = browser.post("/login", data={"form_token": given} | data)

    assert answer.status_code == 422
    assert answer.headers["content-type"].startswith("text/html")
    assert "x" * 201 not in answer.text


@pytest.mark.deep
def test_key_in_the_address_is_taken_by_a_demonstration_alone(web_runtime: Runtime, sent: Sent) -> None:
    def page() -> Any:
        with TestClient(create_app(web_runtime, send=sent, transport=broker), base_url=HOST) as asking:
            return asking.get("/login")

    before = web_runtime.settings
    usual = page()
    web_runtime.settings = before.model_copy(update={"web_login_links": True})
    demonstration = page()
    web_runtime.settings = before

    assert "<script" not in usual.text
    assert "script-src 'none'" in usual.headers["content-security-policy"]
    assert asset_url("enter.js") in demonstration.text
    assert "script-src 'self'" in demonstration.headers["content-security-policy"]


@pytest.mark.deep
@pytest.mark.parametrize(
    ("variable", "value"), [("WEB_ADDRESS", "192.0.2.1"), ("DASHTAM_ENV", "production")], ids=["open", "real"]
)
def test_key_in_the_address_is_refused_where_others_can_reach_it(
    web_runtime: Runtime, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv("WEB_LOGIN_LINKS", "1")
    load(Settings)
    monkeypatch.setenv(variable, value)

    with pytest.raises(ConfigurationError, match="WEB_LOGIN_LINKS: only outside production"):
        load(Settings)


@pytest.mark.deep
def test_static_files_may_be_kept_and_have_one_address_for_each_version(browser: TestClient) -> None:
    style = browser.get(asset_url("style.css"))

    assert style.status_code == 200
    assert "immutable" in style.headers["cache-control"]
    assert style.headers["content-type"].startswith("text/css")
    for other in ("/static/000000000000/style.css", asset_url("style.css") + "x", "/static/x/..%2Fpages.py"):
        assert browser.get(other).status_code == 404


@pytest.mark.deep
def test_pages_allow_nothing_inline_and_nothing_foreign(browser: TestClient, person: Person) -> None:
    log_in(browser, person.headers)

    for path in ("/login", "/status", "/docs"):
        answer = browser.get(path)
        policy = answer.headers["content-security-policy"]
        assert "unsafe" not in policy
        assert "http" not in policy
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert not re.search(r"<style|style=|<script(?![^>]*src=)|\son\w+=|(src|href)=\"(?!/|#)", answer.text), path

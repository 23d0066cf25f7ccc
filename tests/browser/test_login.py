"""Logging in and out in a browser."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.conftest import OpenPage, key_in
from tests.integration.web.conftest import Person, Sent
from tests.support.browsing import chromium, watched
from tests.support.web_server import listening
from worker.runtime import Runtime
from worker.tasks import send as broker
from worker.web.application import create_app


def test_keyboard_alone_logs_in_and_out(open_page: OpenPage, person: Person, width: int) -> None:
    seen = open_page(width)
    seen.go("/status")
    seen.shot("login")
    seen.fits()

    expect(seen.page.get_by_label("API key")).to_be_focused()
    seen.type(key_in(person.headers))
    seen.press("Enter")
    seen.page.wait_for_url("**/status")
    seen.fits()
    seen.tab_to("Log out")
    seen.press("Enter")

    seen.page.wait_for_url("**/login")
    assert "dashtam_session" not in [cookie["name"] for cookie in seen.page.context.cookies()]


def test_wrong_key_is_told(open_page: OpenPage, width: int) -> None:
    seen = open_page(width, dark=True)
    seen.allowed.append("status of 401")
    seen.go("/login")
    seen.page.fill("#key", "dashtam_00000000_" + "a" * 43)
    seen.press("Enter")

    expect(seen.page.get_by_role("alert")).to_contain_text("Not logged in.")
    seen.shot("login-wrong-key-dark")


def test_form_of_another_site_changes_nothing(open_page: OpenPage, origin: str, person: Person, width: int) -> None:
    from tests.browser.conftest import log_in

    seen = open_page(width)
    seen.allowed.append("status of 403")
    log_in(seen, person.headers)
    seen.page.evaluate("document.querySelector('[name=form_token]').value = 'of another site'")
    seen.page.click("text=Log out")

    expect(seen.page.get_by_role("heading", level=1)).to_have_text("Forbidden")
    seen.go("/status")
    expect(seen.page.get_by_role("heading", level=1)).not_to_have_text("Log in")


def test_link_of_the_demonstration_logs_in_and_leaves_no_key_behind(
    chromium: Browser, web_runtime: Runtime, sent: Sent, person: Person, width: int
) -> None:
    before = web_runtime.settings
    web_runtime.settings = before.model_copy(update={"web_login_links": True})
    try:
        app = create_app(web_runtime, send=sent, transport=broker)
        with listening(app) as origin, watched(chromium, origin, width=width) as seen:
            seen.go(f"/login#{key_in(person.headers)}")
            seen.page.wait_for_url("**/status")
            seen.page.go_back()
            assert "dashtam_" not in seen.page.url
    finally:
        web_runtime.settings = before


def test_documentation_is_one_page_that_fits(open_page: OpenPage, width: int) -> None:
    seen = open_page(width)
    seen.go("/docs")
    seen.fits()


def test_without_chromium_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")

    with pytest.raises(RuntimeError, match="sudo apt-get install chromium"):
        chromium()

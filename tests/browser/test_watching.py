"""What the browser tests rely on: a page that does something wrong is found out."""

from __future__ import annotations

import pytest

from tests.browser.conftest import OpenPage


def test_page_that_does_nothing_wrong_passes(open_page: OpenPage) -> None:
    seen = open_page(400)
    seen.go("/login")

    seen.require_clean()


@pytest.mark.parametrize(
    ("script", "found"),
    [
        ("console.error('broken')", "console error: broken"),
        ("setTimeout(() => { throw new Error('thrown') })", "uncaught: thrown"),
        ("document.head.appendChild(document.createElement('style')).textContent = 'p {}'", "Content Security Policy"),
        ("document.body.appendChild(new Image()).src = 'http://127.0.0.1:9/x.png'", "Content Security Policy"),
    ],
    ids=["console", "uncaught", "inline", "foreign-image"],
)
def test_page_that_does_something_wrong_is_found_out(open_page: OpenPage, script: str, found: str) -> None:
    seen = open_page(400)
    seen.go("/login")
    seen.page.evaluate(script)
    seen.page.wait_for_timeout(50)

    with pytest.raises(AssertionError, match=found):
        seen.require_clean()
    seen.wrong.clear()


def test_request_to_another_origin_is_found_out(open_page: OpenPage) -> None:
    seen = open_page(400)
    seen.page.set_content("<img src='http://127.0.0.1:9/x.png'>")

    with pytest.raises(AssertionError, match="asked another origin"):
        seen.require_clean()
    seen.wrong.clear()


def test_page_that_is_too_wide_is_found_out(open_page: OpenPage) -> None:
    seen = open_page(400)
    seen.go("/login")
    seen.fits()
    seen.page.evaluate("document.querySelector('main').style.width = '900px'")

    with pytest.raises(AssertionError, match="wider than the window"):
        seen.fits()


def test_focus_that_cannot_be_seen_is_found_out(open_page: OpenPage) -> None:
    seen = open_page(400)
    seen.go("/login")
    seen.tab_to("Log in")
    seen.press("Shift+Tab")
    seen.page.evaluate("document.querySelector('button').style.outlineStyle = 'none'")

    with pytest.raises(AssertionError, match="cannot be seen on Log in"):
        seen.tab_to("Log in")

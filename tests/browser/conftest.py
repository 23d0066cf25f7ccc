"""One Chromium and one server for each module of browser tests; each test has a page with cookies of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from fastapi import FastAPI
from playwright.sync_api import Browser

from tests.integration.web.conftest import (
    Sent,
    person,
    rows,
    sent,
    stranger,
    superuser_token_headers,
    web_database,
    web_runtime,
)
from tests.support.browsing import WIDTHS, Watched, browser, watched
from tests.support.web_server import listening
from worker.runtime import Runtime
from worker.tasks import send as broker
from worker.web.application import create_app

__all__ = ["person", "rows", "sent", "stranger", "superuser_token_headers", "web_database", "web_runtime"]  # fixtures

OpenPage = Callable[..., Watched]


@pytest.fixture(scope="module")  # while it runs, other tests of this process could not use asyncio
def chromium() -> Iterator[Browser]:
    """The browser."""
    with browser() as made:
        yield made


@pytest.fixture(scope="module")
def application(web_runtime: Runtime, sent: Sent) -> FastAPI:
    """The application that is served."""
    return create_app(web_runtime, send=sent, transport=broker)


@pytest.fixture(scope="module")
def origin(application: FastAPI) -> Iterator[str]:
    """The address of the server."""
    with listening(application) as address:
        yield address


@pytest.fixture(params=WIDTHS, ids=lambda width: f"{width}px")
def width(request: pytest.FixtureRequest) -> int:
    """The width of the window, in CSS pixels: a telephone's and a screen's."""
    found: int = request.param
    return found


@pytest.fixture
def open_page(chromium: Browser, origin: str) -> Iterator[OpenPage]:
    """Opens a window: `open_page(width, dark=True)`. After the test it must have done nothing wrong."""
    with ExitStack() as closing:

        def make(width: int, *, dark: bool = False) -> Watched:
            return closing.enter_context(watched(chromium, origin, width=width, dark=dark))

        yield make


def key_in(headers: dict[str, str]) -> str:
    """The API key in the header of a request."""
    return headers["Authorization"].split()[1]


def log_in(seen: Watched, headers: dict[str, str]) -> None:
    """Logs in by the form."""
    seen.go("/login")
    seen.page.fill("#key", key_in(headers))
    seen.page.click("text=Log in >> visible=true >> nth=-1")
    seen.page.wait_for_url("**/status")

"""Pages in Debian's Chromium, driven by Playwright. Whatever a page does that it should not is a failure."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, expect, sync_playwright

from tests.support.environment import ROOT

SHOTS = ROOT / "build" / "screenshots"
"""Where screenshots are put; the folder is not part of the repository."""
WIDTHS = (400, 1400)
_HEIGHT = 900
_PATIENCE_MS = 30_000
_PROGRAMS = ("chromium", "chromium-browser", "google-chrome")


def chromium() -> str:
    """The path of the installed Chromium.

    Raises:
        RuntimeError: there is none; says what to install.
    """
    found = next(filter(None, map(shutil.which, _PROGRAMS)), None)
    if found is None:
        raise RuntimeError(
            "no Chromium is installed, so no page was looked at. Install it (Debian, Ubuntu: sudo apt-get install"
            " chromium), then: make test-browser"
        )
    return found


@contextmanager
def browser() -> Iterator[Browser]:
    """A headless Chromium, closed at the end of the block. It never asks a server of its maker."""
    options = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"]
    if os.geteuid() == 0:  # Chromium refuses to make its sandbox as root
        options.append("--no-sandbox")
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=chromium(), args=options)
        yield made
        made.close()


@dataclass
class Watched:
    """A page, and what it did that it should not.

    Attributes:
        page: the page.
        origin: the only origin that it may ask, as `http://127.0.0.1:8000`.
        allowed: parts of console messages that this test expects, for example of an answer 403.
        wrong: console errors, uncaught errors, requests to other origins, violations of the policy.
    """

    page: Page
    origin: str
    allowed: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def go(self, path: str) -> None:
        """Opens a page of the server."""
        self.page.goto(f"{self.origin}{path}")

    def shot(self, name: str) -> Path:
        """Takes a picture of the whole page at its present width."""
        SHOTS.mkdir(parents=True, exist_ok=True)
        width = (self.page.viewport_size or {"width": 0})["width"]
        path = SHOTS / f"{name}-{width}.png"
        self.page.screenshot(path=path, full_page=True)
        return path

    def press(self, *keys: str) -> None:
        """Presses these keys of the keyboard, one after the other."""
        self._wait_for_autofocus()
        for key in keys:
            self.page.keyboard.press(key)

    def type(self, text: str) -> None:
        """Types this text into the field that has the focus."""
        self._wait_for_autofocus()
        self.page.keyboard.type(text)

    def tab_to(self, text: str, *, at_most: int = 100) -> None:
        """Presses Tab until the focus is on what has this text or label.

        Raises:
            AssertionError: it is never reached, or the focus cannot be seen there.
        """
        self._wait_for_autofocus()
        focused = "document.activeElement"
        seen: list[str] = []
        for _ in range(at_most):
            self.page.keyboard.press("Tab")
            name: str = self.page.evaluate(
                f"{focused}.labels?.[0]?.innerText || {focused}.getAttribute('aria-label') || {focused}.innerText || ''"
            )
            if re.sub(r"\s+", " ", name).strip() == text:
                outline = self.page.evaluate(f"getComputedStyle({focused}).outlineStyle")
                assert outline != "none", f"the focus cannot be seen on {text}"
                return
            seen.append(name)
        raise AssertionError(f"Tab never reaches {text!r}; it reached {seen}")

    def fits(self) -> None:
        """Raises `AssertionError` if the page is wider than the window."""
        wide = self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0, f"the page is {wide} px wider than the window"

    def require_clean(self) -> None:
        """Raises `AssertionError` if the page did something that it should not."""
        left = [one for one in self.wrong if not any(part in one for part in self.allowed)]
        assert not left, left

    def _wait_for_autofocus(self) -> None:
        # Chromium gives the focus to a field with `autofocus` some time after the page is loaded:
        # a key that is pressed before goes nowhere.
        self.page.wait_for_load_state()
        if self.page.evaluate("!!document.querySelector('[autofocus]') && document.activeElement === document.body"):
            expect(self.page.locator("[autofocus]").first).to_be_focused()

    def watch(self, page: Page) -> None:
        """Listens to what a page does."""
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self.wrong.append(f"uncaught: {error}"))
        page.on("request", self._see)

    def _hear(self, message: ConsoleMessage) -> None:
        # A violation of the Content-Security-Policy is a console error, too.
        if message.type in ("error", "warning"):
            self.wrong.append(f"console {message.type}: {message.text}")

    def _see(self, request: Request) -> None:
        parts = urlsplit(request.url)
        if parts.scheme not in ("data", "blob") and f"{parts.scheme}://{parts.netloc}" != self.origin:
            self.wrong.append(f"asked another origin: {parts.scheme}://{parts.netloc}")


@contextmanager
def watched(browser: Browser, origin: str, *, width: int, dark: bool = False) -> Iterator[Watched]:
    """A new page with its own cookies; at the end of the block it must have done nothing wrong."""
    context: BrowserContext = browser.new_context(
        viewport={"width": width, "height": _HEIGHT}, color_scheme="dark" if dark else "light"
    )
    context.set_default_timeout(_PATIENCE_MS)
    page = context.new_page()
    watching = Watched(page, origin)
    watching.watch(page)
    context.on("page", watching.watch)
    try:
        yield watching
        watching.require_clean()
    finally:
        context.close()

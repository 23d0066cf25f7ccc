"""Linking a login in a browser, by keyboard alone, against the sandbox: every link kind, and the ways it can end."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from playwright.sync_api import Browser, expect

from tests.integration.web.conftest import Person, Sent, make_person
from tests.support.browsing import Watched, watched
from tests.support.link_journey import SESSIONS, MadeUp
from tests.support.providers import LASTING_KEY, REFRESHED_KEY
from tests.support.sandbox import SandboxAdmin, SandboxProcess
from tests.support.web_server import listening
from worker.integrations.kit.link_kinds import FILE, KEY_AND_SECRET, KEY_FILE, OAUTH, OAUTH_PKCE, SETUP_TOKEN, LinkKind
from worker.runtime import Runtime
from worker.tasks import send as broker
from worker.web.application import create_app

SEEDS = itertools.count(100)


@dataclass
class App:
    """An app whose user links a login: it makes link sessions, and browsers go back to its page `/healthz`."""

    seen: Watched
    client: httpx.Client
    person: Person
    origin: str
    made: dict[str, str] = field(default_factory=dict)

    def begin(self, provider_key: str | None = None, alias: str | None = None, **more: str) -> None:
        """Makes a session and opens its page."""
        wanted = {"provider_key": provider_key, "alias": alias, "return_url": f"{self.origin}/healthz", **more}
        answer = self.client.post(SESSIONS, headers=self.person.headers, json=wanted)
        assert answer.status_code == 201, answer.text
        self.made = answer.json()
        self.seen.page.goto(f"{self.origin}/link?session={parse_qs(urlsplit(self.made['url']).query)['session'][0]}")

    def result(self) -> dict[str, str]:
        """Waits until the browser is back, and returns what its address says."""
        self.seen.page.wait_for_url("**/healthz?**")
        return {name: values[0] for name, values in parse_qs(urlsplit(self.seen.page.url).query).items()}

    def logins(self) -> list[dict[str, str]]:
        """The user's logins."""
        found: list[dict[str, str]] = self.client.get("/api/v1/providers", headers=self.person.headers).json()["items"]
        return found


@pytest.fixture(scope="module")
def linking_origin(web_runtime: Runtime, sent: Sent) -> Iterator[str]:
    """The address of a server that sends browsers back to itself, and that is where providers send them, too."""
    with listening(create_app(web_runtime, send=sent, transport=broker)) as origin:
        before = web_runtime.settings
        web_runtime.settings = before.model_copy(
            update={"link_return_origins": origin, "demonstration_user": "demo@dashtam.localhost"}
        )
        integration = web_runtime.integrations[REFRESHED_KEY]
        callback = f"{origin}/oauth/{REFRESHED_KEY}/callback"
        integration.settings = integration.settings.model_copy(update={"redirect_uri": callback})
        yield origin
        web_runtime.settings = before


@pytest.fixture
def app(
    chromium: Browser,
    linking_origin: str,
    web_runtime: Runtime,
    sandbox: SandboxAdmin,
    sandbox_process: SandboxProcess,
    width: int,
) -> Iterator[App]:
    """An app, its user, and the browser; the only other origin that it may ask is that of the sandbox."""
    sandbox.reset(next(SEEDS))  # so that no test gets an Item which another test's user has linked
    sandbox.create_logins(LASTING_KEY, 1)
    with httpx.Client(base_url=linking_origin) as client, watched(chromium, linking_origin, width=width) as seen:
        seen.allowed.append(f"asked another origin: {sandbox_process.base_url}")
        yield App(seen, client, make_person(web_runtime), linking_origin)


@pytest.fixture
def kind(request: pytest.FixtureRequest, web_runtime: Runtime) -> Iterator[LinkKind]:
    """A made-up integration of this link kind is enabled."""
    web_runtime.integrations[MadeUp.key] = MadeUp(request.param)
    yield request.param
    del web_runtime.integrations[MadeUp.key]


@pytest.mark.parametrize("kind", [OAUTH, OAUTH_PKCE], ids=lambda kind: kind.name)
def test_keyboard_alone_consents_at_the_provider(
    app: App, web_runtime: Runtime, monkeypatch: pytest.MonkeyPatch, kind: LinkKind
) -> None:
    monkeypatch.setattr(web_runtime.integrations[REFRESHED_KEY], "link_kind", kind, raising=False)
    app.begin()
    app.seen.fits()
    app.seen.shot("link-choose")
    app.seen.press("Tab", "Tab")
    expect(app.seen.page.get_by_role("link", name="Charles Schwab")).to_be_focused()
    app.seen.press("Enter")
    expect(app.seen.page.get_by_role("heading", level=1)).to_have_text("Link Charles Schwab")
    app.seen.fits()
    app.seen.shot("link-start")
    app.seen.tab_to("Name of this login")
    app.seen.type(" of mine")
    app.seen.press("Enter")

    expect(app.seen.page.get_by_role("heading", level=1)).to_have_text("Sandbox: schwab")
    assert ("code_challenge=" in app.seen.page.url) is kind.pkce
    app.seen.press("Tab", "Tab", "Enter")

    assert app.result()["status"] == "linked"
    (login,) = app.logins()
    assert login["status"] == "active"
    assert app.result()["provider_id"] == login["id"]


def test_person_who_declines_comes_back_with_nothing(app: App) -> None:
    app.begin(REFRESHED_KEY, "Main")
    app.seen.tab_to("Continue to Charles Schwab")
    app.seen.press("Enter")
    app.seen.page.wait_for_selector("text=Decline")
    app.seen.press("Tab", "Tab", "Tab", "Enter")

    assert app.result() == {"link_session": app.made["id"], "status": "cancelled"}
    assert app.logins() == []


def test_keyboard_alone_uses_the_provider_s_own_form(app: App) -> None:
    app.begin(LASTING_KEY, "My bank")
    app.seen.tab_to("Continue to Plaid")
    app.seen.press("Enter")

    expect(app.seen.page.get_by_role("dialog", name="Sandbox Bank")).to_be_visible()
    expect(app.seen.page.get_by_label("Login")).to_be_focused()
    app.seen.fits()
    app.seen.shot("link-front-end")
    app.seen.press("Escape")
    expect(app.seen.page.get_by_role("status")).to_have_text("You closed the form of Plaid. Nothing was linked.")
    expect(app.seen.page.get_by_role("button", name="Open the form again")).to_be_focused()
    app.seen.press("Enter")
    expect(app.seen.page.get_by_label("Login")).to_be_focused()
    form = "document.getElementById('handed-over')"
    app.seen.page.evaluate(f"() => {{ {form}.submit = () => undefined; }}")
    app.seen.press("Tab", "Enter")
    expect(app.seen.page.get_by_role("status")).to_have_text("Thank you. The login is being linked.")
    app.seen.page.evaluate(f"() => HTMLFormElement.prototype.submit.call({form})")

    assert app.result()["status"] == "linked"
    assert [login["status"] for login in app.logins()] == ["active"]


@pytest.mark.parametrize(
    "kind", [SETUP_TOKEN, KEY_AND_SECRET, KEY_FILE, FILE], ids=lambda kind: kind.name, indirect=True
)
def test_keyboard_alone_fills_in_the_form_of_a_link_kind(app: App, kind: LinkKind) -> None:
    app.begin(MadeUp.key, "Main")
    for one in kind.fields:
        app.seen.tab_to(f"{one.label[:1].upper()}{one.label[1:]}")
        app.seen.type("value-1")
    app.seen.fits()
    app.seen.shot(f"link-{kind.name}")
    app.seen.tab_to("Link this login")
    app.seen.press("Enter")

    assert app.result()["status"] == "linked"
    assert "value-1" not in app.seen.page.url
    assert [login["status"] for login in app.logins()] == ["active"]


def test_person_cancels_by_keyboard(app: App) -> None:
    app.begin(alias="Main")
    app.seen.tab_to("Cancel and go back")
    app.seen.press("Enter")

    assert app.result() == {"link_session": app.made["id"], "status": "cancelled"}


def test_name_that_is_taken_is_told_and_another_is_accepted(app: App, sandbox: SandboxAdmin) -> None:
    app.client.post(
        "/api/v1/providers", headers=app.person.headers, json={"provider_key": REFRESHED_KEY, "alias": "Plaid"}
    )
    app.seen.allowed.append("status of 409")
    app.begin(LASTING_KEY)
    app.seen.tab_to("Continue to Plaid")
    app.seen.press("Enter")

    expect(app.seen.page.get_by_role("alert")).to_contain_text("Choose another name")
    app.seen.fits()
    app.seen.shot("link-taken")
    app.seen.tab_to("Name of this login")
    app.seen.type("My bank")
    app.seen.press("Enter")
    expect(app.seen.page.get_by_role("dialog", name="Sandbox Bank")).to_be_visible()


def test_another_browser_is_told_where_to_go_on(app: App, chromium: Browser, linking_origin: str, width: int) -> None:
    app.begin(REFRESHED_KEY, "Main")
    app.seen.tab_to("Continue to Charles Schwab")
    app.seen.press("Enter")
    app.seen.page.wait_for_selector("text=Decline")

    with watched(chromium, linking_origin, width=width, dark=True) as other:
        other.allowed.append("status of 409")
        other.page.goto(f"{linking_origin}/link?session={parse_qs(urlsplit(app.made['url']).query)['session'][0]}")
        expect(other.page.locator("main")).to_contain_text("another browser")
        other.fits()
        other.shot("link-elsewhere-dark")


def test_demonstration_goes_the_whole_way(app: App) -> None:
    app.seen.go("/demonstration")
    app.seen.fits()
    app.seen.tab_to("Link a login")
    app.seen.press("Enter")
    app.seen.page.get_by_role("link", name="Charles Schwab").press("Enter")
    app.seen.tab_to("Name of this login")
    app.seen.type(f" at {app.seen.page.viewport_size}")
    app.seen.press("Enter")
    app.seen.page.get_by_role("button", name="Consent").press("Enter")

    expect(app.seen.page.get_by_role("status")).to_contain_text("Linked.")
    app.seen.fits()
    app.seen.shot("demonstration")

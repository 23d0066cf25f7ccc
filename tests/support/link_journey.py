"""A link session as a browser goes through it, without a browser: pages are read, forms are sent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from html.parser import HTMLParser
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
from fastapi.testclient import TestClient

from worker.integrations.kit.base import Caller, TokenAnswer
from worker.integrations.kit.integration import Integration
from worker.integrations.kit.link_kinds import LinkKind

SESSIONS = "/api/v1/link-sessions"


@dataclass
class Form:
    """A form of a page: where it is sent, and its fields with their values."""

    action: str
    fields: dict[str, str] = field(default_factory=dict)


class _Forms(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.forms: list[Form] = []
        self.refresh = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.forms.append(Form(given.get("action", "")))
        elif tag in ("input", "textarea") and self.forms:
            self.forms[-1].fields[given["name"]] = given.get("value", "")
        elif tag == "meta" and given.get("http-equiv") == "refresh":
            self.refresh = given["content"].partition("url=")[2]


def form_of(page: httpx.Response, *, of: int = 0) -> Form:
    """One form of a page; the last one cancels."""
    parser = _Forms()
    parser.feed(page.text)
    assert parser.forms, page.text
    return parser.forms[of]


def leads_to(page: httpx.Response) -> str:
    """Where a page that leads elsewhere leads."""
    parser = _Forms()
    parser.feed(page.text)
    return parser.refresh


def result_of(page: httpx.Response) -> dict[str, str]:
    """The result in the address to which the browser goes back."""
    return dict(parse_qsl(urlsplit(leads_to(page)).query))


@dataclass
class Journey:
    """A browser on its way through one session."""

    client: TestClient
    made: dict[str, Any]

    @classmethod
    def begin(cls, client: TestClient, headers: dict[str, str], **wanted: Any) -> Journey:
        """Makes the session, as an app does."""
        answer = client.post(SESSIONS, headers=headers, json=wanted)
        assert answer.status_code == 201, answer.text
        return cls(client, answer.json())

    def open(self, provider_key: str = "") -> httpx.Response:
        """Opens the address of the session; with a key, chooses this institution."""
        page = self.client.get(self.made["url"])
        if provider_key and page.url.path.count("/") == 2:
            page = self.client.get(f"{page.url.path}/{provider_key}")
        return page

    def send(self, page: httpx.Response, *, of: int = 0, **filled: str) -> httpx.Response:
        """Sends a form of the page."""
        form = form_of(page, of=of)
        return self.client.post(form.action, data=form.fields | filled)

    def cancel(self, page: httpx.Response) -> httpx.Response:
        """Presses Cancel."""
        return self.send(page, of=-1)

    def state(self, headers: dict[str, str]) -> dict[str, Any]:
        """The session, as the app reads it."""
        found: dict[str, Any] = self.client.get(f"{SESSIONS}/{self.made['id']}", headers=headers).json()
        return found


class MadeUp(Integration):
    """Takes whatever the form says; each exchange is a grant of its own."""

    key = "made_up"
    name = "Made-up Bank"

    def __init__(self, kind: LinkKind) -> None:
        super().__init__(None, None)  # type: ignore[arg-type]
        self.link_kind = kind  # type: ignore[misc]
        self.exchanged: list[dict[str, str]] = []

    async def exchange(self, caller: Caller, form: Mapping[str, str], *, now: datetime) -> TokenAnswer:
        self.exchanged.append(dict(form))
        return TokenAnswer(access_token=f"made-up-access-{len(self.exchanged)}")

    async def aclose(self) -> None:
        return None

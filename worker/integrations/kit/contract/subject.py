"""An integration beside its stand-in, in one process and without a network."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
from pydantic import SecretStr

from worker.integrations.kit.base import Caller, Page, SyncRequest, TokenAnswer
from worker.integrations.kit.http import Api, Gate
from worker.integrations.kit.integration import Integration
from worker.integrations.kit.link_kinds import CODE, CODE_VERIFIER
from worker.integrations.kit.oauth2 import parse_callback
from worker.models.records import TransactionRecord
from worker.sandbox.core import Login, Profile, Sandbox
from worker.sandbox.wire import Request

BASE_URL = "https://provider.test"
ACCESS_TOKEN = "access-SECRETWORD-1"  # noqa: S105 - opens nothing
_CHALLENGE = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
_VERIFIER = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
"""The pair of RFC 7636, appendix B."""

Handler = Callable[[httpx.Request], httpx.Response]


def require(holds: object, missing: str) -> None:
    """Raises `AssertionError` with what is missing; unlike `assert`, under `python -O` too."""
    if not holds:
        raise AssertionError(missing)


async def no_pause(_: float) -> None:
    """Retries do not wait here."""


def scripted_api(key: str, handler: Handler, *, gate: Gate | None, max_bytes: int) -> tuple[Api, list[httpx.Request]]:
    """An `Api` whose provider is a function, and the list that its requests are put into."""
    requests: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return handler(request)

    api = Api(
        BASE_URL,
        name=key,
        total_seconds=10,
        max_bytes=max_bytes,
        gate=gate,
        transport=httpx.MockTransport(answer),
        sleep=no_pause,
    )
    return api, requests


@dataclass(frozen=True)
class Subject:
    """What is checked.

    Attributes:
        integration: the class.
        stand_in: the provider that it is checked against.
    """

    integration: type[Integration]
    stand_in: type[Profile]

    def connected(self, handler: Handler | None = None, gate: Gate | None = None, max_bytes: int = 32 << 20) -> Trial:
        """The integration over a fresh stand-in, or over `handler` in its place."""
        key = self.integration.key
        sandbox = Sandbox(1, (self.stand_in,), {key: 1}, {})
        given: dict[str, Any] = {**self.stand_in.credentials, "base_url": BASE_URL}
        settings = self.integration.settings_class(_env_file=None, **given)
        trial = Trial(sandbox, sandbox.profiles[key], sandbox.logins[f"{key}-1"], settings)

        api, trial.requests = scripted_api(key, handler or trial.provider, gate=gate, max_bytes=max_bytes)
        trial.integration = self.integration(settings, api)
        return trial


@dataclass
class Trial:
    """One integration at work. `requests` is what it sent."""

    sandbox: Sandbox
    profile: Profile
    login: Login
    settings: Any
    requests: list[httpx.Request] = field(default_factory=list)
    integration: Integration = field(init=False)

    @property
    def now(self) -> datetime:
        """The stand-in's time."""
        return self.sandbox.clock.now()

    @property
    def secrets(self) -> list[str]:
        """What must not be seen anywhere."""
        values = (getattr(self.settings, name) for name in type(self.settings).model_fields if "secret" in name)
        return [ACCESS_TOKEN, *(value.get_secret_value() for value in values if isinstance(value, SecretStr))]

    def provider(self, request: httpx.Request) -> httpx.Response:
        """What the stand-in answers."""
        headers = {name.lower(): value for name, value in request.headers.raw}
        query = request.url.query.decode("ascii")
        asked = Request(request.method, request.url.path, query, headers, request.content)
        answer = self.profile.answer(asked, self.profile.caller(asked))
        return httpx.Response(answer.status, headers=answer.headers, content=answer.body)

    def form(self) -> dict[str, str]:
        """What the user gives in the end, as `Integration.exchange` takes it."""
        integration = self.integration
        if not integration.link_kind.redirects:
            return self.profile.consent(self.login, {})
        pkce = integration.link_kind.pkce
        url = integration.authorize_url("state-1", _CHALLENGE if pkce else None)
        given = self.profile.consent(self.login, dict(parse_qsl(urlsplit(url).query)))
        form = {CODE: parse_callback(given["callback_url"], integration.redirect_uri).code}
        return form | ({CODE_VERIFIER: _VERIFIER} if pkce else {})

    async def link(self) -> TokenAnswer:
        """Links the login."""
        return await self.integration.exchange(Caller(), self.form(), now=self.now)

    def request(self, token: str, cursors: dict[str, str] | None = None, caller: Caller | None = None) -> SyncRequest:
        """A sync from these cursors."""
        return SyncRequest(caller=caller or Caller(), access_token=token, cursors=cursors or {}, now=self.now)

    async def read(self, caller: Caller | None = None) -> list[Page]:
        """Links the login and reads all of it."""
        token = (await self.link()).access_token
        self.requests.clear()
        return await every(self.integration.pages(self.request(token, caller=caller)))

    def fail(self, error: type[Exception]) -> Any:
        """The error of this type that reading with a made-up token raises; an assertion if it raises none."""
        try:
            asyncio.run(every(self.integration.pages(self.request(ACCESS_TOKEN))))
        except error as raised:
            return raised
        raise AssertionError(f"`pages` must raise {error.__name__} here; it ended without an error")


async def every(pages: AsyncIterator[Page]) -> list[Page]:
    """All pages."""
    return [page async for page in pages]


def rows_of(page: Page) -> dict[tuple[str, str], TransactionRecord]:
    """A page's transactions, read."""
    mapper = page.map_transaction
    require(mapper is not None or not page.transactions, "a page with transactions must have `map_transaction`")
    return {(row.account_key, row.key): mapper(row) for row in page.transactions} if mapper else {}

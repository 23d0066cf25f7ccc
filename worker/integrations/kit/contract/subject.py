"""Runs an integration against its stand-in in one process and without a network, for the contract tests."""

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
_CHALLENGE = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
_VERIFIER = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
"""The code verifier and its challenge from the example in RFC 7636, appendix B."""

Handler = Callable[[httpx.Request], httpx.Response]


def require(holds: object, missing: str) -> None:
    """Raises `AssertionError` with what is missing; unlike `assert`, under `python -O` too."""
    if not holds:
        raise AssertionError(missing)


async def no_pause(_: float) -> None:
    """Returns at once: in these checks, retries do not wait."""


def scripted_api(
    key: str, handler: Handler, *, gate: Gate | None, max_bytes: int, varying: bytes | None = None
) -> tuple[Api, list[httpx.Request]]:
    """An `Api` that calls `handler` instead of a provider, and the list to which its requests are appended."""
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
        varying=varying,
        sleep=no_pause,
    )
    return api, requests


@dataclass(frozen=True)
class Subject:
    """The integration to check, and its stand-in.

    Attributes:
        integration: the class.
        stand_in: what it is checked against.
    """

    integration: type[Integration]
    stand_in: type[Profile]

    def connected(self, handler: Handler | None = None, gate: Gate | None = None, max_bytes: int = 32 << 20) -> Trial:
        """The integration connected to a new stand-in, or to `handler` instead of one."""
        key = self.integration.key
        sandbox = Sandbox(1, (self.stand_in,), {key: 1}, {})
        given: dict[str, Any] = {**self.stand_in.credentials, "base_url": BASE_URL}
        settings = self.integration.settings_class(_env_file=None, **given)
        trial = Trial(sandbox, sandbox.profiles[key], sandbox.logins[f"{key}-1"], settings)

        api, trial.requests = scripted_api(
            key, handler or trial.provider, gate=gate, max_bytes=max_bytes, varying=self.integration.varying
        )
        trial.integration = self.integration(settings, api)
        return trial


@dataclass
class Trial:
    """One instance of the integration, connected. `requests` lists what it has sent."""

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
        """The texts that must not appear in any error, `repr` or record."""
        values = (getattr(self.settings, name) for name in type(self.settings).model_fields if "secret" in name)
        return [
            self.profile.unknown_token,
            *(value.get_secret_value() for value in values if isinstance(value, SecretStr)),
        ]

    def provider(self, request: httpx.Request) -> httpx.Response:
        """The stand-in's answer to a request."""
        headers = {name.lower(): value for name, value in request.headers.raw}
        query = request.url.query.decode("ascii")
        asked = Request(request.method, request.url.path, query, headers, request.content)
        answer = self.profile.answer(asked, self.profile.caller(asked))
        return httpx.Response(answer.status, headers=answer.headers, content=answer.body)

    async def consent_url(self, state: str, challenge: str | None) -> str:
        """The address at which the user consents. Of what may be chosen before, the first is taken."""
        caller = Caller(manual=True)
        asks = self.integration.link_kind.asks
        offered = {field.name: await self.integration.choices(caller, field.name) for field in asks if field.chosen}
        form = {name: choices[0].value for name, choices in offered.items()}
        return await self.integration.begin_consent(caller, form, state=state, challenge=challenge, now=self.now)

    async def form(self) -> dict[str, str]:
        """What the user enters to link the login, in the form that `Integration.exchange` takes."""
        integration = self.integration
        if not integration.link_kind.redirects:
            return self.profile.consent(self.login, {})
        pkce = integration.link_kind.pkce
        url = await self.consent_url("state-1", _CHALLENGE if pkce else None)
        given = self.profile.consent(self.login, dict(parse_qsl(urlsplit(url).query)))
        form = {CODE: parse_callback(given["callback_url"], integration.redirect_uri).code}
        return form | ({CODE_VERIFIER: _VERIFIER} if pkce else {})

    async def link(self) -> TokenAnswer:
        """Links the login."""
        return await self.integration.exchange(Caller(), await self.form(), now=self.now)

    def request(self, token: str, cursors: dict[str, str] | None = None, caller: Caller | None = None) -> SyncRequest:
        """The request of a sync that starts from these cursors."""
        return SyncRequest(caller=caller or Caller(), access_token=token, cursors=cursors or {}, now=self.now)

    async def read(self, caller: Caller | None = None) -> list[Page]:
        """Links the login and reads all pages."""
        token = (await self.link()).access_token
        self.requests.clear()
        return await every(self.integration.pages(self.request(token, caller=caller)))

    def fail(self, error: type[Exception]) -> Any:
        """The error of this type that reading with an invented token raises.

        Raises:
            AssertionError: reading raised no error of this type.
        """
        try:
            asyncio.run(every(self.integration.pages(self.request(self.profile.unknown_token))))
        except error as raised:
            return raised
        raise AssertionError(f"`pages` must raise {error.__name__} here; it ended without an error")


async def every(pages: AsyncIterator[Page]) -> list[Page]:
    """All pages."""
    return [page async for page in pages]


def rows_of(page: Page) -> dict[tuple[str, str], TransactionRecord]:
    """A page's transactions as records, by account key and transaction key."""
    mapper = page.map_transaction
    require(mapper is not None or not page.transactions, "a page with transactions must have `map_transaction`")
    return {(row.account_key, row.key): mapper(row) for row in page.transactions} if mapper else {}

"""SnapTrade, as an OAuth app: many brokerages in one grant, and refresh tokens that work once.

A grant holds connections, and each connection holds accounts. A connection that its user must repair is a problem of
its accounts alone.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import msgspec
from pydantic import SecretStr
from pydantic_settings import SettingsConfigDict

from worker.errors import NotReady
from worker.integrations.kit import offsets, reading
from worker.integrations.kit.base import Page, Quota, RefreshPolicy, SyncRequest
from worker.integrations.kit.hooks.events import EventHooks
from worker.integrations.kit.hooks.hmacs import CanonicalHmac
from worker.integrations.kit.http import Api
from worker.integrations.kit.link_kinds import OAUTH_PKCE
from worker.integrations.kit.oauth2_integration import OAuth2Integration, OAuth2Settings
from worker.integrations.kit.settings import in_words
from worker.integrations.kit.throttling import Throttled
from worker.integrations.snaptrade import pages as answers
from worker.integrations.snaptrade.vocabulary import ASKS, HOOK_MEMBERS, LIMITS, RULES


class SnaptradeSettings(OAuth2Settings):
    """This application's registration at SnapTrade."""

    model_config = SettingsConfigDict(env_prefix="SNAPTRADE_")

    base_url: str = "https://api.snaptrade.com"
    authorize_url: str = "https://dashboard.snaptrade.com/oauth/authorize"
    """The address at which users consent."""
    consumer_keys: SecretStr | None = None
    """The consumer key with which hooks are signed; two separated by a comma while it is replaced. None: no hooks."""


class Snaptrade(OAuth2Integration):
    """See `worker.integrations.kit.integration.Integration`."""

    key = "snaptrade"
    name = "SnapTrade"
    domain = "snaptrade.com"
    provider_type = "aggregator"
    description = "Accounts, positions and transactions at brokerages that you have connected with SnapTrade."
    nouns = (*OAuth2Integration.nouns, "holdings")
    link_kind = OAUTH_PKCE
    settings_class = SnaptradeSettings
    refresh_policy = RefreshPolicy(default_lifetime=timedelta(hours=10))
    token_path, revoke_path = "/oauth/token/", "/oauth/revoke_token/"
    login_id = ("sub", "snaptrade_user_id")
    scope = "read"
    quotas = (Quota("app", 250, 60, endpoint="data"), Quota("account", 10, 60, endpoint="data"))
    usual_interval = timedelta(hours=6)  # SnapTrade's advice: holdings at most four times a day
    error_rules = RULES
    error_code, error_text = ("code", "default_code"), ("detail", "default_detail")
    limits = LIMITS
    secret_shapes = (r"\b[ar]t_[\w-]{16,}=*",)

    def __init__(self, settings: Any, api: Api) -> None:
        super().__init__(settings, api)
        if settings.consumer_keys is not None:
            keys = in_words(settings.consumer_keys.get_secret_value())
            verifier = CanonicalHmac("signature", keys, time_field="eventTimestamp")
            self.hooks = EventHooks(verifier, HOOK_MEMBERS, application=self._client_id, asks=ASKS)
            self.scope = "read webhook"

    @property
    def authorize_address(self) -> str:
        """The address at which users consent."""
        return str(self.settings.authorize_url)

    async def pages(self, request: SyncRequest) -> AsyncIterator[Page]:
        """The accounts first; then balance and positions of each account, and its activities, oldest window first."""
        calls = Throttled(self, request, "data")
        page, wanted = answers.listing(await calls.get("/authorizations"), await calls.get("/accounts"))
        yield page
        for listed in wanted:
            for part in (self._figures(calls, listed), self._history(request, calls, listed)):
                async for page in self.part(part, account_key=listed[0].id, ready_again=timedelta(minutes=5)):
                    yield page

    async def _figures(self, calls: Throttled, listed: answers.Listed) -> AsyncIterator[Page]:
        status, key = listed[0].synced("holdings"), listed[0].id
        if status.initial_sync_completed is False:
            raise NotReady("initial_sync")
        paths = () if status.holdings_unavailable else ("/accounts/{}/balances", "/accounts/{}/positions/all")
        yield answers.figures(listed, [await calls.get(path, key) for path in paths])

    async def _history(self, request: SyncRequest, calls: Throttled, listed: answers.Listed) -> AsyncIterator[Page]:
        key, today = listed[0].id, request.now.date()
        first = answers.first_day(request, listed[0])
        if first is None:
            return

        async def ask(window: offsets.Window, offset: int) -> tuple[list[msgspec.Raw], int]:
            days = {"startDate": str(window[0]), "endDate": str(window[1])}
            more = days | {"offset": str(offset), "limit": "1000"}
            return answers.page_of(await calls.get("/accounts/{}/activities", key, **more))

        async for window, rows in offsets.windows(ask, reading.id_of, first, today):
            yield answers.history(request, listed, window, rows)

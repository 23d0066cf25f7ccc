"""SimpleFIN, versions 1 and 2: one access URL for many banks, and no token to refresh. See docs/providers/simplefin.md.

One call lists all accounts with balances and transactions of a window of days. An account that is behind the others is
asked for by its id; the server counts these calls apart. Errors of one bank come inside an answer with status 200.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Literal
from urllib.parse import urlencode

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from worker.integrations.kit.access_urls import Server
from worker.integrations.kit.base import Caller, Page, Quota, SyncRequest, TokenAnswer
from worker.integrations.kit.http import Api, Endpoint
from worker.integrations.kit.integration import Integration
from worker.integrations.kit.link_kinds import SETUP_TOKEN
from worker.integrations.kit.settings import IntegrationSettings, in_words
from worker.integrations.kit.together import Together, Told
from worker.integrations.simplefin import mapping
from worker.integrations.simplefin.vocabulary import RULES, SAFE_DAYS


class SimplefinSettings(IntegrationSettings):
    """The SimpleFIN server of this installation."""

    model_config = SettingsConfigDict(env_prefix="SIMPLEFIN_")

    base_url: str = "https://beta-bridge.simplefin.org/simplefin"
    known_as: str = "https://bridge.simplefin.org/simplefin"
    """Other addresses of the server that setup tokens and access URLs name, separated by commas."""
    version: Literal["1", "2"] = "2"
    window_days: int = Field(default=89, ge=2, le=3650)


class Simplefin(Integration):
    """See `worker.integrations.kit.integration.Integration`."""

    key = "simplefin"
    name = "SimpleFIN"
    provider_type = "aggregator"
    description = "Banks, cards and investments by way of a SimpleFIN server, such as SimpleFIN Bridge."
    nouns = (*Integration.nouns, "holdings")
    link_kind = SETUP_TOKEN
    settings_class = SimplefinSettings
    quotas = tuple(Quota("provider", 24, 86_400, endpoint=name, daily=True) for name in ("accounts", "account"))
    error_rules = RULES
    secret_shapes = (r"\baHR0c[\w+/=-]{16,}", r"\bhttps?://[^\s/@:]+:[^\s/@]+@[^\s\"']+")
    memory_feeds = frozenset({mapping.ACCOUNTS_FEED})

    def __init__(self, settings: Any, api: Api) -> None:
        super().__init__(settings, api)
        self._server = Server(api, settings.base_url, in_words(settings.known_as))

    async def exchange(self, caller: Caller, form: Mapping[str, str], *, now: datetime) -> TokenAnswer:
        """Claims the setup token, which works once."""
        return await self._server.claim(caller, form["setup_token"])

    def credentials(self, access_token: str) -> dict[str, str]:
        """Name and password of the access URL."""
        return self._server.authorization(access_token)

    def pages(self, request: SyncRequest) -> AsyncIterator[Page]:
        """Accounts, balances and positions first, then each account's transactions, window by window."""
        accounts = dict[str, mapping.Account]()

        async def ask(window: tuple[date, date], behind: Sequence[str]) -> Told:
            ids = [accounts[key].id for key in behind] if len(behind) < len(accounts) else []
            answer = mapping.account_set.page(await self.get(request, self._endpoint(request, window, ids)))
            return Told(
                window=window,
                listing=None if behind else mapping.listing(request, answer, accounts),
                pages=dict(mapping.histories(request, answer, accounts)),
                problems=mapping.problems(answer, accounts),
                was_cut=answer.was_capped(),
            )

        return Together(request, self.settings.window_days, SAFE_DAYS).pages(ask)

    def _endpoint(self, request: SyncRequest, window: tuple[date, date], ids: Sequence[str]) -> Endpoint:
        start, end = (datetime.combine(day, time(), UTC) for day in (window[0], window[1] + timedelta(days=1)))
        query = [
            ("start-date", int(start.timestamp())),
            ("end-date", int(end.timestamp())),
            ("pending", "1"),
            *([("version", "2")] if self.settings.version == "2" else []),
            *(("account", one) for one in ids),
        ]
        path = f"{self._server.path(request.access_token)}/accounts?{urlencode(query)}"
        return self.api.endpoint("account" if ids else "accounts", "GET", path)

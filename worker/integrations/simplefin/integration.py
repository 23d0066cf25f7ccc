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
from worker.models.records import AccountRecord


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
    can_list_accounts = True
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

    async def list_accounts(self, caller: Caller, *, access_token: str) -> Sequence[AccountRecord]:
        """The accounts that an access URL opens: one of the day's calls, without transactions."""
        asked = SyncRequest(caller=caller, access_token=access_token, cursors={}, now=datetime.now(UTC))
        endpoint = self._endpoint(asked, "accounts", [("balances-only", 1)])
        return mapping.listing(asked, mapping.account_set.page(await self.get(asked, endpoint)), {}).accounts

    def pages(self, request: SyncRequest) -> AsyncIterator[Page]:
        """Accounts, balances and positions first, then each account's transactions, window by window."""
        accounts = dict[str, mapping.Account]()

        async def ask(window: tuple[date, date], behind: Sequence[str]) -> Told:
            ids = [accounts[key].id for key in behind] if len(behind) < len(accounts) else []
            start, end = (datetime.combine(day, time(), UTC) for day in (window[0], window[1] + timedelta(days=1)))
            days = [("start-date", int(start.timestamp())), ("end-date", int(end.timestamp())), ("pending", 1)]
            endpoint = self._endpoint(
                request, "account" if ids else "accounts", [*days, *(("account", one) for one in ids)]
            )
            answer = mapping.account_set.page(await self.get(request, endpoint))
            return Told(
                window=window,
                listing=None if behind else mapping.listing(request, answer, accounts),
                pages=dict(mapping.histories(request, answer, accounts)),
                problems=mapping.problems(answer, accounts),
                was_cut=answer.was_capped(),
            )

        return Together(request, self.settings.window_days, SAFE_DAYS).pages(ask)

    def _endpoint(self, request: SyncRequest, name: str, query: Sequence[tuple[str, object]]) -> Endpoint:
        asked = [*query, *([("version", "2")] if self.settings.version == "2" else [])]
        return self.api.endpoint(name, "GET", f"{self._server.path(request.access_token)}/accounts?{urlencode(asked)}")

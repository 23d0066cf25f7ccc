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

from worker.errors import BadPayload, BadRequest, RateLimited, Scope
from worker.integrations.kit import windows
from worker.integrations.kit.access_urls import Server
from worker.integrations.kit.base import Caller, Page, Quota, SyncRequest, TokenAnswer
from worker.integrations.kit.http import Api
from worker.integrations.kit.integration import Integration
from worker.integrations.kit.link_kinds import SETUP_TOKEN
from worker.integrations.kit.settings import IntegrationSettings
from worker.integrations.simplefin import mapping
from worker.integrations.simplefin import pages as answers
from worker.integrations.simplefin.vocabulary import RULES, SAFE_DAYS

_DAY, _SLOWER = timedelta(days=1), timedelta(hours=6)


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
    memory_feeds = frozenset({answers.ACCOUNTS_FEED})

    def __init__(self, settings: Any, api: Api) -> None:
        super().__init__(settings, api)
        self._server = Server(api, settings.base_url, [name.strip() for name in settings.known_as.split(",") if name])

    async def exchange(self, caller: Caller, form: Mapping[str, str], *, now: datetime) -> TokenAnswer:
        """Claims the setup token, which works once."""
        return await self._server.claim(caller, form["setup_token"])

    async def pages(self, request: SyncRequest) -> AsyncIterator[Page]:
        """Accounts, balances and positions first, then each account's transactions, window by window."""
        feeds, accounts = windows.Together(request, self.settings.window_days), dict[str, mapping.Account]()
        plan: tuple[date, list[str]] | None = (feeds.first(), [])
        while plan is not None:
            first, behind = plan
            ids = [accounts[key].id for key in behind] if len(behind) < len(accounts) else []
            answer, window = await self._ask(request, feeds, first, ids)
            if not behind:
                page, accounts = answers.listing(request, answer)
                yield page
                feeds.listed(accounts)
            problems = list(mapping.problems(answer, accounts))
            for page in answers.histories(request, answer, accounts, feeds, window, problems):
                yield page
            lost = [key for key in behind if feeds.reads(key, window)]
            feeds.give_up(lost)
            problems += [BadPayload("account_missing", scope=Scope.ACCOUNT, account_key=key) for key in lost]
            if any(isinstance(problem, RateLimited) for problem in problems):
                raise RateLimited("use_warned", scope=Scope.PROVIDER, retry_after=_SLOWER)
            if problems:
                yield Page(problems=problems)
            plan = feeds.behind()

    async def _ask(
        self, request: SyncRequest, feeds: windows.Together, first: date, ids: Sequence[str]
    ) -> tuple[mapping.AccountSet, tuple[date, date]]:
        """The answer for a window, and the window: a shorter one if the server refuses or shortens it."""
        first, last = windows.window_from(first, request, timedelta(days=feeds.days))
        query = [
            ("start-date", _seconds(first)),
            ("end-date", _seconds(last + _DAY)),
            ("pending", "1"),
            *([("version", "2")] if self.settings.version == "2" else []),
            *(("account", one) for one in ids),
        ]
        path = f"{self._server.path(request.access_token)}/accounts?{urlencode(query)}"
        endpoint = self.api.endpoint("account" if ids else "accounts", "GET", path)
        may_shorten = (last - first).days >= SAFE_DAYS
        try:
            got = await self.api.read(
                endpoint,
                request.caller,
                check=self.check,
                headers=self._server.authorization(request.access_token),
            )
            answer = mapping.account_set.page(got.body)
        except BadRequest:
            if not may_shorten:
                raise
        else:
            if not (may_shorten and answer.was_capped()):
                return answer, (first, last)
        feeds.days = SAFE_DAYS
        return await self._ask(request, feeds, first, ids)


def _seconds(day: date) -> str:
    return str(int(datetime.combine(day, time(), UTC).timestamp()))

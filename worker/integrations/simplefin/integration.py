"""SimpleFIN, versions 1 and 2: one access URL for many banks, and no token to refresh. See docs/providers/simplefin.md.

One call lists all accounts with balances and transactions of a window of days. An account that is behind the others is
asked for by its id; the server counts these calls apart. Errors of one bank come inside an answer with status 200.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Literal

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from worker.integrations.kit import windows
from worker.integrations.kit.access_urls import AccessUrlIntegration, AccessUrlSettings
from worker.integrations.kit.base import Caller, Page, Quota, SyncRequest
from worker.integrations.kit.http import Params
from worker.integrations.kit.together import Days, Together, Told
from worker.integrations.simplefin import mapping
from worker.integrations.simplefin.vocabulary import RULES, SAFE_DAYS
from worker.models.records import AccountRecord


class SimplefinSettings(AccessUrlSettings):
    """The SimpleFIN server of this installation."""

    model_config = SettingsConfigDict(env_prefix="SIMPLEFIN_")

    base_url: str = "https://beta-bridge.simplefin.org/simplefin"
    known_as: str = "https://bridge.simplefin.org/simplefin"
    version: Literal["1", "2"] = "2"
    window_days: int = Field(default=89, ge=2, le=3650)


class Simplefin(AccessUrlIntegration):
    """See `worker.integrations.kit.integration.Integration`."""

    key = "simplefin"
    name = "SimpleFIN"
    provider_type = "aggregator"
    description = "Banks, cards and investments by way of a SimpleFIN server, such as SimpleFIN Bridge."
    nouns = (*AccessUrlIntegration.nouns, "holdings")
    settings_class = SimplefinSettings
    quotas = tuple(Quota("provider", 24, 86_400, endpoint=name, daily=True) for name in ("accounts", "account"))
    error_rules = RULES
    secret_shapes = (r"\baHR0c[\w+/=-]{16,}", r"\bhttps?://[^\s/@:]+:[^\s/@]+@[^\s\"']+")
    can_list_accounts = True
    memory_feeds = frozenset({mapping.ACCOUNTS_FEED})

    async def list_accounts(self, caller: Caller, *, access_token: str) -> Sequence[AccountRecord]:
        """The accounts that an access URL opens: one of the day's calls, without transactions."""
        request = SyncRequest(caller=caller, access_token=access_token, cursors={}, now=datetime.now(UTC))
        return mapping.listing(request, await self._ask(request, "accounts", {"balances-only": "1"}), {}).accounts

    def pages(self, request: SyncRequest) -> AsyncIterator[Page]:
        """Accounts, balances and positions first, then each account's transactions, window by window."""
        known = dict[str, mapping.Account]()

        async def ask(window: Days, behind: Sequence[str]) -> Told:
            ids = [known[key].id for key in behind] if len(behind) < len(known) else []
            first, end = windows.in_seconds(window)
            asked = {"start-date": first, "end-date": end, "pending": "1", "account": ids}
            answer = await self._ask(request, "account" if ids else "accounts", asked)
            return mapping.told(request, answer, window, known, lists=not behind)

        return Together(request, self.settings.window_days, SAFE_DAYS).pages(ask)

    async def _ask(self, request: SyncRequest, name: str, asked: Params) -> mapping.AccountSet:
        version = {"version": "2"} if self.settings.version == "2" else {}
        endpoint = self.endpoint_of(request, name, "/accounts")
        return mapping.account_set.page(await self.get(request, endpoint, {**asked, **version}))

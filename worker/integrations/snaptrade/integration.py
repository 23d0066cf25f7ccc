"""SnapTrade, as an OAuth app: many brokerages in one grant, and refresh tokens that work once.

A grant holds connections, and each connection holds accounts. A connection that its user must repair is a problem of
its accounts alone.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from functools import partial
from typing import Any

import msgspec
from pydantic import SecretStr
from pydantic_settings import SettingsConfigDict

from worker.errors import NotReady
from worker.integrations.kit import figures, holdings, offsets, reading, windows
from worker.integrations.kit.base import Page, Quota, RefreshPolicy, SyncRequest
from worker.integrations.kit.hooks.events import EventHooks
from worker.integrations.kit.hooks.hmacs import CanonicalHmac
from worker.integrations.kit.http import Api
from worker.integrations.kit.link_kinds import OAUTH_PKCE
from worker.integrations.kit.oauth2_integration import OAuth2Integration, OAuth2Settings
from worker.integrations.kit.settings import in_words
from worker.integrations.kit.throttling import Throttled
from worker.integrations.snaptrade import mapping
from worker.integrations.snaptrade.mapping import Account, Cash, records
from worker.integrations.snaptrade.vocabulary import ASKS, HOOK_MEMBERS, LIMITS, RULES
from worker.models.records import AccountRecord


class _Activities(msgspec.Struct, gc=False):
    data: list[msgspec.Raw]
    pagination: dict[str, int]


_positions, _activities = reading.ListReader("results"), reading.Reader(_Activities)


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
        self.authorize_path = settings.authorize_url
        if settings.consumer_keys is not None:
            keys = in_words(settings.consumer_keys.get_secret_value())
            verifier = CanonicalHmac("signature", keys, time_field="eventTimestamp")
            self.hooks = EventHooks(verifier, HOOK_MEMBERS, application=self._client_id, asks=ASKS)
            self.scope = "read webhook"

    async def pages(self, request: SyncRequest) -> AsyncIterator[Page]:
        """The accounts first; then balance and positions of each account, and its activities, oldest window first."""
        calls = Throttled(self, request, "data")
        page, wanted = mapping.listing(await calls.get("/authorizations"), await calls.get("/accounts"))
        yield page
        for given, record in wanted:
            for part in (self._figures(calls, given, record), self._history(request, calls, given, record)):
                async for page in self.part(part, account_key=given.id, ready_again=timedelta(minutes=5)):
                    yield page

    async def _figures(self, calls: Throttled, given: Account, record: AccountRecord) -> AsyncIterator[Page]:
        """Balance and positions; the balance alone if the brokerage shows no more."""
        status, key, page, cash = given.synced("holdings"), given.id, Page(), list[Cash]()
        if status.initial_sync_completed is False:
            raise NotReady("initial_sync")
        if not status.holdings_unavailable:
            stated = records.page(await calls.get("/accounts/{}/balances", key))
            held = _positions.page(await calls.get("/accounts/{}/positions/all", key))
            cash, page.rejects = reading.read_all(stated, "balance", mapping.cash, key)
            money_of_each = holdings.of_money(self.key, key, [(one.currency.code or "", one.cash) for one in cash])
            read = partial(mapping.holding, key=key, currency=record.currency)
            figures.add_holdings(page, key, held, read, more=money_of_each, complete=not page.rejects)
        if not any(reject.kind == "balance" for reject in page.rejects):
            figures.add_balance(page, key, given.balance, lambda _: mapping.balance(given, cash))
        yield page

    async def _history(
        self, request: SyncRequest, calls: Throttled, given: Account, record: AccountRecord
    ) -> AsyncIterator[Page]:
        """Activities. They are not asked for as long as SnapTrade has not asked the brokerage again.

        The cursor stays at the day up to which SnapTrade has everything, so that the days after it are read again.
        """
        feed, today = f"account:{given.id}", request.now.date()
        if feed in request.done:
            return
        if given.synced("transactions").initial_sync_completed is False:
            raise NotReady("initial_sync")
        cursor = windows.DateCursor.parse(request.cursors.get(feed))
        is_asked_for = request.hooked or request.caller.manual or request.since is not None
        if cursor.tail == given.pulled and not is_asked_for:
            return

        async def ask(window: offsets.Window, offset: int) -> tuple[list[msgspec.Raw], int]:
            asked = {"startDate": str(window[0]), "endDate": str(window[1]), "offset": str(offset), "limit": "1000"}
            answer = _activities.page(await calls.get("/accounts/{}/activities", given.id, **asked))
            return answer.data, answer.pagination.get("total", -1)

        first = windows.first_day(cursor, request)
        async for window, rows in offsets.windows(ask, reading.id_of, first, today):
            found, last = reading.split_by_id(rows, given.id), window[1]
            page = Page(transactions=found.rows, rejects=found.rejects)
            page.map_transaction = partial(mapping.transaction, currency=record.currency)
            page.windows = windows.surely_listed(given.id, window, request, posted=True)
            through = min(last, given.covered or last)
            if last >= today:
                page.feed, page.cursor = feed, str(windows.DateCursor(through=through, tail=given.pulled))
            elif through == last:
                page.feed, page.cursor, page.more = feed, str(windows.after(last, request)), True
            yield page

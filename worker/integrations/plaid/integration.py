"""Plaid: a permanent access token per Item, transactions by cursor, investments by date and offset.

The application's credentials are sent in headers and the user's token in the body. So the two are never mixed up, and
the headers need to be made only once.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta
from importlib.resources import files
from typing import Any
from uuid import UUID

import msgspec
from pydantic import Field, SecretStr, field_validator
from pydantic_settings import SettingsConfigDict

from worker.errors import BadPayload, NotReady, OutcomeUnknown, ProviderError, Transient, Unsupported
from worker.integrations.kit import windows
from worker.integrations.kit.base import Caller, FormToken, Page, Quota, Standing, SyncRequest, TokenAnswer
from worker.integrations.kit.http import Api, Endpoint, read_retry_after
from worker.integrations.kit.integration import Integration
from worker.integrations.kit.link_kinds import PUBLIC_TOKEN, FrontEnd
from worker.integrations.kit.oauth2 import checked_token, token_fields
from worker.integrations.kit.settings import IntegrationSettings, in_words
from worker.integrations.kit.taxonomy import Rule
from worker.integrations.kit.transport import Answer
from worker.integrations.plaid import liabilities
from worker.integrations.plaid import pages as answers
from worker.integrations.plaid import vocabulary as words
from worker.integrations.plaid.hooks import PlaidHooks, environment_of
from worker.models.records import AccountRecord
from worker.models.vocabulary import AccountType
from worker.settings.addresses import origin_of

_INVESTMENTS_FEED = "investments"
_COUNT = 500
_MAX_EMPTY_PAGES = 20
_MAX_SHIFTS = 3
_LONGEST = timedelta(days=730)
_ONE_DAY = timedelta(days=1)
_READY_AGAIN = timedelta(minutes=2)
_OWED = (AccountType.CREDIT, AccountType.LOAN)


class PlaidSettings(IntegrationSettings):
    """This application's registration at Plaid."""

    model_config = SettingsConfigDict(env_prefix="PLAID_")

    client_id: SecretStr
    secret: SecretStr
    base_url: str = "https://production.plaid.com"
    client_name: str = Field(default="Dashtam", max_length=30)
    """The name of this application that Link shows."""
    language: str = "en"
    country_codes: str = "US"
    """The countries whose institutions Link shows, separated by commas."""
    redirect_uri: str | None = None
    """The address, registered with Plaid, to which institutions that use OAuth send the browser back."""
    products: str = "transactions"
    """What a new login must offer, separated by commas."""
    optional_products: str = "investments,liabilities"
    """What is asked for too, where the institution offers it. Terms of cards and loans are read only if `liabilities`
    is here or in `products`; Plaid bills each product of a login."""
    link_url: str = "https://cdn.plaid.com/link/v2/stable/link-initialize.js"
    """The script that shows Link in a page."""

    @field_validator("link_url")
    @classmethod
    def _script(cls, value: str) -> str:
        origin_of(value)  # it goes into the page's policy
        if any(character in value for character in " ;,'\""):
            raise ValueError("has a character that no address of a script has")
        return value


class Plaid(Integration):
    """See `worker.integrations.kit.integration.Integration`. Its tokens do not expire."""

    key = "plaid"
    name = "Plaid"
    domain = "plaid.com"
    link_kind = replace(PUBLIC_TOKEN, told=(answers.METADATA,))
    settings_class = PlaidSettings
    provider_type = "aggregator"
    description = "Banks, cards, loans and investments by way of Plaid."
    nouns = (*Integration.nouns, "holdings", "liabilities")
    can_renew = True
    can_check = True
    can_list_accounts = True
    quotas = (
        Quota("provider", 15, 60, endpoint="/accounts/get"),
        Quota("app", 15_000, 60, endpoint="/accounts/get"),
        Quota("provider", 50, 60, endpoint="/transactions/sync"),
        Quota("app", 2_500, 60, endpoint="/transactions/sync"),
        Quota("provider", 15, 60, endpoint="/investments/holdings/get"),
        Quota("app", 2_000, 60, endpoint="/investments/holdings/get"),
        Quota("provider", 30, 60, endpoint="/investments/transactions/get"),
        Quota("app", 20_000, 60, endpoint="/investments/transactions/get"),
        Quota("provider", 15, 60, endpoint="/liabilities/get"),
        Quota("app", 1_000, 60, endpoint="/liabilities/get"),
        Quota("provider", 15, 60, endpoint="/item/get"),
        Quota("app", 5_000, 60, endpoint="/item/get"),
    )
    mapping_version = 2
    error_rules = words.RULES
    secret_shapes = (r"\b(?:access|public|link|processor)-(?:sandbox|development|production)-[\w-]{8,}",)
    harmless = words.QUIETLY_UNSUPPORTED
    varying = rb'"request_id"\s*:\s*"[^"\\]*"'

    def __init__(self, settings: PlaidSettings, api: Api) -> None:
        super().__init__(settings, api)
        self._endpoints: dict[str, Endpoint] = {}
        self._headers = {
            "content-type": "application/json",
            "plaid-client-id": settings.client_id.get_secret_value(),
            "plaid-secret": settings.secret.get_secret_value(),
            "plaid-version": "2020-09-14",
        }
        self.hooks = PlaidHooks(self._signing_key, environment=environment_of(settings.base_url))

    async def _signing_key(self, kid: str) -> bytes:
        return await self._read(Caller(), "/webhook_verification_key/get", {"key_id": kid})

    async def exchange(self, caller: Caller, form: Mapping[str, str], *, now: datetime) -> TokenAnswer:
        """Turns a public token into a permanent access token.

        A second call asks when the consent ends. If it fails, the token is kept anyway.
        """
        answer = await self._write(caller, "/item/public_token/exchange", public_token=form["public_token"])
        given, flags = token_fields(answer.body, ("access_token", "item_id"))
        if given is None:
            raise OutcomeUnknown("unreadable_token_answer")
        if not given.get("access_token"):
            raise OutcomeUnknown("no_access_token")
        token, item = checked_token(given["access_token"], "access_token"), given.get("item_id")
        expires: datetime | None = None
        try:
            expires = answers.consent_expires(await self._read(caller, "/item/get", {"access_token": token}))
        except ProviderError:
            flags = (*flags, "consent_expiry_unknown")
        return TokenAnswer(
            access_token=token,
            grant_expires_at=expires,
            external_id=item if isinstance(item, str) else None,
            flags=flags,
        )

    def accounts_told(self, form: Mapping[str, str]) -> Sequence[AccountRecord]:
        """The accounts that Link says the user has chosen."""
        return answers.accounts_of_link(form.get(answers.METADATA, ""))

    async def revoke(self, caller: Caller, *, access_token: str, refresh_token: str | None) -> bool:
        """Removes the Item. Its token is then no longer valid."""
        await self._write(caller, "/item/remove", access_token=access_token)
        return True

    @property
    def front_end(self) -> FrontEnd:
        """Link, which hands over a public token."""
        settings: PlaidSettings = self.settings
        return FrontEnd(
            script=settings.link_url,
            adapter=files(__package__).joinpath("link.js").read_text(),
            frames=(origin_of(settings.link_url),),
            calls=(origin_of(settings.base_url), origin_of(settings.link_url)),
        )

    async def open_front_end(self, caller: Caller, *, user_id: UUID) -> FormToken:
        """A token for Link, for a new Item."""
        settings: PlaidSettings = self.settings
        asked = {
            "products": in_words(settings.products),
            "optional_products": in_words(settings.optional_products),
        }
        return await self._link_token(caller, user_id, **{name: value for name, value in asked.items() if value})

    async def begin_renewal(self, caller: Caller, *, access_token: str, user_id: UUID) -> FormToken:
        """A token for Link in update mode. The request names no products, as Plaid requires for update mode."""
        return await self._link_token(caller, user_id, access_token=access_token)

    async def _link_token(self, caller: Caller, user_id: UUID, **more: Any) -> FormToken:
        settings: PlaidSettings = self.settings
        asked: dict[str, Any] = {
            "client_name": settings.client_name,
            "language": settings.language,
            "country_codes": in_words(settings.country_codes),
            "user": {"client_user_id": str(user_id)},
            **more,
        }
        if settings.redirect_uri:
            asked["redirect_uri"] = settings.redirect_uri
        if self.hook_url:
            asked["webhook"] = self.hook_url
        answer = answers.link_token.page((await self._write(caller, "/link/token/create", **asked)).body)
        return FormToken(checked_token(answer.link_token, "link_token"), answer.expiration)

    async def complete_renewal(self, caller: Caller, *, access_token: str) -> TokenAnswer:
        """Asks whether the Item works again. Its token stays the same, so nothing is exchanged."""
        body = await self._read(caller, "/item/get", {"access_token": access_token})
        item = answers.renewed_item(body)
        return TokenAnswer(access_token, grant_expires_at=answers.consent_expires(body), external_id=item)

    async def check_login(self, caller: Caller, *, access_token: str) -> Standing:
        """Asks `/item/get`, which answers also for an Item that needs its user."""
        body = await self._read(caller, "/item/get", {"access_token": access_token})
        answers.renewed_item(body)
        return Standing(answers.consent_expires(body), answers.webhook_of(body))

    async def ask_for_hooks(self, caller: Caller, *, access_token: str, url: str) -> None:
        """Sets the Item's address for hooks. Plaid then sends a hook to the new address."""
        await self._write(caller, "/item/webhook/update", access_token=access_token, webhook=url)

    async def pages(self, request: SyncRequest) -> AsyncIterator[Page]:
        """Accounts with balances, then transactions, positions, investment transactions, and terms of cards and loans.

        If one of these parts fails, the run notes a problem. Parts that most logins do not have are not a problem.
        """
        asked = {"access_token": request.access_token}
        listing = answers.accounts_page(await self._read(request.caller, "/accounts/get", asked))
        yield listing
        parts = [self._transactions, self._positions, self._investment_transactions]
        if self._asks_for_liabilities(request, listing):
            parts.append(self._liabilities)
        for part in parts:
            async for page in self.part(part(request), ready_again=_READY_AGAIN):
                yield page

    def error_of(self, answer: Answer, rules: tuple[Rule, ...]) -> ProviderError:
        """The error for an answer other than 200, by Plaid's error code and type."""
        return answers.error_of(answer.status, answer.body, read_retry_after(answer.headers))

    def _endpoint(self, path: str) -> Endpoint:
        if path not in self._endpoints:
            self._endpoints[path] = self.api.endpoint(path, "POST", path)
        return self._endpoints[path]

    async def _write(self, caller: Caller, path: str, **body: Any) -> Answer:
        return await self.post(caller, self._endpoint(path), self._headers, body)

    async def _read(self, caller: Caller, path: str, body: dict[str, Any]) -> bytes:
        answer = await self.api.read(
            self._endpoint(path), caller, check=self.check, headers=self._headers, content=msgspec.json.encode(body)
        )
        return answer.body

    async def _transactions(self, request: SyncRequest) -> AsyncIterator[Page]:
        cursor, empty = request.cursors.get(words.TRANSACTIONS_FEED) or "", 0
        while True:
            asked: dict[str, Any] = {"access_token": request.access_token, "count": _COUNT}
            if cursor:
                asked["cursor"] = cursor
            else:
                asked["options"] = {"days_requested": min(max(request.backfill.days, 1), _LONGEST.days)}
            body = await self._read(request.caller, "/transactions/sync", asked)
            answer = answers.sync.page(body)
            if not answer.next_cursor:
                raise NotReady(answer.transactions_update_status or "NOT_READY")
            page = answers.sync_page(body, answer)
            empty = 0 if page.transactions or page.removals or page.rejects else empty + 1
            if answer.has_more and (answer.next_cursor == cursor or empty > _MAX_EMPTY_PAGES):
                raise BadPayload("pagination_does_not_advance")
            yield page
            if not answer.has_more:
                return
            cursor = answer.next_cursor

    async def _positions(self, request: SyncRequest) -> AsyncIterator[Page]:
        asked = {"access_token": request.access_token}
        yield answers.holdings_page(await self._read(request.caller, "/investments/holdings/get", asked))

    async def _investment_transactions(self, request: SyncRequest) -> AsyncIterator[Page]:
        """Yields windows from the oldest to the newest; Plaid lists the rows in a window from the newest to the oldest.

        Offsets shift when rows are added or removed between two requests. Therefore each request begins at the last row
        of the one before. If that row is a different one, or the total has changed, the window is read again from its
        beginning.
        """
        cursor = windows.DateCursor.parse(request.cursors.get(_INVESTMENTS_FEED))
        first, shifts = windows.first_day(cursor, request), 0
        if cursor.window is None or cursor.window[0] != first:
            cursor = windows.at_offset(cursor, request, windows.window_from(first, request, _LONGEST))
        while cursor.window is not None:
            page, after = await self._investment_page(request, cursor, cursor.window)
            if page is None:
                shifts += 1
                if shifts > _MAX_SHIFTS:
                    raise Transient("offsets_keep_shifting")
            else:
                yield page
            cursor = after
            if cursor.window is None and cursor.through is not None and cursor.through < request.now.date():
                window = windows.window_from(cursor.through + _ONE_DAY, request, _LONGEST)
                cursor, shifts = windows.at_offset(cursor, request, window), 0

    async def _investment_page(
        self, request: SyncRequest, cursor: windows.DateCursor, window: tuple[date, date]
    ) -> tuple[Page | None, windows.DateCursor]:
        """The next page of the window and the cursor after it; no page if offsets shifted or rows are missing."""
        asked = {
            "access_token": request.access_token,
            "start_date": window[0].isoformat(),
            "end_date": window[1].isoformat(),
            "options": {"count": _COUNT, "offset": max(cursor.offset - 1, 0), "async_update": True},
        }
        answer = answers.investments.page(await self._read(request.caller, "/investments/transactions/get", asked))
        rows, total = answer.investment_transactions, answer.total_investment_transactions
        if cursor.offset:
            if total != cursor.total or not rows or answers.identity_of(rows[0]) != cursor.tail:
                return None, windows.at_offset(cursor, request, window)
            rows = rows[1:]
        counted = rows[:_COUNT]
        offset = cursor.offset + len(counted)
        if not counted and offset < total:  # fewer rows came than the total says
            return None, windows.at_offset(cursor, request, window)
        if offset < total:
            after = windows.at_offset(cursor, request, window, offset, total, answers.identity_of(counted[-1]))
        else:
            after = windows.after(window[1], request)
        page = answers.investments_page(rows, answer.securities)
        page.feed, page.cursor = _INVESTMENTS_FEED, str(after)
        page.more = after.window is not None or window[1] < request.now.date()
        return page, after

    def _asks_for_liabilities(self, request: SyncRequest, listing: Page) -> bool:
        """Once a day, and when a person waits, if there is a card or a loan. A hook makes the cursor begin anew."""
        products = in_words(self.settings.products) + in_words(self.settings.optional_products)
        if "liabilities" not in products or not any(account.type in _OWED for account in listing.accounts):
            return False
        return request.caller.manual or request.cursors.get(words.LIABILITIES_FEED) != request.now.date().isoformat()

    async def _liabilities(self, request: SyncRequest) -> AsyncIterator[Page]:
        """Where there are none, the day is kept all the same, so that they are not asked for with each sync."""
        asked = {"access_token": request.access_token}
        try:
            page = liabilities.page(await self._read(request.caller, "/liabilities/get", asked))
        except Unsupported as error:
            if error.reason not in words.NO_LIABILITIES:
                raise
            page = Page()
        page.feed, page.cursor = words.LIABILITIES_FEED, request.now.date().isoformat()
        yield page

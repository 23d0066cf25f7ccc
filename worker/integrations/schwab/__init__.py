"""Charles Schwab Trader API (individual): OAuth 2 with a hard seven-day grant, data by date window.

Account numbers are needed to join Schwab's two listings and go no further. The account key is the first hash that
Schwab gave for the account. Whether these hashes last is not documented, so the known ones are kept in a cursor of
their own: an account that comes back under a new hash is recognised by the last four digits of its number, if that
leaves no doubt, and keeps its key. (A digest of our own would betray the number: its last four digits are stored
beside it, and ten thousand guesses find the rest.)
"""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from typing import ClassVar, Self
from urllib.parse import quote, urlencode

import httpx
import msgspec
from pydantic import SecretStr, field_validator
from pydantic_settings import SettingsConfigDict

from worker.errors import (
    AccountGone,
    BadPayload,
    BadRequest,
    ConfigurationError,
    Forbidden,
    ProviderError,
    Scope,
    Transient,
)
from worker.integrations.kit import windows
from worker.integrations.kit.base import Caller, Page, Quota, RefreshPolicy, SyncRequest, TokenAnswer, Window
from worker.integrations.kit.http import Api, Endpoint, Gate, check_base_url, read_retry_after
from worker.integrations.kit.oauth2 import ask_token
from worker.integrations.kit.taxonomy import Rule
from worker.integrations.kit.transport import Answer
from worker.integrations.schwab import pages as answers
from worker.integrations.schwab.vocabulary import ACCOUNT_RULES, DATA_RULES, TOKEN_RULES, TYPES
from worker.models.records import AccountRecord
from worker.settings import EnvironmentSettings, load

_GRANT_LIFETIME = timedelta(days=7)
_MAX_ROWS = 3000
_LONGEST_WINDOW = timedelta(days=365)
_ONE_DAY = timedelta(days=1)
_ALL_TYPES = ",".join(TYPES)
_REFRESH_POLICY = RefreshPolicy(default_lifetime=timedelta(minutes=30))
_ACCOUNT_TROUBLE = (Transient, BadRequest, BadPayload, AccountGone, Forbidden)


class SchwabSettings(EnvironmentSettings):
    """How this application is known to Schwab."""

    model_config = SettingsConfigDict(env_prefix="SCHWAB_")

    app_key: SecretStr
    app_secret: SecretStr
    redirect_uri: str
    base_url: str = "https://api.schwabapi.com"

    @field_validator("base_url")
    @classmethod
    def _https(cls, value: str) -> str:
        try:
            check_base_url(value)
        except ConfigurationError as error:
            raise ValueError(str(error)) from None
        return value


class Schwab:
    """See `worker.integrations.kit.base.Integration`."""

    key: ClassVar[str] = "schwab"
    name: ClassVar[str] = "Charles Schwab"
    link_kind: ClassVar[str] = "oauth"
    refresh_policy: ClassVar[RefreshPolicy | None] = _REFRESH_POLICY
    quotas: ClassVar[tuple[Quota, ...]] = (Quota("app", 120, 60, endpoint="trader"),)
    mapping_version: ClassVar[int] = 2
    error_rules: ClassVar[tuple[Rule, ...]] = (*TOKEN_RULES, *ACCOUNT_RULES)

    def __init__(self, settings: SchwabSettings, api: Api) -> None:
        self._settings = settings
        self._api = api
        app = f"{settings.app_key.get_secret_value()}:{settings.app_secret.get_secret_value()}"
        self._token_headers = {
            "authorization": "Basic " + base64.b64encode(app.encode()).decode(),
            "content-type": "application/x-www-form-urlencoded",
        }
        self._token = api.endpoint("token", "POST", "/v1/oauth/token")
        self._account_numbers = api.endpoint("trader", "GET", "/trader/v1/accounts/accountNumbers")
        self._accounts = api.endpoint("trader", "GET", "/trader/v1/accounts")

    @classmethod
    def build(
        cls,
        *,
        total_seconds: float,
        max_bytes: int,
        gate: Gate | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> Self:
        """From the environment.

        Raises:
            ConfigurationError: names the variables.
        """
        settings = load(SchwabSettings)
        api = Api(
            settings.base_url,
            name=cls.key,
            total_seconds=total_seconds,
            max_bytes=max_bytes,
            gate=gate,
            transport=transport,
            correlation_header="schwab-client-correlid",
        )
        return cls(settings, api)

    @property
    def redirect_uri(self) -> str:
        """Where Schwab sends the user back to, as registered."""
        return self._settings.redirect_uri

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._api.aclose()

    def authorize_url(self, state: str) -> str:
        """Where the user consents."""
        query = urlencode(
            {
                "client_id": self._settings.app_key.get_secret_value(),
                "redirect_uri": self._settings.redirect_uri,
                "response_type": "code",
                "state": state,
            }
        )
        return f"{self._settings.base_url.rstrip('/')}/v1/oauth/authorize?{query}"

    async def exchange(self, caller: Caller, code: str, *, now: datetime) -> TokenAnswer:
        """Turns the code, decoded once (it ends in `@`), into tokens. The seven days of the grant begin now."""
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": self._settings.redirect_uri}
        return replace(await self._ask_token(caller, form), grant_expires_at=now + _GRANT_LIFETIME)

    async def refresh(self, caller: Caller, refresh_token: str) -> TokenAnswer:
        """Presents the refresh token once. The answer may rotate it; the seven days run on."""
        return await self._ask_token(caller, {"grant_type": "refresh_token", "refresh_token": refresh_token})

    async def revoke(self, caller: Caller, *, access_token: str, refresh_token: str | None) -> bool:
        """False: with Schwab, only the user can end the grant."""
        return False

    async def pages(self, request: SyncRequest) -> AsyncIterator[Page]:
        """Accounts with balances and positions first, then each account's transactions, oldest window first.

        An account whose transactions cannot be had is a problem of the run; the others go on.
        """
        listing = await self._list(request)
        yield listing.page
        for account in listing.page.accounts:
            if _feed_of(account) in request.done:
                continue
            try:
                async for page in self._history(request, account, listing.numbers[account.account_key]):
                    yield page
            except _ACCOUNT_TROUBLE as error:
                yield Page(problems=(_of_account(error, account.account_key),))

    async def _ask_token(self, caller: Caller, form: dict[str, str]) -> TokenAnswer:
        return await ask_token(
            self._api,
            self._token,
            caller,
            headers=self._token_headers,
            form=form,
            rules=TOKEN_RULES,
            policy=_REFRESH_POLICY,
        )

    async def _get(
        self,
        request: SyncRequest,
        endpoint: Endpoint,
        rules: Sequence[Rule],
        params: dict[str, str] | None = None,
        account_key: str | None = None,
    ) -> bytes:
        answer = await self._api.read(
            endpoint,
            request.caller,
            check=lambda answer: _check(answer, rules),
            headers={"authorization": f"Bearer {request.access_token}"},
            params=params,
            account_key=account_key,
        )
        return answer.body

    async def _list(self, request: SyncRequest) -> answers.Listing:
        numbers = await self._get(request, self._account_numbers, DATA_RULES)
        accounts = await self._get(request, self._accounts, DATA_RULES, {"fields": "positions"})
        return answers.read_listing(numbers, accounts, request.cursors.get(answers.ACCOUNTS_FEED))

    async def _history(self, request: SyncRequest, account: AccountRecord, number: str) -> AsyncIterator[Page]:
        feed = _feed_of(account)
        today = request.now.date()
        first = windows.first_day(windows.DateCursor.parse(request.cursors.get(feed)), request)
        widest = span = max(min(request.window, _LONGEST_WINDOW), _ONE_DAY)
        while first <= today:
            last = min(first + span - _ONE_DAY, today)
            body, rows = await self._window(request, account, first, last)
            full = len(rows) >= _MAX_ROWS
            if full and last > first:
                span = timedelta(days=((last - first).days + 1) // 2)
                continue
            page = answers.transactions_page(body, rows, account.account_key, number)
            page.feed, page.cursor, page.more = feed, str(windows.after(last, request)), last < today
            if full:
                page.problems = (
                    BadPayload("day_with_3000_rows", scope=Scope.ACCOUNT, account_key=account.account_key),
                )
            else:
                page.windows = _listed_completely(account.account_key, first, last, today)
            yield page
            first = last + _ONE_DAY
            if len(rows) < _MAX_ROWS // 3:
                span = min(span * 2, widest)

    async def _window(
        self, request: SyncRequest, account: AccountRecord, first: date, last: date
    ) -> tuple[bytes, Sequence[msgspec.Raw]]:
        """The answer for some days, as a whole and row by row."""
        endpoint = self._api.endpoint(
            "trader", "GET", f"/trader/v1/accounts/{quote(account.provider_ref or '', safe='')}/transactions"
        )
        end = min(datetime.combine(last, time.max, tzinfo=UTC), request.now)
        params = {
            "startDate": f"{first.isoformat()}T00:00:00.000Z",
            "endDate": end.strftime("%Y-%m-%dT%H:%M:%S.") + f"{end.microsecond // 1000:03d}Z",
            "types": _ALL_TYPES,
        }
        body = await self._get(request, endpoint, ACCOUNT_RULES, params, account.account_key)
        return body, answers.rows.page(body)


def _check(answer: Answer, rules: Sequence[Rule]) -> None:
    if answer.status != 200:
        raise answers.error_of(rules, answer.status, answer.body, read_retry_after(answer.headers))


def _feed_of(account: AccountRecord) -> str:
    return f"account:{account.account_key}"


def _of_account(error: ProviderError, account_key: str) -> ProviderError:
    error.scope, error.account_key = Scope.ACCOUNT, account_key
    return error


def _listed_completely(account_key: str, first: date, last: date, today: date) -> tuple[Window, ...]:
    """The days of which an answer surely lists every row.

    Schwab does not say by which of a row's dates it filters, so a day at each edge is not counted; today is, because
    nothing is later.
    """
    inner = Window(account_key, first + _ONE_DAY, last if last == today else last - _ONE_DAY)
    return (inner,) if inner.first <= inner.last else ()

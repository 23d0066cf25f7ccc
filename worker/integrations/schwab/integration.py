"""Charles Schwab Trader API (individual): OAuth 2 with a grant of exactly seven days, data by date window.

Account numbers are used only to join Schwab's two lists of accounts and are never stored. The account key is the first
hash that Schwab gave for the account. Schwab does not document whether these hashes are permanent, so the known ones
are kept in a separate cursor. If an account comes back with a new hash, it is recognised by the last four digits of its
number and keeps its key, unless several accounts have the same four digits. (We do not use our own digest of the
number, because it would reveal the number: the last four digits are stored beside it, and the other digits can be found
with ten thousand guesses.)
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, date, datetime, time, timedelta

import msgspec
from pydantic import SecretStr
from pydantic_settings import SettingsConfigDict

from worker.errors import BadPayload, ProviderError, Scope
from worker.integrations.kit import windows
from worker.integrations.kit.base import Page, Quota, SyncRequest
from worker.integrations.kit.http import Api, read_retry_after
from worker.integrations.kit.oauth2_integration import OAuth2Integration
from worker.integrations.kit.settings import IntegrationSettings
from worker.integrations.kit.taxonomy import Rule
from worker.integrations.kit.transport import Answer
from worker.integrations.schwab import pages as answers
from worker.integrations.schwab.vocabulary import ACCOUNT_RULES, DATA_RULES, TOKEN_RULES, TYPES
from worker.models.records import AccountRecord

_MAX_ROWS = 3000
_LONGEST_WINDOW = timedelta(days=365)
_ONE_DAY = timedelta(days=1)
_ALL_TYPES = ",".join(TYPES)


class SchwabSettings(IntegrationSettings):
    """This application's registration at Schwab."""

    model_config = SettingsConfigDict(env_prefix="SCHWAB_")

    app_key: SecretStr
    app_secret: SecretStr
    redirect_uri: str
    base_url: str = "https://api.schwabapi.com"

    @property
    def client(self) -> tuple[str, str]:
        """This application's key and secret."""
        return self.app_key.get_secret_value(), self.app_secret.get_secret_value()


class Schwab(OAuth2Integration):
    """See `worker.integrations.kit.integration.Integration`.

    An authorization code ends in `@`. A refresh never extends the seven days of a grant. The API cannot end a grant;
    only the user can.
    """

    key = "schwab"
    name = "Charles Schwab"
    domain = "schwab.com"
    provider_type = "brokerage"
    description = "Brokerage accounts, positions and transactions at Charles Schwab."
    nouns = (*OAuth2Integration.nouns, "holdings")
    settings_class = SchwabSettings
    authorize_path = "/v1/oauth/authorize"
    token_path = "/v1/oauth/token"  # noqa: S105 - a path
    token_rules = TOKEN_RULES
    grant_lifetime = timedelta(days=7)
    quotas = (Quota("app", 120, 60, endpoint="trader"),)
    mapping_version = 2
    error_rules = (*TOKEN_RULES, *ACCOUNT_RULES)
    secret_shapes = (r"\bI0\.[\w.=@/+-]{8,}",)
    can_list_accounts = True
    memory_feeds = frozenset({answers.ACCOUNTS_FEED})
    correlation_header = "schwab-client-correlid"

    def __init__(self, settings: SchwabSettings, api: Api) -> None:
        super().__init__(settings, api)
        self._account_numbers = api.endpoint("trader", "GET", "/trader/v1/accounts/accountNumbers")
        self._accounts = api.endpoint("trader", "GET", "/trader/v1/accounts")

    async def pages(self, request: SyncRequest) -> AsyncIterator[Page]:
        """Accounts with balances and positions first, then each account's transactions, oldest window first.

        If one account's transactions cannot be read, the run notes a problem and continues with the other accounts.
        """
        numbers = await self.get(request, self._account_numbers, rules=DATA_RULES)
        accounts = await self.get(request, self._accounts, {"fields": "positions"}, rules=DATA_RULES)
        listing = answers.read_listing(numbers, accounts, request.cursors.get(answers.ACCOUNTS_FEED))
        yield listing.page
        histories = {
            account.account_key: (self._history(request, account, listing.numbers[account.account_key]),)
            for account in listing.page.accounts
        }
        async for page in self.parts_of_accounts(request, histories):
            yield page

    def error_of(self, answer: Answer, rules: tuple[Rule, ...]) -> ProviderError:
        """The error for an answer other than 200. Schwab's services, gateway and edge use different error formats."""
        return answers.error_of(rules, answer.status, answer.body, read_retry_after(answer.headers))

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
                # Schwab does not document which of a row's dates it filters by.
                page.windows = windows.surely_listed(account.account_key, (first, last), request)
            yield page
            first = last + _ONE_DAY
            if len(rows) < _MAX_ROWS // 3:
                span = min(span * 2, widest)

    async def _window(
        self, request: SyncRequest, account: AccountRecord, first: date, last: date
    ) -> tuple[bytes, Sequence[msgspec.Raw]]:
        """The answer for a window: its whole body, and its rows."""
        path = "/trader/v1/accounts/{}/transactions"
        endpoint = self.api.endpoint("trader", "GET", path, account.provider_ref or "")
        end = min(datetime.combine(last, time.max, tzinfo=UTC), request.now)
        params = {
            "startDate": f"{first.isoformat()}T00:00:00.000Z",
            "endDate": end.strftime("%Y-%m-%dT%H:%M:%S.") + f"{end.microsecond // 1000:03d}Z",
            "types": _ALL_TYPES,
        }
        body = await self.get(request, endpoint, params, account_key=account.account_key, rules=ACCOUNT_RULES)
        return body, answers.rows.page(body)


def _feed_of(account: AccountRecord) -> str:
    return f"account:{account.account_key}"

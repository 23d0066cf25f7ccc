"""Enable Banking: banks of the EU and the UK, by sessions that their users consent to. See docs/providers.

Every call is signed with this application's own key; there is no token to refresh. A session is one consent at one
bank. Its id and the ids of its accounts end with it; an account is recognised by its identification hash. While no user
is there, as when a worker reads, a bank answers four times a day about an account.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta
from functools import partial
from typing import Any

import msgspec
from pydantic import Field
from pydantic_settings import SettingsConfigDict

from worker.errors import BadPayload, OutcomeUnknown
from worker.integrations.enable_banking import mapping
from worker.integrations.enable_banking import vocabulary as words
from worker.integrations.kit import figures, moments, reading
from worker.integrations.kit.base import Caller, Page, Quota, SyncRequest, TokenAnswer
from worker.integrations.kit.continued import Continued
from worker.integrations.kit.http import Api
from worker.integrations.kit.link_kinds import CODE, OAUTH, Choice, FormField
from worker.integrations.kit.offered import Offered
from worker.integrations.kit.session_accounts import FEED, Described, listing
from worker.integrations.kit.settings import in_words
from worker.integrations.kit.signed_integration import SignedIntegration, SignedSettings
from worker.models.records import AccountRecord

_CALLS_A_DAY = 4
_SESSION = "/sessions/{}"
_BANK = FormField(
    "bank",
    "bank",
    secret=False,
    help="Its name, country and kind of customer, as in: Nordea, FI, personal. Words that only one has are enough.",
    chosen=True,
)


class EnableBankingSettings(SignedSettings):
    """This application's registration at Enable Banking."""

    model_config = SettingsConfigDict(env_prefix="ENABLE_BANKING_")

    base_url: str = "https://api.enablebanking.com"
    countries: str = ""
    """Countries whose banks a user may choose, separated by commas; if empty, all of the application."""
    consent_days: int = Field(default=180, ge=1, le=730)
    """How long a consent is asked for; a bank may allow less."""


class EnableBanking(SignedIntegration):
    """See `worker.integrations.kit.integration.Integration`."""

    key = "enable_banking"
    name = "Enable Banking"
    domain = "enablebanking.com"
    provider_type = "aggregator"
    description = "Banks of the European Union and the United Kingdom by way of Enable Banking."
    link_kind = replace(OAUTH, title="choose your bank, and consent at its own address", asks=(_BANK,))
    settings_class = EnableBankingSettings
    issuer, audience = "enablebanking.com", "api.enablebanking.com"
    quotas = tuple(
        Quota("account", _CALLS_A_DAY, 86_400, endpoint=name, daily=True) for name in ("balances", "transactions")
    )
    shortest_interval = timedelta(days=1) / (_CALLS_A_DAY - 1)  # one call of the day is left for a person who asks
    error_rules = words.RULES
    error_code = ("error", "code")
    secret_shapes = (*SignedIntegration.secret_shapes, mapping.credential.secret_shape)
    can_list_accounts = True
    memory_feeds = frozenset({FEED})
    varying = rb'"(?:transaction_id|continuation_key)"\s*:\s*"(?:[^"\\]|\\.)*"'

    def __init__(self, settings: Any, api: Api) -> None:
        super().__init__(settings, api)
        self._banks = Offered(_BANK, self._ask_for_banks)

    # Linking

    async def choices(self, caller: Caller, field: str) -> Sequence[Choice]:
        """The banks, each with its kinds of customers and ways to log in."""
        return await self._banks.choices(caller)

    async def _ask_for_banks(self, caller: Caller) -> Mapping[Choice, mapping.Offer]:
        endpoint, only = self.api.endpoint("banks", "GET", "/aspsps"), {"service": "AIS"}
        answer = await self.api.read(endpoint, caller, check=self.check, headers=self.credentials(), params=only)
        return mapping.offers(answer.body, frozenset(in_words(self.settings.countries.upper())))

    async def begin_consent(
        self, caller: Caller, form: Mapping[str, str], *, state: str, challenge: str | None, now: datetime
    ) -> str:
        """Asks for the address at which the user consents at the bank."""
        bank, psu_type, method = await self._banks.chosen(caller, form)
        longest = min(timedelta(days=self.settings.consent_days), timedelta(seconds=bank.maximum_consent_validity))
        asked = {
            "access": {"valid_until": (now + longest).isoformat(), "balances": True, "transactions": True},
            "aspsp": {"name": bank.name, "country": bank.country},
            "state": state,
            "redirect_url": self.redirect_uri,
            "psu_type": psu_type,
            **({"auth_method": method} if method else {}),
        }
        answer = await self.post(caller, self.api.endpoint("auth", "POST", "/auth"), self.credentials(), asked)
        return self.consent_address(mapping.started.page(answer.body))

    async def exchange(self, caller: Caller, form: Mapping[str, str], *, now: datetime) -> TokenAnswer:
        """Makes the session. What is shown only once of its accounts is kept in the credential."""
        endpoint = self.api.endpoint("sessions", "POST", "/sessions")
        answer = await self.post(caller, endpoint, self.credentials(), {"code": form[CODE]})
        try:
            given = mapping.authorised.page(answer.body)
        except BadPayload:
            raise OutcomeUnknown("unreadable_session") from None
        kept, _ = reading.read_each(given.accounts, "account", mapping.account)
        ends_at = moments.of_text_or_none(given.valid_until)
        return TokenAnswer(mapping.credential.write(given.session_id, kept), grant_expires_at=ends_at)

    async def revoke(self, caller: Caller, *, access_token: str, refresh_token: str | None) -> bool:
        """Closes the session, and with it the bank's consent."""
        endpoint = self.api.endpoint("session", "DELETE", _SESSION, mapping.credential.read(access_token)[0])
        self.check(await self.api.send(endpoint, caller, headers=self.credentials()))
        return True

    # Reading

    async def pages(self, request: SyncRequest) -> AsyncIterator[Page]:
        """The accounts first, then each account's balance and transactions.

        An account whose calls of the day are used up does not stop the others; afterwards the login waits for the next
        day of the bank.
        """
        id_, kept = mapping.credential.read(request.access_token)
        session = mapping.session.page(await self.get(request, self.api.endpoint("session", "GET", _SESSION, id_)))
        session.require_authorised()

        async def describe(one: Described) -> Described:
            return mapping.account(await self._about(request, one.hash, one.uid, "details"))

        listed = [mapping.described(one) for one in session.accounts_data]
        record, cursor = partial(mapping.account_record, session=session), request.cursors.get(FEED)
        page, readable = await listing(listed, kept, describe=describe, record=record, cursor=cursor)
        page.grant_expires_at = moments.of_text_or_none(session.valid_until)
        yield page
        parts = {
            account.account_key: (self._balance(request, uid, account), self._history(request, uid, account))
            for uid, account in readable.items()
        }
        async for page in self.parts_of_accounts(request, parts, day_ends_in=session.next_day(request.now)):
            yield page

    async def _balance(self, request: SyncRequest, uid: str, account: AccountRecord) -> AsyncIterator[Page]:
        key = account.account_key
        stated = mapping.balances.page(await self._about(request, key, uid, "balances"))
        given, rejects = reading.read_all(stated, "balance", partial(mapping.balance, key=key), key)
        balances = figures.preferred(given, account.currency, current=words.CURRENT, available=words.AVAILABLE)
        yield Page(balances=balances, rejects=rejects)

    def _history(self, request: SyncRequest, uid: str, account: AccountRecord) -> AsyncIterator[Page]:
        key = account.account_key

        async def ask(first: date, place: str, longest: bool) -> tuple[list[msgspec.Raw], str | None]:
            more = {"strategy": "longest"} if longest else {}
            more |= {"continuation_key": place} if place else {}
            body = await self._about(request, key, uid, "transactions", date_from=first.isoformat(), **more)
            answer = mapping.transactions.page(body)
            return answer.transactions, answer.continuation_key

        rows, mapped = partial(mapping.Rows, key), partial(mapping.transaction, today=request.now.date())
        return Continued(request, key, ask, rows, mapped, refused=words.PERIOD_REFUSED, shorter=words.SHORTER).pages()

    async def _about(self, request: SyncRequest, key: str, uid: str | None, part: str, **params: str) -> bytes:
        """A part of an account. Of a list, only the first page is counted as a call."""
        name = f"{part}_page" if "continuation_key" in params else part
        endpoint = self.api.endpoint(name, "GET", f"/accounts/{{}}/{part}", uid or "")
        return await self.get(request, endpoint, params, account_key=key, rules=words.ACCOUNT_RULES)

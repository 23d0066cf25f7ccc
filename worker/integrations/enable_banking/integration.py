"""Enable Banking: banks of the EU and the UK, by sessions that their users consent to. See docs/providers.

Every call is signed with this application's own key; there is no token to refresh. A session is one consent at one
bank. Its id and the ids of its accounts end with it; an account is recognised by its identification hash. While no user
is there, as when a worker reads, a bank answers four times a day about an account.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from time import monotonic
from typing import Any
from urllib.parse import quote

import msgspec
from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from worker.errors import (
    BadPayload,
    BadRecord,
    OutcomeUnknown,
    ProviderError,
    RateLimited,
    Refused,
    Scope,
)
from worker.integrations.enable_banking import mapping
from worker.integrations.enable_banking import pages as answers
from worker.integrations.enable_banking.history import History
from worker.integrations.enable_banking.vocabulary import ACCOUNT_RULES, RULES
from worker.integrations.kit import reading
from worker.integrations.kit.application_keys import ApplicationKey
from worker.integrations.kit.base import Caller, Page, Quota, SyncRequest, TokenAnswer
from worker.integrations.kit.http import Api, Endpoint, read_retry_after
from worker.integrations.kit.integration import TROUBLE_OF_AN_ACCOUNT, Integration
from worker.integrations.kit.link_kinds import CODE, OAUTH, Choice, FormField
from worker.integrations.kit.settings import IntegrationSettings
from worker.integrations.kit.taxonomy import Rule, classify
from worker.integrations.kit.transport import Answer

_DAY, _BANKS_ARE_KEPT = timedelta(days=1), 600
_CALLS_A_DAY = 4
_BANK = FormField(
    "bank",
    "bank",
    secret=False,
    help="Its name, country and kind of customer, as in: Nordea, FI, personal. Words that only one has are enough.",
    chosen=True,
)


class EnableBankingSettings(IntegrationSettings):
    """This application's registration at Enable Banking."""

    model_config = SettingsConfigDict(env_prefix="ENABLE_BANKING_")

    application_id: str
    private_key: SecretStr
    """The RSA key of the application, in PEM format."""
    redirect_uri: str
    base_url: str = "https://api.enablebanking.com"
    countries: str = ""
    """Countries whose banks a user may choose, separated by commas; if empty, all of the application."""
    consent_days: int = Field(default=180, ge=1, le=730)
    """How long a consent is asked for; a bank may allow less."""


class _Started(msgspec.Struct, gc=False):
    url: str


class _Balances(msgspec.Struct, gc=False):
    balances: list[msgspec.Raw]


_started, _balances = reading.Reader(_Started), reading.Reader(_Balances)


class EnableBanking(Integration):
    """See `worker.integrations.kit.integration.Integration`."""

    key = "enable_banking"
    name = "Enable Banking"
    domain = "enablebanking.com"
    provider_type = "aggregator"
    description = "Banks of the European Union and the United Kingdom by way of Enable Banking."
    link_kind = replace(OAUTH, title="choose your bank, and consent at its own address", asks=(_BANK,))
    settings_class = EnableBankingSettings
    quotas = tuple(
        Quota("account", _CALLS_A_DAY, 86_400, endpoint=name, daily=True) for name in ("balances", "transactions")
    )
    shortest_interval = _DAY / (_CALLS_A_DAY - 1)  # one call of the day is left for a person who asks
    error_rules = RULES
    secret_shapes = (
        r"\bebs\.[\w.-]{30,}",
        r"\beyJ[\w-]{10,}\.eyJ[\w-]+\.[\w-]+",
        r"-----BEGIN [A-Z ]*PRIVATE KEY-----[^-]+",
    )
    memory_feeds = frozenset({answers.ACCOUNTS_FEED})
    varying = rb'"(?:transaction_id|continuation_key)"\s*:\s*"(?:[^"\\]|\\.)*"'

    def __init__(self, settings: Any, api: Api) -> None:
        super().__init__(settings, api)
        self._key = ApplicationKey(
            settings.private_key.get_secret_value(),
            variable="ENABLE_BANKING_PRIVATE_KEY",
            key_id=settings.application_id,
            issuer="enablebanking.com",
            audience="api.enablebanking.com",
        )
        self._countries = frozenset(filter(None, (name.strip().upper() for name in settings.countries.split(","))))
        self._banks: tuple[float, list[answers.Bank]] = (0.0, [])

    # Linking

    @property
    def redirect_uri(self) -> str:
        """The registered address to which the user is sent back."""
        return str(self.settings.redirect_uri)

    async def choices(self, caller: Caller, field: str) -> Sequence[Choice]:
        """The banks, each with its kinds of customers and ways to log in."""
        return list(answers.choices(await self._list_banks(caller)))

    async def begin_consent(
        self, caller: Caller, form: Mapping[str, str], *, state: str, challenge: str | None, now: datetime
    ) -> str:
        """Asks for the address at which the user consents at the bank."""
        country, name, psu_type, method = msgspec.json.decode(form["bank"])
        banks = await self._list_banks(caller)
        bank = next((one for one in banks if (one.country, one.name) == (country, name)), None)
        if bank is None:
            raise Refused("this bank is not offered any more; nothing was changed. Choose another one")
        longest = min(timedelta(days=self.settings.consent_days), timedelta(seconds=bank.maximum_consent_validity))
        asked = {
            "access": {"valid_until": (now + longest).isoformat(), "balances": True, "transactions": True},
            "aspsp": {"name": name, "country": country},
            "state": state,
            "redirect_url": self.redirect_uri,
            "psu_type": psu_type,
            **({"auth_method": method} if method else {}),
        }
        answer = await self._post(caller, "auth", asked)
        url = _started.page(answer.body).url
        if not url.startswith("https://") and not url.startswith(str(self.settings.base_url)):
            raise BadPayload("consent_address")
        return url

    async def exchange(self, caller: Caller, form: Mapping[str, str], *, now: datetime) -> TokenAnswer:
        """Makes the session. What is shown only once of its accounts is kept in the credential."""
        answer = await self._post(caller, "sessions", {"code": form[CODE]})
        try:
            given = answers.authorised.page(answer.body)
        except BadPayload:
            raise OutcomeUnknown("unreadable_session") from None
        kept, _ = reading.read_each(given.accounts, "account", mapping.account)
        return TokenAnswer(answers.credential(given.session_id, kept), grant_expires_at=given.access.ends_at)

    async def revoke(self, caller: Caller, *, access_token: str, refresh_token: str | None) -> bool:
        """Closes the session, and with it the bank's consent."""
        endpoint = self.api.endpoint(
            "session", "DELETE", f"/sessions/{_quoted(answers.read_credential(access_token)[0])}"
        )
        self.check(await self.api.send(endpoint, caller, headers=self._key.bearer()))
        return True

    async def _list_banks(self, caller: Caller) -> list[answers.Bank]:
        kept_until, banks = self._banks
        if not banks or monotonic() > kept_until:
            endpoint = self.api.endpoint("banks", "GET", "/aspsps")
            body = await self._read(caller, endpoint, {"service": "AIS"})
            banks = answers.banks(body, self._countries)
            self._banks = monotonic() + _BANKS_ARE_KEPT, banks
        return banks

    async def _post(self, caller: Caller, name: str, asked: Mapping[str, Any]) -> Answer:
        headers = {**self._key.bearer(), "content-type": "application/json"}
        endpoint = self.api.endpoint(name, "POST", f"/{name}")
        answer = await self.api.send(endpoint, caller, headers=headers, content=msgspec.json.encode(asked))
        self.check(answer)
        return answer

    # Reading

    async def pages(self, request: SyncRequest) -> AsyncIterator[Page]:
        """The accounts first, then each account's balance and transactions.

        An account whose calls of the day are used up does not stop the others; afterwards the login waits for the next
        day of the bank.
        """
        session_id, kept = answers.read_credential(request.access_token)
        given = answers.session.page(
            await self._read(request.caller, self.api.endpoint("session", "GET", f"/sessions/{_quoted(session_id)}"))
        )
        given.require_authorised()
        accounts, problems = await self._described(request, given, kept)
        page, listed = answers.listing(given, accounts, request.cursors.get(answers.ACCOUNTS_FEED))
        if problems:
            page.problems, page.accounts_complete = [*page.problems, *problems], False
        yield page
        waits = list[RateLimited]()
        for account in listed:
            if account.feed in request.done:
                continue
            history = History(request, account, partial(self._of_account, request, account)).pages()
            for part in (self._balance(request, account), history):
                async for page in self.part(part, account_key=account.key):
                    limited = [error for error in page.problems if isinstance(error, RateLimited)]
                    waits += limited
                    if not limited:
                        yield page
        if waits:
            longest = max(error.retry_after or given.next_day(request.now) for error in waits)
            raise RateLimited(waits[0].reason, scope=Scope.PROVIDER, retry_after=longest)

    async def _described(
        self, request: SyncRequest, given: answers.Session, kept: Sequence[mapping.Account]
    ) -> tuple[list[mapping.Account], list[ProviderError]]:
        """The session's accounts. Those of which nothing was kept are asked for."""
        known, problems = {one.uid: one for one in kept}, list[ProviderError]()
        found = [one for one in kept if not one.uid]
        for ids in given.accounts_data:
            one = known.get(ids.uid)
            if one is None:
                endpoint = self.api.endpoint("details", "GET", f"/accounts/{_quoted(ids.uid)}/details")
                try:
                    one = mapping.account(await self._read(request.caller, endpoint, rules=ACCOUNT_RULES))
                except (BadRecord, *TROUBLE_OF_AN_ACCOUNT) as error:
                    key = ids.identification_hash
                    problems.append(BadPayload(f"no_details:{error.reason}", scope=Scope.ACCOUNT, account_key=key))
                    continue
            hashes = ids.identification_hashes or one.hashes
            found.append(msgspec.structs.replace(one, uid=ids.uid, hash=ids.identification_hash, hashes=hashes))
        return found, problems

    async def _balance(self, request: SyncRequest, account: answers.Listed) -> AsyncIterator[Page]:
        body = await self._of_account(request, account, "balances", "balances", None)
        given, rejects = reading.read_all(_balances.page(body).balances, "balance", mapping.balance, account.key)
        stated = mapping.balance_record(given, account.key, account.currency)
        yield Page(balances=[] if stated is None else [stated], rejects=rejects)

    async def _of_account(
        self, request: SyncRequest, account: answers.Listed, name: str, part: str, params: Mapping[str, str] | None
    ) -> bytes:
        endpoint = self.api.endpoint(name, "GET", f"/accounts/{_quoted(account.uid)}/{part}")
        return await self._read(request.caller, endpoint, params, account_key=account.key, rules=ACCOUNT_RULES)

    async def _read(
        self,
        caller: Caller,
        endpoint: Endpoint,
        params: Mapping[str, str] | None = None,
        *,
        account_key: str | None = None,
        rules: tuple[Rule, ...] = RULES,
    ) -> bytes:
        answer = await self.api.read(
            endpoint,
            caller,
            check=lambda answer: self.check(answer, rules),
            headers=self._key.bearer(),
            params=params,
            account_key=account_key,
        )
        return answer.body

    def error_of(self, answer: Answer, rules: tuple[Rule, ...]) -> ProviderError:
        """The error for an unwanted answer. Its word is in `error`; some errors of banks have it in `code`."""
        try:
            given = msgspec.json.decode(answer.body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            given = None
        fields = given if isinstance(given, dict) else {}
        words = [word for word in (fields.get("error"), fields.get("code")) if isinstance(word, str)]
        retry_after = read_retry_after(answer.headers)
        return classify(rules, status=answer.status, code=next(iter(words), None), retry_after=retry_after)


def _quoted(id_: str) -> str:
    return quote(id_, safe="")

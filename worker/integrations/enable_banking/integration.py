"""Enable Banking: banks of the EU and the UK, by sessions that their users consent to. See docs/providers.

Every call is signed with this application's own key; there is no token to refresh. A session is one consent at one
bank. Its id and the ids of its accounts end with it; an account is recognised by its identification hash. While no user
is there, as when a worker reads, a bank answers four times a day about an account.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta
from time import monotonic
from typing import Any
from urllib.parse import quote

import msgspec
from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from worker.errors import (
    BadPayload,
    BadRecord,
    BadRequest,
    OutcomeUnknown,
    PagingRestart,
    ProviderError,
    RateLimited,
    Refused,
    Scope,
    Unsupported,
)
from worker.integrations.enable_banking import mapping
from worker.integrations.enable_banking import pages as answers
from worker.integrations.enable_banking.vocabulary import ACCOUNT_RULES, PERIOD_REFUSED, RULES
from worker.integrations.kit import reading, windows
from worker.integrations.kit.application_keys import ApplicationKey
from worker.integrations.kit.base import Caller, Page, Quota, SyncRequest, TokenAnswer, Window
from worker.integrations.kit.http import Api, Endpoint, read_retry_after
from worker.integrations.kit.integration import TROUBLE_OF_AN_ACCOUNT, Integration
from worker.integrations.kit.link_kinds import CODE, OAUTH, Choice, FormField
from worker.integrations.kit.settings import IntegrationSettings
from worker.integrations.kit.taxonomy import Rule, classify
from worker.integrations.kit.transport import Answer

_DAY, _BANKS_ARE_KEPT = timedelta(days=1), 600
_SHORTER = (89, 60, 30)
_MOST_TOGETHER = 5000
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


class _Page(msgspec.Struct, gc=False):
    transactions: list[msgspec.Raw]
    continuation_key: str | None = None


class _Position(msgspec.Struct, gc=False):
    """Where reading goes on: the continuation key, how often contents of its last day were listed, and the strategy."""

    key: str = ""
    seen: dict[str, int] = {}
    longest: bool = False


class _Started(msgspec.Struct, gc=False):
    url: str


class _Balances(msgspec.Struct, gc=False):
    balances: list[msgspec.Raw]


_page, _position, _balances = reading.Reader(_Page), reading.Reader(_Position), reading.Reader(_Balances)
_started = reading.Reader(_Started)


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
        country, name, psu_type, method = msgspec.json.decode(form["bank"], type=tuple[str, str, str, str | None])
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
            for part in (self._balance(request, account), self._history(request, account)):
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
        known, problems = {one.hash: one for one in kept}, list[ProviderError]()
        found = [one for one in kept if not one.uid]
        for ids in given.accounts_data:
            one = known.get(ids.identification_hash)
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
        endpoint = self.api.endpoint("balances", "GET", f"/accounts/{_quoted(account.uid)}/balances")
        body = await self._read(request.caller, endpoint, account_key=account.key, rules=ACCOUNT_RULES)
        given, rejects = reading.read_all(_balances.page(body).balances, "balance", mapping.balance, account.key)
        try:
            stated = mapping.balance_record(given, account.key, account.currency)
        except BadRecord as error:
            stated, rejects = None, [*rejects, reading.reject("balance", error, b"{}", account_key=account.key)]
        yield Page(balances=[] if stated is None else [stated], rejects=rejects)

    async def _history(self, request: SyncRequest, account: answers.Listed) -> AsyncIterator[Page]:
        """An account's transactions. Later syncs read them into one page, the first one page by page."""
        cursor = windows.DateCursor.parse(request.cursors.get(account.feed))
        first, today = windows.first_day(cursor, request), request.now.date()
        place = _place(cursor, first)
        rows, came = mapping.Rows(account.key, place.seen.items()), list[reading.Split]()
        whole, keys = not place.key, {place.key}
        if cursor.through is None and not place.key:
            place = _Position(longest=True)
        while True:
            answer, place, first = await self._answer(request, account, place, first)
            came.append(rows.split(answer.transactions))
            if not answer.continuation_key:
                break
            if answer.continuation_key in keys:
                raise BadPayload("continuation_key_repeats")
            keys.add(answer.continuation_key)
            place = _Position(answer.continuation_key, rows.last_day, place.longest)
            if sum(len(one.rows) for one in came) >= (1 if cursor.through is None else _MOST_TOGETHER):
                tail = msgspec.json.encode(place).decode()
                at = windows.at_offset(cursor, request, (first, today), tail=tail)
                yield _of(account, came, str(at), today, more=True)
                came, whole = [], False
        page = _of(account, came, str(windows.after(today, request)), today)
        if whole:
            page.removals = rows.had_no_reference()
            page.windows = (Window(account.key, first + _DAY, today),) if first < today else ()
        if cursor.through is not None and first > cursor.through + _DAY:
            page.problems = (Unsupported("days_not_given", scope=Scope.ACCOUNT, account_key=account.key),)
        yield page

    async def _answer(
        self, request: SyncRequest, account: answers.Listed, place: _Position, first: date
    ) -> tuple[_Page, _Position, date]:
        """The next answer, with the place and the first day that were asked for: a later day if the bank refuses it.

        Raises:
            PagingRestart: the bank does not take the continuation key: the list begins anew.
        """
        shorter = [day for days in _SHORTER if (day := request.now.date() - timedelta(days=days)) > first]
        for day in (first, *shorter):
            asked = {"date_from": day.isoformat()}
            asked |= {"strategy": "longest"} if place.longest else {}
            asked |= {"continuation_key": place.key} if place.key else {}
            name = "transactions_page" if place.key else "transactions"
            endpoint = self.api.endpoint(name, "GET", f"/accounts/{_quoted(account.uid)}/transactions")
            try:
                body = await self._read(request.caller, endpoint, asked, account_key=account.key, rules=ACCOUNT_RULES)
            except BadRequest as error:
                if place.key:
                    raise PagingRestart(error.reason, feed=account.feed) from None
                if error.reason not in PERIOD_REFUSED or day == [first, *shorter][-1]:
                    raise
                place = _Position()
            else:
                return _page.page(body), place, day
        raise AssertionError("unreachable")  # pragma: no cover

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


def _place(cursor: windows.DateCursor, first: date) -> _Position:
    """Where an unfinished list goes on; its beginning if another first day is asked for now."""
    if cursor.window is None or cursor.window[0] != first:
        return _Position()
    try:
        return _position.page(cursor.tail.encode())
    except BadPayload:
        return _Position()


def _of(
    account: answers.Listed, came: Sequence[reading.Split], cursor: str, today: date, *, more: bool = False
) -> Page:
    return Page(
        feed=account.feed,
        cursor=cursor,
        more=more,
        transactions=[row for one in came for row in one.rows],
        rejects=[reject for one in came for reject in one.rejects],
        map_transaction=mapping.mapper(today),
    )

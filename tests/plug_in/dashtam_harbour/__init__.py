"""Harbour, a made-up bank as a package of somebody else's: linked with a key file, one feed of changes for a login."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import AsyncIterator, Mapping
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from urllib.parse import urlencode

import msgspec
from pydantic_settings import SettingsConfigDict

from worker import errors
from worker.integrations.kit import moments, money, reading
from worker.integrations.kit.base import Caller, Page, RawRecord, Removal, SyncRequest, TokenAnswer
from worker.integrations.kit.http import Api
from worker.integrations.kit.link_kinds import KEY_FILE
from worker.integrations.kit.oauth2 import read_token_answer
from worker.integrations.kit.oauth2_integration import OAuth2Integration, OAuth2Settings
from worker.integrations.kit.taxonomy import Rule
from worker.models import records, vocabulary

CHANGES = "changes"


class HarbourSettings(OAuth2Settings):
    """HARBOUR_CLIENT_ID and HARBOUR_CLIENT_SECRET; nobody is sent back to an address."""

    model_config = SettingsConfigDict(env_prefix="HARBOUR_")

    base_url: str = "https://api.harbour.example"
    redirect_uri: str = ""


class _Listing(msgspec.Struct):
    accounts: list[msgspec.Raw]


class _Account(msgspec.Struct):
    number: str
    title: str
    worth: Decimal


class _Changes(msgspec.Struct):
    written: list[msgspec.Raw]
    erased: list[str]
    bookmark: str
    more: bool


class _Ids(msgspec.Struct):
    id: str
    account: str


class _Row(_Ids):
    paid: Decimal
    on: date
    open: bool = False


_listing, _account, _changes = reading.Reader(_Listing), reading.Reader(_Account), reading.Reader(_Changes)
_ids, _row = reading.Reader(_Ids), reading.Reader(_Row)


class Harbour(OAuth2Integration):
    """See `worker.integrations.kit.integration.Integration`."""

    key = "harbour"
    name = "Harbour"
    provider_type = "bank"
    link_kind = KEY_FILE
    settings_class = HarbourSettings
    error_rules = (Rule(errors.AccessExpired, status=401), Rule(errors.Forbidden, status=403))
    secret_shapes = (r"\bharbour-(?:pass|again)-[\w=-]{16,}",)

    def __init__(self, settings: Any, api: Api) -> None:
        super().__init__(settings, api)
        self._open = api.endpoint("open", "POST", "/open")
        self._list = api.endpoint("accounts", "GET", "/accounts")
        self._feed = api.endpoint("changes", "GET", "/changes")

    def authorize_url(self, state: str, challenge: str | None = None) -> str:
        raise errors.Unsupported("consent_by_link")

    async def exchange(self, caller: Caller, form: Mapping[str, str], *, now: datetime) -> TokenAnswer:
        """The key stays here: what is sent is its name and a signature."""
        signed = hmac.new(form["key_file"].encode(), form["key_id"].encode(), hashlib.sha256).hexdigest()
        content = urlencode({"key_id": form["key_id"], "signature": signed}).encode()
        answer = await self.api.send(self._open, caller, headers=self._token_headers, content=content)
        return read_token_answer(answer, (), self.refresh_policy)

    async def pages(self, request: SyncRequest) -> AsyncIterator[Page]:
        """Accounts with balances, then what has changed since the bookmark."""
        found, rejects = reading.read_all(_listing.page(await self.get(request, self._list)).accounts, "account", _both)
        yield Page(
            accounts=[account for account, _ in found],
            balances=[balance for _, balance in found],
            accounts_complete=not rejects,
            rejects=rejects,
        )
        bookmark, more = request.cursors.get(CHANGES, ""), True
        while more:
            answer = _changes.page(await self.get(request, self._feed, {"since": bookmark}))
            bookmark, more = answer.bookmark, answer.more
            rows = reading.split(answer.written, _key_of)
            yield Page(
                feed=CHANGES,
                cursor=bookmark,
                more=more,
                transactions=rows.rows,
                removals=[Removal(id_, None) for id_ in answer.erased],
                rejects=rows.rejects,
                map_transaction=_mapped,
            )


def _both(raw: bytes) -> tuple[records.AccountRecord, records.BalanceRecord]:
    given = _account.record(raw)
    owed = given.worth < 0
    account = records.AccountRecord(
        account_key=given.number,
        name=given.title,
        type=vocabulary.AccountType.CREDIT if owed else vocabulary.AccountType.DEPOSITORY,
        subtype="credit_card" if owed else "checking",
    )
    worth = money.checked(given.worth, "worth")
    return account, records.BalanceRecord(account_key=given.number, current=worth, source="worth")


def _key_of(raw: msgspec.Raw) -> tuple[str, str]:
    given = _ids.record(raw)
    return given.id, given.account


def _mapped(row: RawRecord) -> records.TransactionRecord:
    """Harbour says what was paid: positive is money out."""
    raw, flags = reading.cleaned(row.raw)
    given = _row.record(raw)
    return records.TransactionRecord(
        account_key=row.account_key,
        transaction_key=row.key,
        type=vocabulary.TransactionType.PAYMENT,
        amount=money.negated(money.checked(given.paid, "paid")),
        posted_date=moments.day(given.on, "on"),
        status=vocabulary.TransactionStatus.PENDING if given.open else vocabulary.TransactionStatus.POSTED,
        flags=flags,
    )

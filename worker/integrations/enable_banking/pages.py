"""Banks, sessions and lists of accounts in Enable Banking's answers, without any HTTP."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Sequence
from datetime import datetime, time, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

import msgspec

from worker.errors import AccountGone, BadPayload, BadRecord, ReauthRequired, Scope
from worker.integrations.enable_banking import mapping
from worker.integrations.enable_banking.mapping import Account
from worker.integrations.enable_banking.vocabulary import SESSIONS, USUAL_ZONE, ZONES
from worker.integrations.kit import moments, reading
from worker.integrations.kit.account_keys import assign_keys
from worker.integrations.kit.base import Page
from worker.integrations.kit.link_kinds import Choice

ACCOUNTS_FEED = "accounts"
_CREDENTIAL = "ebs."


class _Method(msgspec.Struct, gc=False):
    psu_type: str
    name: str | None = None
    title: str | None = None
    hidden_method: bool = False


class Bank(msgspec.Struct, gc=False):
    """A bank; it has no id but its name and country. `maximum_consent_validity` is in seconds."""

    name: str
    country: str
    psu_types: list[str]
    maximum_consent_validity: int
    auth_methods: list[_Method] = []


class _Banks(msgspec.Struct, gc=False):
    aspsps: list[msgspec.Raw]


class Access(msgspec.Struct, gc=False):
    """What was consented to."""

    valid_until: str | None = None

    @property
    def ends_at(self) -> datetime | None:
        """When the consent ends; None if this cannot be read."""
        try:
            return moments.in_utc(datetime.fromisoformat(self.valid_until or ""), "valid_until")
        except (ValueError, BadRecord):
            return None


class _Where(msgspec.Struct, gc=False):
    name: str
    country: str


class _Ids(msgspec.Struct, gc=False):
    uid: str
    identification_hash: str
    identification_hashes: list[str] = []


class Session(msgspec.Struct, gc=False):
    """A session as it is now."""

    status: str
    accounts_data: list[_Ids]
    aspsp: _Where
    access: Access

    def require_authorised(self) -> None:
        """Raises `ReauthRequired` if the consent has ended, `NotReady` if it is not complete yet."""
        if self.status != "AUTHORIZED":
            word = self.status.lower() if self.status.isascii() and self.status.replace("_", "").isalpha() else "ended"
            raise SESSIONS.get(self.status, ReauthRequired)(f"session_{word}")

    def next_day(self, now: datetime) -> timedelta:
        """How long it takes until the bank's next day has begun."""
        zone = ZoneInfo(ZONES.get(self.aspsp.country, USUAL_ZONE))
        tomorrow = now.astimezone(zone).date() + timedelta(days=1)
        return datetime.combine(tomorrow, time(0, 5), zone) - now


class Authorised(msgspec.Struct, gc=False):
    """The answer to a code: a new session, and its accounts, which are described only here."""

    session_id: str
    accounts: list[msgspec.Raw]
    access: Access


_banks, _bank = reading.Reader(_Banks), reading.Reader(Bank)
session, authorised = reading.Reader(Session), reading.Reader(Authorised)
_kept = reading.Reader(list[Account])


def banks(body: bytes, countries: frozenset[str]) -> list[Bank]:
    """The banks of these countries, or of all. One that cannot be read is left out."""
    found, _ = reading.read_each(_banks.page(body).aspsps, "bank", _bank.record)
    return [bank for bank in found if not countries or bank.country in countries]


def choices(banks: Sequence[Bank]) -> Iterator[Choice]:
    """The banks as a user chooses among them: one choice for each type of user, and for each way to log in."""
    for bank in sorted(banks, key=lambda bank: (bank.country, bank.name.lower())):
        for kind in bank.psu_types:
            methods = [one for one in bank.auth_methods if one.psu_type == kind and one.name and not one.hidden_method]
            for method in methods if len(methods) > 1 else [None]:
                value = [bank.country, bank.name, kind, method and method.name]
                words = [bank.name, bank.country, kind, method and (method.title or method.name)]
                label = ", ".join(reading.without_nul(word) for word in words if word)
                yield Choice(msgspec.json.encode(value).decode(), label, bank.country)


def credential(session_id: str, accounts: Sequence[Account]) -> str:
    """The session's id with what is kept of its accounts, as one text."""
    text = base64.urlsafe_b64encode(msgspec.json.encode(list(accounts))).decode().rstrip("=")
    return f"{_CREDENTIAL}{session_id}.{text}"


def read_credential(text: str) -> tuple[str, list[Account]]:
    """The session's id, and its accounts as they were when it began. A plain session id has none."""
    session_id, _, kept = text.removeprefix(_CREDENTIAL).partition(".")
    try:
        return session_id, _kept.page(base64.urlsafe_b64decode(kept + "=" * (-len(kept) % 4)) or b"[]")
    except (binascii.Error, BadPayload):
        return session_id, []


class Listed(NamedTuple):
    """An account of the present session."""

    key: str
    currency: str
    uid: str

    @property
    def feed(self) -> str:
        """The feed of its transactions."""
        return f"account:{self.key}"


def listing(given: Session, accounts: Sequence[Account], cursor: str | None) -> tuple[Page, list[Listed]]:
    """A page with the accounts, and those of them that can be read.

    The key of an account is its identification hash; accounts with the same hash are told apart by their currency.
    """
    keys, memory = assign_keys([(one.hash, one.currency or "") for one in accounts], cursor)
    page = Page(feed=ACCOUNTS_FEED, cursor=memory, grant_expires_at=given.access.ends_at)
    found, rejects, problems, listed = [], [], [], []
    for one, key in zip(accounts, keys, strict=True):
        try:
            record = mapping.account_record(one, key, reading.without_nul(given.aspsp.name), given.aspsp.country)
        except BadRecord as error:
            rejects.append(reading.reject("account", error, msgspec.json.encode(one), account_key=key))
            continue
        found.append(record)
        if one.uid:
            listed.append(Listed(key, record.currency, one.uid))
        else:
            problems.append(AccountGone("account_unreadable", scope=Scope.ACCOUNT, account_key=key))
    page.accounts, page.rejects, page.problems = found, rejects, problems
    page.accounts_complete = bool(found) and not rejects
    return page, listed

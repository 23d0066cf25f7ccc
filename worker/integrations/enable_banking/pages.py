"""Banks, sessions and lists of accounts in Enable Banking's answers, without any HTTP."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

import msgspec

from worker.errors import AccountGone, BadRecord, NotReady, ProviderError, ReauthRequired, Scope
from worker.integrations.enable_banking import mapping
from worker.integrations.enable_banking.mapping import Account
from worker.integrations.enable_banking.vocabulary import UNFINISHED, USUAL_ZONE, ZONES
from worker.integrations.kit import account_keys, moments, reading
from worker.integrations.kit.base import Page
from worker.integrations.kit.kept_credential import KeptCredential
from worker.integrations.kit.link_kinds import Choice
from worker.models.records import AccountRecord

ACCOUNTS_FEED = "accounts"


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


class Access(msgspec.Struct, gc=False):
    """What was consented to."""

    valid_until: str | None = None

    @property
    def ends_at(self) -> datetime | None:
        """When the consent ends; None if this cannot be read."""
        try:
            return moments.of_text(self.valid_until, "valid_until")
        except BadRecord:
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
            raise (NotReady if self.status in UNFINISHED else ReauthRequired)(f"session_{word}")

    def next_day(self, now: datetime) -> timedelta:
        """How long it takes until the bank's next day has begun."""
        return moments.until_next_day(now, ZONES.get(self.aspsp.country, USUAL_ZONE))


class Authorised(msgspec.Struct, gc=False):
    """The answer to a code: a new session, and its accounts, which are described only here."""

    session_id: str
    accounts: list[msgspec.Raw]
    access: Access


class _Started(msgspec.Struct, gc=False):
    url: str


class _Transactions(msgspec.Struct, gc=False):
    transactions: list[msgspec.Raw]
    continuation_key: str | None = None


_banks, _bank, balances = reading.ListReader("aspsps"), reading.Reader(Bank), reading.ListReader("balances")
started, session, authorised = reading.Reader(_Started), reading.Reader(Session), reading.Reader(Authorised)
transactions = reading.Reader(_Transactions)
credential = KeptCredential("ebs", list[Account], list)
"""A session's id, and its accounts as they were when it began."""


def banks(body: bytes, countries: frozenset[str]) -> list[Bank]:
    """The banks of these countries, or of all. One that cannot be read is left out."""
    found, _ = reading.read_each(_banks.page(body), "bank", _bank.record)
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


Listed = tuple[str, AccountRecord]
"""An account of the present session, after its id there."""


def listing(
    given: Session, accounts: Sequence[Account], problems: Sequence[ProviderError], cursor: str | None
) -> tuple[Page, list[Listed]]:
    """A page with the accounts, and those of them that can be read; `problems` are those of accounts not described.

    The key of an account is its identification hash; accounts with the same hash are told apart by their currency.
    """
    page, found = account_keys.listing(
        accounts,
        lambda one: (one.hash, one.currency or ""),
        lambda one, key: mapping.account_record(one, key, reading.without_nul(given.aspsp.name), given.aspsp.country),
        msgspec.json.encode,
        feed=ACCOUNTS_FEED,
        cursor=cursor,
    )
    keys = [record.account_key for one, record in found if not one.uid]
    blocked = [AccountGone("account_unreadable", scope=Scope.ACCOUNT, account_key=key) for key in keys]
    page.problems, page.grant_expires_at = [*blocked, *problems], given.access.ends_at
    page.accounts_complete = page.accounts_complete and not problems
    return page, [(one.uid, record) for one, record in found if one.uid]

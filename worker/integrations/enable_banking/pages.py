"""Banks, sessions and accounts in Enable Banking's answers, without any HTTP."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

import msgspec

from worker.errors import AccountGone, NotReady, ProviderError, ReauthRequired, Scope
from worker.integrations.enable_banking.vocabulary import ACCOUNT_TYPES, UNFINISHED, USUAL_ZONE, ZONES
from worker.integrations.kit import account_keys, moments, money, reading
from worker.integrations.kit.base import Page
from worker.integrations.kit.kept_credential import KeptCredential
from worker.integrations.kit.link_kinds import Choice
from worker.integrations.kit.masking import last_four, without_numbers
from worker.models.records import AccountRecord
from worker.models.vocabulary import AccountStatus, AccountType

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


Offer = tuple[Bank, str, str | None]
"""A bank, a type of user, and a way to log in if there are several."""


class _Described(msgspec.Struct, gc=False):
    hash: str = msgspec.field(name="identification_hash")
    hashes: list[str] = msgspec.field(default_factory=list, name="identification_hashes")
    uid: str | None = None
    iban: str | None = msgspec.field(default=None, name="account_id.iban")
    number: str | None = msgspec.field(default=None, name="account_id.other.identification")
    details: str | None = None
    product: str | None = None
    currency: str | None = None
    kind: str | None = msgspec.field(default=None, name="cash_account_type")


class Account(msgspec.Struct, gc=False, omit_defaults=True):
    """What is kept of an account: its ids, and what is shown once. The number itself and the holder's name are not."""

    hash: str
    hashes: list[str] = []
    uid: str | None = None
    name: str = ""
    mask: str | None = None
    currency: str | None = None
    kind: str | None = None


class _Ids(msgspec.Struct, gc=False):
    uid: str
    identification_hash: str
    identification_hashes: list[str] = []


class Session(msgspec.Struct, gc=False):
    """A session as it is now."""

    status: str
    accounts_data: list[_Ids]
    bank: str = msgspec.field(name="aspsp.name")
    country: str = msgspec.field(name="aspsp.country")
    valid_until: str | None = msgspec.field(default=None, name="access.valid_until")

    def require_authorised(self) -> None:
        """Raises `ReauthRequired` if the consent has ended, `NotReady` if it is not complete yet."""
        if self.status != "AUTHORIZED":
            word = self.status.lower() if self.status.isascii() and self.status.replace("_", "").isalpha() else "ended"
            raise (NotReady if self.status in UNFINISHED else ReauthRequired)(f"session_{word}")

    def next_day(self, now: datetime) -> timedelta:
        """How long it takes until the bank's next day has begun."""
        return moments.until_next_day(now, ZONES.get(self.country, USUAL_ZONE))


class Authorised(msgspec.Struct, gc=False):
    """The answer to a code: a new session, and its accounts, which are described only here."""

    session_id: str
    accounts: list[msgspec.Raw]
    valid_until: str | None = msgspec.field(default=None, name="access.valid_until")


class _Transactions(msgspec.Struct, gc=False):
    transactions: list[msgspec.Raw]
    continuation_key: str | None = None


_banks, _bank, started = reading.ListReader("aspsps"), reading.Reader(Bank), reading.MemberReader("url", str)
session, authorised, _described = reading.Reader(Session), reading.Reader(Authorised), reading.Reader(_Described)
balances, transactions = reading.ListReader("balances"), reading.Reader(_Transactions)
credential = KeptCredential("ebs", list[Account], list)
"""A session's id, and its accounts as they were when it began."""


def offers(body: bytes, countries: frozenset[str]) -> dict[Choice, Offer]:
    """What may be chosen of the banks of these countries, or of all. A bank that cannot be read is left out."""
    banks, _ = reading.read_each(_banks.page(body), "bank", _bank.record)
    banks.sort(key=lambda bank: (bank.country, bank.name.lower()))
    return dict(offer for bank in banks if not countries or bank.country in countries for offer in _offers(bank))


def _offers(bank: Bank) -> Iterator[tuple[Choice, Offer]]:
    for kind in bank.psu_types:
        methods = [one for one in bank.auth_methods if one.psu_type == kind and one.name and not one.hidden_method]
        for method in methods if len(methods) > 1 else [_Method(kind)]:
            value = msgspec.json.encode([bank.country, bank.name, kind, method.name]).decode()
            words = [bank.name, bank.country, kind, method.title or method.name]
            label = ", ".join(reading.without_nul(word) for word in words if word)
            yield Choice(value, label, bank.country), (bank, kind, method.name)


def account(raw: bytes) -> Account:
    """What is kept of an account."""
    given = _described.record(reading.repaired(raw)[0])
    return Account(
        hash=given.hash,
        hashes=given.hashes,
        uid=given.uid,
        name=without_numbers(given.details or given.product or ""),
        mask=last_four(given.iban or given.number or "") or None,
        currency=given.currency,
        kind=given.kind,
    )


def _account_record(given: Account, key: str, session: Session) -> AccountRecord:
    """One account. All its hashes are stable; some of them may fit other accounts, too."""
    bank = reading.without_nul(session.bank)
    kind, subtype = ACCOUNT_TYPES.get(given.kind or "", (AccountType.OTHER, "other"))
    return AccountRecord(
        account_key=key,
        name=given.name or f"{bank} {given.mask or ''}".strip(),
        official_name=f"{bank} {given.name}".strip(),
        type=kind,
        subtype=subtype,
        mask=given.mask,
        currency=money.currency_or_address(given.currency or ""),
        status=AccountStatus.ACTIVE if given.uid else AccountStatus.INACCESSIBLE,
        provider_type=given.kind,
        institution=f"{bank}, {session.country}",
        stable_keys=tuple(dict.fromkeys(map(reading.without_nul, (given.hash, *given.hashes)))),
    )


def listing(
    given: Session, accounts: Sequence[Account], problems: Sequence[ProviderError], cursor: str | None
) -> tuple[Page, dict[str, AccountRecord]]:
    """A page with the accounts, and those that can be read, by their ids; `problems` are of accounts not described.

    The key of an account is its identification hash; accounts with the same hash are told apart by their currency.
    """
    page, found = account_keys.listing(
        accounts,
        lambda one: (one.hash, one.currency or ""),
        lambda one, key: _account_record(one, key, given),
        msgspec.json.encode,
        feed=ACCOUNTS_FEED,
        cursor=cursor,
    )
    keys = [record.account_key for one, record in found if not one.uid]
    blocked = [AccountGone("account_unreadable", scope=Scope.ACCOUNT, account_key=key) for key in keys]
    page.problems, page.grant_expires_at = [*blocked, *problems], moments.of_text_or_none(given.valid_until)
    page.accounts_complete = page.accounts_complete and not problems
    return page, {one.uid: record for one, record in found if one.uid}

"""Turns Enable Banking's answers into ours, without any HTTP."""

from __future__ import annotations

import re
from datetime import date, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any

import msgspec

from worker.errors import BadRecord, NotReady, ReauthRequired
from worker.integrations.enable_banking import vocabulary as words
from worker.integrations.kit import moments, money, reading, references
from worker.integrations.kit.base import RawRecord
from worker.integrations.kit.kept_credential import KeptCredential
from worker.integrations.kit.link_kinds import Choice
from worker.integrations.kit.session_accounts import Described
from worker.models.records import AccountRecord, BalanceRecord, TransactionRecord
from worker.models.vocabulary import AccountStatus, AccountType, TransactionStatus, TransactionType

_TRANSACTION_ID = re.compile(rb'"transaction_id"\s*:\s*"(?:[^"\\]|\\.)*"')


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


class _Account(msgspec.Struct, gc=False):
    identification_hash: str
    identification_hashes: list[str] = []
    uid: str | None = None
    iban: str | None = msgspec.field(default=None, name="account_id.iban")
    number: str | None = msgspec.field(default=None, name="account_id.other.identification")
    details: str | None = None
    product: str | None = None
    currency: str | None = None
    cash_account_type: str | None = None


class Authorised(msgspec.Struct, gc=False):
    """The answer to a code: a new session, and its accounts, which are described only here."""

    session_id: str
    accounts: list[msgspec.Raw]
    valid_until: str | None = msgspec.field(default=None, name="access.valid_until")


class Session(msgspec.Struct, gc=False):
    """A session as it is now. Of its accounts, nothing is stated but their ids."""

    status: str
    accounts_data: list[_Account]
    bank: str = msgspec.field(name="aspsp.name")
    country: str = msgspec.field(name="aspsp.country")
    valid_until: str | None = msgspec.field(default=None, name="access.valid_until")

    def require_authorised(self) -> None:
        """Raises `ReauthRequired` if the consent has ended, `NotReady` if it is not complete yet."""
        if self.status != "AUTHORIZED":
            word = self.status.lower() if self.status.isascii() and self.status.replace("_", "").isalpha() else "ended"
            raise (NotReady if self.status in words.UNFINISHED else ReauthRequired)(f"session_{word}")

    def next_day(self, now: datetime) -> timedelta:
        """How long it takes until the bank's next day has begun."""
        return moments.until_next_day(now, words.ZONES.get(self.country, words.USUAL_ZONE))


class _Balance(msgspec.Struct, gc=False):
    balance_type: str
    amount: Decimal = msgspec.field(name="balance_amount.amount")
    currency: str = msgspec.field(name="balance_amount.currency")
    credit_debit_indicator: str | None = None  # not in the specification, but some banks send it
    last_change_date_time: str | None = None
    reference_date: str | None = None


class _Transactions(msgspec.Struct, gc=False):
    transactions: list[msgspec.Raw]
    continuation_key: str | None = None


class _Transaction(msgspec.Struct, gc=False):
    credit_debit_indicator: str
    status: str
    amount: Decimal = msgspec.field(name="transaction_amount.amount")
    currency: str = msgspec.field(name="transaction_amount.currency")
    entry_reference: str | None = None
    transaction_id: str | None = None
    booking_date: date | None = None
    value_date: date | None = None
    transaction_date: date | None = None
    creditor: str | None = msgspec.field(default=None, name="creditor.name")
    debtor: str | None = msgspec.field(default=None, name="debtor.name")
    remittance_information: list[str] | None = None
    code: str | None = msgspec.field(default=None, name="bank_transaction_code.code")
    sub_code: str | None = msgspec.field(default=None, name="bank_transaction_code.sub_code")
    code_says: str | None = msgspec.field(default=None, name="bank_transaction_code.description")
    balance_after_transaction: Any = None
    merchant_category_code: str | None = None
    note: str | None = None

    @property
    def day(self) -> date | None:
        return self.booking_date or self.value_date or self.transaction_date


_banks, _bank, started = reading.ListReader("aspsps"), reading.Reader(Bank), reading.MemberReader("url", str)
session, authorised, _account = reading.Reader(Session), reading.Reader(Authorised), reading.Reader(_Account)
balances, _balance = reading.ListReader("balances"), reading.Reader(_Balance)
transactions, _transaction = reading.Reader(_Transactions), reading.Reader(_Transaction)
credential = KeptCredential("ebs", list[Described], list)
"""A session's id, and its accounts as they were when it began."""


def offers(body: bytes, countries: frozenset[str]) -> dict[Choice, Offer]:
    """What may be chosen of the banks of these countries, or of all. A bank that cannot be read is left out."""
    found = {}
    banks, _ = reading.read_each(_banks.page(body), "bank", _bank.record)
    for bank in sorted(banks, key=lambda bank: (bank.country, bank.name.lower())):
        for kind in bank.psu_types if not countries or bank.country in countries else ():
            methods = [one for one in bank.auth_methods if one.psu_type == kind and one.name and not one.hidden_method]
            for method in methods if len(methods) > 1 else [_Method(kind)]:
                value = msgspec.json.encode([bank.country, bank.name, kind, method.name]).decode()
                label = ", ".join(filter(None, [bank.name, bank.country, kind, method.title or method.name]))
                found[Choice(value, reading.without_nul(label), bank.country)] = bank, kind, method.name
    return found


def account(raw: bytes) -> Described:
    """What is kept of an account."""
    return described(_account.record(reading.repaired(raw)[0]))


def described(given: _Account) -> Described:
    """The same of an account that was read already; of a session that goes on, only its ids are stated."""
    ids = Described(given.identification_hash, given.identification_hashes, given.uid)
    ids.currency, ids.kind = given.currency, given.cash_account_type
    return ids.named(given.details or given.product, given.iban or given.number)


def account_record(given: Described, key: str, session: Session) -> AccountRecord:
    """One account. Raises `BadRecord` if its currency cannot be used."""
    bank = reading.without_nul(session.bank)
    kind, subtype = words.ACCOUNT_TYPES.get(given.kind or "", (AccountType.OTHER, "other"))
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
        stable_keys=given.stable_keys,
    )


def balance(raw: bytes, *, key: str) -> BalanceRecord:
    """One of an account's balances. Raises `BadRecord`."""
    given = _balance.record(raw)
    amount = money.checked(given.amount, "balance_amount")
    return BalanceRecord(
        account_key=key,
        current=money.negated(amount.copy_abs()) if given.credit_debit_indicator == "DBIT" else amount,
        source=given.balance_type,
        currency=money.currency_or_address(given.currency),
        as_of=moments.of_text(given.last_change_date_time or given.reference_date, "balance_date"),
    )


def _identity(raw: bytes) -> references.Identity:
    """By what a transaction is recognised. If it has no id in the answer, the balance after it tells it from others."""
    given = _transaction.record(reading.repaired(raw)[0])
    parties, told = [given.creditor, given.debtor], sorted(given.remittance_information or ())
    after = given.balance_after_transaction
    return references.Identity(
        None if words.NO_REFERENCE.fullmatch(given.entry_reference or "") else given.entry_reference,
        references.digest(
            str(given.day), str(given.amount), given.currency, given.credit_debit_indicator, parties, told
        ),
        given.transaction_id or (None if after is None else msgspec.json.encode(after).decode()),
        given.day,
    )


Rows = partial(references.Rows, _identity, stored=lambda raw: _TRANSACTION_ID.sub(b'"transaction_id":null', raw))
"""Gives the rows of an account their keys. The id in the answer, which is another one each time, is not stored."""


def transaction(row: RawRecord, *, today: date) -> TransactionRecord:
    """One transaction. `today` is the day of a pending one for which the bank states none. Raises `BadRecord`."""
    given, flags = _transaction.row(row)
    status = words.STATUSES.get(given.status)
    if status is None:
        status, flags = TransactionStatus.POSTED, (*flags, "status_unknown")
    day = given.day
    if day is None and status != TransactionStatus.PENDING:
        raise BadRecord("date_missing")
    amount = money.checked(given.amount, "amount")
    if amount < 0:
        amount, flags = amount.copy_abs(), (*flags, "sign_by_indicator")
    if given.credit_debit_indicator not in ("CRDT", "DBIT"):
        raise BadRecord("credit_debit_indicator_unknown")
    is_debit = given.credit_debit_indicator == "DBIT"
    return TransactionRecord(
        account_key=row.account_key,
        transaction_key=row.key,
        type=TransactionType.PAYMENT if given.merchant_category_code else TransactionType.OTHER,
        status=status,
        amount=money.negated(amount) if is_debit else amount,
        currency=money.currency_or_address(given.currency),
        posted_date=moments.day(day or today, "date"),
        settlement_date=None if given.value_date is None else moments.day(given.value_date, "value_date"),
        description=" ".join(given.remittance_information or ()) or given.code_says or given.note,
        counterparty=given.creditor if is_debit else given.debtor,
        provider_type="-".join(filter(None, (given.code, given.sub_code))) or None,
        flags=flags,
    )

"""Turns Enable Banking's answers into ours, without any HTTP."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal
from functools import partial
from typing import Any

import msgspec

from worker.errors import BadRecord
from worker.integrations.enable_banking.vocabulary import ACCOUNT_TYPES, AVAILABLE, CURRENT, NO_REFERENCE, STATUSES
from worker.integrations.kit import moments, money, reading, references
from worker.integrations.kit.base import RawRecord
from worker.integrations.kit.masking import last_four, without_numbers
from worker.models.records import AccountRecord, BalanceRecord, TransactionRecord
from worker.models.vocabulary import AccountStatus, AccountType, TransactionStatus, TransactionType

_TRANSACTION_ID = re.compile(rb'"transaction_id"\s*:\s*"(?:[^"\\]|\\.)*"')


class _Other(msgspec.Struct, gc=False):
    identification: str


class _Number(msgspec.Struct, gc=False):
    iban: str | None = None
    other: _Other | None = None


class _Account(msgspec.Struct, gc=False):
    identification_hash: str
    identification_hashes: list[str] = []
    uid: str | None = None
    account_id: _Number | None = None
    details: str | None = None
    product: str | None = None
    currency: str | None = None
    cash_account_type: str | None = None


class Account(msgspec.Struct, gc=False, omit_defaults=True):
    """What is kept of an account: its ids, and what is shown once. The number itself and the holder's name are not."""

    hash: str
    hashes: list[str] = []
    uid: str | None = None
    name: str = ""
    mask: str | None = None
    currency: str | None = None
    kind: str | None = None


class _Amount(msgspec.Struct, gc=False):
    amount: Decimal
    currency: str


class _Balance(msgspec.Struct, gc=False):
    balance_amount: _Amount
    balance_type: str
    credit_debit_indicator: str | None = None  # not in the specification, but some banks send it
    last_change_date_time: datetime | None = None
    reference_date: date | None = None


class _Party(msgspec.Struct, gc=False):
    name: str | None = None


class _Code(msgspec.Struct, gc=False):
    description: str | None = None
    code: str | None = None
    sub_code: str | None = None


class _Transaction(msgspec.Struct, gc=False):
    transaction_amount: _Amount
    credit_debit_indicator: str
    status: str
    entry_reference: str | None = None
    transaction_id: str | None = None
    booking_date: date | None = None
    value_date: date | None = None
    transaction_date: date | None = None
    creditor: _Party | None = None
    debtor: _Party | None = None
    remittance_information: list[str] | None = None
    bank_transaction_code: _Code | None = None
    balance_after_transaction: Any = None
    merchant_category_code: str | None = None
    note: str | None = None

    @property
    def day(self) -> date | None:
        return self.booking_date or self.value_date or self.transaction_date


_account = reading.Reader(_Account)
_balance, _transaction = reading.Reader(_Balance), reading.Reader(_Transaction)


def account(raw: bytes) -> Account:
    """What is kept of an account."""
    given = _account.record(reading.repaired(raw)[0])
    number = given.account_id or _Number()
    text = number.iban or (number.other.identification if number.other else "")
    return Account(
        hash=given.identification_hash,
        hashes=given.identification_hashes,
        uid=given.uid,
        name=without_numbers(given.details or given.product or ""),
        mask=last_four(text) or None,
        currency=given.currency,
        kind=given.cash_account_type,
    )


def account_record(given: Account, key: str, bank: str, country: str) -> AccountRecord:
    """One account. Raises `BadRecord` if its currency cannot be used.

    All its hashes are stable; some of them may fit other accounts, too.
    """
    kind, subtype = ACCOUNT_TYPES.get(given.kind or "", (AccountType.OTHER, "other"))
    name = given.name or f"{bank} {given.mask or ''}".strip()
    return AccountRecord(
        account_key=key,
        name=name,
        official_name=f"{bank} {given.name}".strip(),
        type=kind,
        subtype=subtype,
        mask=given.mask,
        currency=money.currency_or_address(given.currency or ""),
        status=AccountStatus.ACTIVE if given.uid else AccountStatus.INACCESSIBLE,
        provider_type=given.kind,
        institution=f"{bank}, {country}",
        stable_keys=tuple(dict.fromkeys(map(reading.without_nul, (given.hash, *given.hashes)))),
    )


def balance_records(given: Sequence[_Balance], key: str, currency: str) -> list[BalanceRecord]:
    """The account's balance: of the kinds that the bank states, the first in the order of preference."""
    own = [one for one in given if one.balance_amount.currency == currency] or given
    by_kind = {one.balance_type: one for one in reversed(own)}
    stated = next((by_kind[kind] for kind in CURRENT if kind in by_kind), own[0] if own else None)
    if stated is None:
        return []
    available = next((by_kind[kind] for kind in AVAILABLE if kind in by_kind), None)
    as_of = stated.last_change_date_time
    if as_of is None and stated.reference_date is not None:
        as_of = datetime.combine(stated.reference_date, time(), UTC)
    record = BalanceRecord(
        account_key=key,
        current=_signed(stated),
        available=None if available is None else _signed(available),
        source=reading.without_nul(stated.balance_type),
        currency=money.currency_or_address(stated.balance_amount.currency),
        as_of=None if as_of is None else moments.in_utc(as_of, "last_change_date_time"),
    )
    return [record]


def balance(raw: bytes) -> _Balance:
    """One of an account's balances. Raises `BadRecord`."""
    given = _balance.record(raw)
    _signed(given)
    money.currency_or_address(given.balance_amount.currency)
    return given


def _signed(given: _Balance) -> Decimal:
    amount = money.checked(given.balance_amount.amount, "balance_amount")
    return money.negated(amount.copy_abs()) if given.credit_debit_indicator == "DBIT" else amount


def _identity(raw: bytes) -> references.Identity:
    """By what a transaction is recognised. If it has no id in the answer, the balance after it tells it from others."""
    given = _transaction.record(reading.repaired(raw)[0])
    parties = [party and party.name for party in (given.creditor, given.debtor)]
    amount, words = given.transaction_amount, sorted(given.remittance_information or ())
    after = given.balance_after_transaction
    return references.Identity(
        None if NO_REFERENCE.fullmatch(given.entry_reference or "") else given.entry_reference,
        references.digest(
            str(given.day), str(amount.amount), amount.currency, given.credit_debit_indicator, parties, words
        ),
        given.transaction_id or (None if after is None else msgspec.json.encode(after).decode()),
        given.day,
    )


Rows = partial(references.Rows, _identity, stored=lambda raw: _TRANSACTION_ID.sub(b'"transaction_id":null', raw))
"""Gives the rows of an account their keys. The id in the answer, which is another one each time, is not stored."""


def mapper(today: date) -> Any:
    """Reads transactions. `today` is the day of a pending one for which the bank states none."""
    return partial(_mapped, today=today)


def _mapped(row: RawRecord, *, today: date) -> TransactionRecord:
    given, flags = _transaction.row(row)
    status = STATUSES.get(given.status)
    if status is None:
        status, flags = TransactionStatus.POSTED, (*flags, "status_unknown")
    day = given.day
    if day is None and status != TransactionStatus.PENDING:
        raise BadRecord("date_missing")
    amount = money.checked(given.transaction_amount.amount, "amount")
    if amount < 0:
        amount, flags = amount.copy_abs(), (*flags, "sign_by_indicator")
    if given.credit_debit_indicator not in ("CRDT", "DBIT"):
        raise BadRecord("credit_debit_indicator_unknown")
    is_debit = given.credit_debit_indicator == "DBIT"
    other, code = given.creditor if is_debit else given.debtor, given.bank_transaction_code or _Code()
    return TransactionRecord(
        account_key=row.account_key,
        transaction_key=row.key,
        type=TransactionType.PAYMENT if given.merchant_category_code else TransactionType.OTHER,
        status=status,
        amount=money.negated(amount) if is_debit else amount,
        currency=money.currency_or_address(given.transaction_amount.currency),
        posted_date=moments.day(day or today, "date"),
        settlement_date=None if given.value_date is None else moments.day(given.value_date, "value_date"),
        description=" ".join(given.remittance_information or ()) or code.description or given.note,
        counterparty=other.name if other else None,
        provider_type="-".join(part for part in (code.code, code.sub_code) if part) or None,
        flags=flags,
    )

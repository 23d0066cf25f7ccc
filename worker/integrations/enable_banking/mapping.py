"""Maps Enable Banking's balances and transactions to ours, without any HTTP."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date
from decimal import Decimal
from functools import partial
from typing import Any

import msgspec

from worker.errors import BadRecord
from worker.integrations.enable_banking.vocabulary import AVAILABLE, CURRENT, NO_REFERENCE, STATUSES
from worker.integrations.kit import moments, money, reading, references
from worker.integrations.kit.base import RawRecord
from worker.models.records import BalanceRecord, TransactionRecord
from worker.models.vocabulary import TransactionStatus, TransactionType

_TRANSACTION_ID = re.compile(rb'"transaction_id"\s*:\s*"(?:[^"\\]|\\.)*"')


class _Balance(msgspec.Struct, gc=False):
    balance_type: str
    amount: Decimal = msgspec.field(name="balance_amount.amount")
    currency: str = msgspec.field(name="balance_amount.currency")
    credit_debit_indicator: str | None = None  # not in the specification, but some banks send it
    last_change_date_time: str | None = None
    reference_date: str | None = None


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


_balance, _transaction = reading.Reader(_Balance), reading.Reader(_Transaction)


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


def preferred(stated: Sequence[BalanceRecord], currency: str) -> list[BalanceRecord]:
    """The account's balance: of the kinds that the bank states, the first in the order of preference."""
    if not stated:
        return []
    own = [one for one in stated if one.currency == currency] or stated
    by_kind = {one.source: one for one in reversed(own)}
    current = next((by_kind[kind] for kind in CURRENT if kind in by_kind), own[0])
    available = next((by_kind[kind].current for kind in AVAILABLE if kind in by_kind), None)
    return [msgspec.structs.replace(current, available=available)]


def _identity(raw: bytes) -> references.Identity:
    """By what a transaction is recognised. If it has no id in the answer, the balance after it tells it from others."""
    given = _transaction.record(reading.repaired(raw)[0])
    parties, words = [given.creditor, given.debtor], sorted(given.remittance_information or ())
    after = given.balance_after_transaction
    return references.Identity(
        None if NO_REFERENCE.fullmatch(given.entry_reference or "") else given.entry_reference,
        references.digest(
            str(given.day), str(given.amount), given.currency, given.credit_debit_indicator, parties, words
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
        provider_type="-".join(part for part in (given.code, given.sub_code) if part) or None,
        flags=flags,
    )

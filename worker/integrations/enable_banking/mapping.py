"""Turns Enable Banking's answers into ours, without any HTTP."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal
from functools import partial
from typing import Any

import msgspec

from worker.errors import BadRecord
from worker.integrations.enable_banking.vocabulary import ACCOUNT_TYPES, AVAILABLE, CURRENT, NO_REFERENCE, STATUSES
from worker.integrations.kit import json_text, moments, money, reading
from worker.integrations.kit.base import RawRecord, Removal
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

    @property
    def reference(self) -> str | None:
        """The entry reference, if it names this transaction."""
        return None if NO_REFERENCE.fullmatch(self.entry_reference or "") else self.entry_reference

    def content(self) -> str:
        """A digest of what stays the same when a list is retrieved again. Numbers of accounts are not in it."""
        parties = [party and party.name for party in (self.creditor, self.debtor)]
        amount, words = self.transaction_amount, sorted(self.remittance_information or ())
        parts = [str(self.day), str(amount.amount), amount.currency, self.credit_debit_indicator, parties, words]
        return f"content:{hashlib.blake2b(msgspec.json.encode(parts), digest_size=16).hexdigest()}"

    def twin(self) -> str | None:
        """What only one transaction of an answer has: its id there, else the balance after it. None if neither is."""
        after = self.balance_after_transaction
        return self.transaction_id or (None if after is None else msgspec.json.encode(after).decode())


given_account = reading.Reader(_Account)
_balance, _transaction = reading.Reader(_Balance), reading.Reader(_Transaction)


def account(raw: bytes) -> Account:
    """What is kept of an account."""
    given = given_account.record(reading.repaired(raw)[0])
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


def balance_record(given: Sequence[_Balance], key: str, currency: str) -> BalanceRecord | None:
    """The account's balance: of the kinds that the bank states, the first in the order of preference."""
    own = [one for one in given if one.balance_amount.currency == currency] or given
    by_kind = {one.balance_type: one for one in reversed(own)}
    stated = next((by_kind[kind] for kind in CURRENT if kind in by_kind), own[0] if own else None)
    if stated is None:
        return None
    available = next((by_kind[kind] for kind in AVAILABLE if kind in by_kind), None)
    as_of = stated.last_change_date_time
    if as_of is None and stated.reference_date is not None:
        as_of = datetime.combine(stated.reference_date, time(), UTC)
    return BalanceRecord(
        account_key=key,
        current=_signed(stated),
        available=None if available is None else _signed(available),
        source=reading.without_nul(stated.balance_type),
        currency=money.currency_or_address(stated.balance_amount.currency),
        as_of=None if as_of is None else moments.in_utc(as_of, "last_change_date_time"),
    )


def balance(raw: bytes) -> _Balance:
    """One of an account's balances. Raises `BadRecord`."""
    given = _balance.record(raw)
    _signed(given)
    money.currency_or_address(given.balance_amount.currency)
    return given


def _signed(given: _Balance) -> Decimal:
    amount = money.checked(given.balance_amount.amount, "balance_amount")
    return money.negated(amount.copy_abs()) if given.credit_debit_indicator == "DBIT" else amount


class Rows:
    """Gives the rows of one list their keys, answer by answer.

    The key is the entry reference. Without one it is a digest of the content, with a number where several rows have the
    same content. A transaction that is listed under two references keeps the smaller one.

    Args:
        account_key: the account.
        seen: how often each content was listed so far, as far as the next answers may go on with it.
    """

    def __init__(self, account_key: str, seen: Iterable[tuple[str, int]] = ()) -> None:
        self._account_key = account_key
        self._seen = Counter(dict(seen))
        self._named = Counter[str]()
        self.last_day: dict[str, int] = {}

    def split(self, raws: Sequence[msgspec.Raw]) -> reading.Split:
        """The rows of an answer, not yet read."""
        smallest = self._smallest(raws)
        kept: list[msgspec.Raw] = []
        last: date | None = None
        today: dict[str, int] = {}

        def key_of(raw: msgspec.Raw) -> tuple[str, str]:
            nonlocal last, today
            given = _transaction.record(reading.repaired(bytes(raw))[0])
            content = given.content()
            if given.reference is not None:
                self._named[content] += 1
                return given.reference, self._account_key
            self._seen[content] += 1
            last, today = given.day, today if given.day == last else {}
            today[content] = number = self._seen[content]
            return _numbered(content, number), self._account_key

        for raw in raws:
            named = smallest.get(bytes(raw))
            if named is None or named:
                kept.append(raw)
        found = reading.split(kept, key_of)
        self.last_day = today
        rows = [row._replace(raw=_TRANSACTION_ID.sub(b'"transaction_id":null', row.raw)) for row in found.rows]
        return reading.Split(rows, found.rejects)

    def had_no_reference(self) -> list[Removal]:
        """Keys that rows of this list had, if they were listed without a reference before."""
        return [
            Removal(_numbered(content, self._seen[content] + number), self._account_key)
            for content, times in self._named.items()
            for number in range(1, times + 1)
        ]

    def _smallest(self, raws: Sequence[msgspec.Raw]) -> dict[bytes, bool]:
        """Of rows that are one transaction under several references, whether each has the smallest reference."""
        groups: dict[tuple[str, str], list[tuple[str, bytes]]] = {}
        for raw in raws:
            try:
                given = _transaction.record(raw)
            except BadRecord:
                continue
            twin = given.twin()
            if given.reference is not None and twin is not None:
                groups.setdefault((given.content(), twin), []).append((given.reference, bytes(raw)))
        several = [sorted(group) for group in groups.values() if len({name for name, _ in group}) > 1]
        return {raw: name == group[0][0] for group in several for name, raw in group}


def _numbered(content: str, number: int) -> str:
    return content if number == 1 else f"{content}:{number}"


def mapper(today: date) -> Any:
    """Reads transactions. `today` is the day of a pending one for which the bank states none."""
    return partial(_mapped, today=today)


def _mapped(row: RawRecord, *, today: date) -> TransactionRecord:
    raw, flags = reading.cleaned(row.raw)
    json_text.check_all_keys_once(raw)
    given = _transaction.record(raw)
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

"""The nouns: each is defined once, with its table, the record that fills it, and how a record becomes a row."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import msgspec

from worker.crud.sync.noun import NO_SCOPE, Entry, Listed, Row, noun_of
from worker.models import Account, Balance, Holding, Liability, Security, Transaction
from worker.models.records import (
    AccountRecord,
    BalanceRecord,
    HoldingRecord,
    LiabilityRecord,
    SecurityRecord,
    TransactionRecord,
)

ACCOUNTS = noun_of(
    Account,
    AccountRecord,
    scope="provider_id",
    key="provider_account_id",
    named={"provider_account_id": "account_key"},
    given=("provider_id", "stable_keys", "content_hash", "run_id"),
    not_of_pages=("opening", "opening_from", "created_at"),
)

BALANCES = noun_of(
    Balance,
    BalanceRecord,
    scope="account_id",
    key="source",
    given=("account_id", "content_hash", "run_id", "taken_at"),
    snapshots=True,
)

SECURITIES = noun_of(
    Security,
    SecurityRecord,
    scope=None,
    key="key",
    given=("source", "content_hash"),
    kept=frozenset({"source"}),
    shared=True,
)

HOLDINGS = noun_of(
    Holding,
    HoldingRecord,
    scope="account_id",
    key="holding_key",
    given=("account_id", "security_id", "closed_at", "content_hash", "run_id"),
    not_of_pages=("opening_quantity",),
)

LIABILITIES = noun_of(
    Liability,
    LiabilityRecord,
    scope="account_id",
    key="liability_key",
    given=("account_id", "closed_at", "content_hash", "run_id"),
)

TRANSACTIONS = noun_of(
    Transaction,
    TransactionRecord,
    scope="account_id",
    key="provider_transaction_id",
    given=("account_id", "provider_transaction_id", "security_id", "flags", "content_hash", "loop_id", "run_id"),
    kept=frozenset({"loop_id"}),
)


def record_hash(record: msgspec.Struct, *without: str, salt: str = "") -> bytes:
    """Content hash of a record, without the fields that change although nothing has happened."""
    fields: dict[str, Any] = msgspec.to_builtins(record)
    for name in without:
        fields.pop(name, None)
    return hashlib.blake2b(salt.encode() + msgspec.json.encode(fields, order="sorted"), digest_size=16).digest()


def raw_hasher(integration: str, mapping_version: int) -> Callable[[Sequence[bytes]], list[bytes]]:
    """A function for content hashes of raw records; a new mapping version gives every record another hash."""
    start = hashlib.blake2b(f"{integration}:{mapping_version}|".encode(), digest_size=16)

    def content_hashes(raws: Sequence[bytes]) -> list[bytes]:
        hashes = []
        for raw in raws:
            state = start.copy()
            state.update(raw)
            hashes.append(state.digest())
        return hashes

    return content_hashes


def account(record: AccountRecord, provider_id: bytes, run_id: bytes) -> Listed:
    """An account of a provider, ready to be stored."""
    content_hash = record_hash(record)
    given = {"stable_keys": list(record.stable_keys) or None, "content_hash": content_hash}
    values = ACCOUNTS.values(record, provider_id=provider_id, run_id=run_id, **given)
    return Listed(Entry(provider_id, record.account_key, content_hash), values)


def balance(record: BalanceRecord, account_id: bytes, run_id: bytes, now: datetime) -> Listed:
    """A snapshot. Its hash includes the day, so that there is one each day, and leaves out `as_of`."""
    content_hash = record_hash(record, "as_of", salt=now.date().isoformat())
    values = BALANCES.values(record, account_id=account_id, content_hash=content_hash, run_id=run_id, taken_at=now)
    return Listed(Entry(account_id, record.source, content_hash), values)


def security(record: SecurityRecord, source: str) -> Listed:
    """A security as the integration `source` describes it."""
    content_hash = record_hash(record, salt=source)
    values = SECURITIES.values(record, source=source, content_hash=content_hash)
    return Listed(Entry(NO_SCOPE, record.key, content_hash), values)


def holding(record: HoldingRecord, account_id: bytes, security_id: bytes, run_id: bytes) -> Listed:
    """An open position."""
    content_hash = record_hash(record)
    values = HOLDINGS.values(
        record,
        account_id=account_id,
        security_id=security_id,
        closed_at=None,
        content_hash=content_hash,
        run_id=run_id,
    )
    return Listed(Entry(account_id, record.holding_key, content_hash), values)


def liability(record: LiabilityRecord, account_id: bytes, run_id: bytes) -> Listed:
    """A card's or loan's terms, ready to be stored."""
    content_hash = record_hash(record)
    values = LIABILITIES.values(record, account_id=account_id, closed_at=None, content_hash=content_hash, run_id=run_id)
    return Listed(Entry(account_id, record.liability_key, content_hash), values)


def transaction(
    record: TransactionRecord,
    *,
    row_id: bytes,
    account_id: bytes,
    key: str,
    security_id: bytes | None,
    content_hash: bytes,
    loop_id: bytes | None,
    run_id: bytes,
) -> Row:
    """A transaction's row."""
    values = TRANSACTIONS.values(
        record,
        account_id=account_id,
        provider_transaction_id=key,
        security_id=security_id,
        flags=list(record.flags) or None,
        content_hash=content_hash,
        loop_id=loop_id,
        run_id=run_id,
    )
    return (row_id, *values)

"""The nouns that a page brings, each as the apply engine sees it, and how a normalised record becomes its row."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import msgspec

from worker.crud.sync.apply import NO_SCOPE, Entry, Listed, Row
from worker.crud.sync.table import Noun
from worker.models.records import AccountRecord, BalanceRecord, HoldingRecord, SecurityRecord, TransactionRecord

ACCOUNTS = Noun(
    name="accounts",
    scope="provider_id",
    key="provider_account_id",
    columns={
        "id": "uuid",
        "provider_id": "uuid",
        "provider_account_id": "text",
        "provider_ref": "text",
        "name": "text",
        "official_name": "text",
        "mask": "text",
        "type": "text",
        "subtype": "text",
        "provider_type": "text",
        "provider_subtype": "text",
        "margin": "bool",
        "currency": "text",
        "status": "text",
        "content_hash": "bytea",
        "run_id": "uuid",
    },
)

BALANCES = Noun(
    name="balances",
    scope="account_id",
    key="source",
    snapshots=True,
    columns={
        "id": "uuid",
        "account_id": "uuid",
        "source": "text",
        "current": "numeric",
        "available": "numeric",
        "credit_limit": "numeric",
        "cash": "numeric",
        "market_value": "numeric",
        "currency": "text",
        "as_of": "timestamptz",
        "content_hash": "bytea",
        "run_id": "uuid",
        "taken_at": "timestamptz",
    },
)

SECURITIES = Noun(
    name="securities",
    scope=None,
    key="key",
    kept=frozenset({"source"}),
    columns={
        "id": "uuid",
        "key": "text",
        "type": "text",
        "symbol": "text",
        "name": "text",
        "cusip": "text",
        "isin": "text",
        "currency": "text",
        "multiplier": "numeric",
        "source": "text",
        "content_hash": "bytea",
    },
)

HOLDINGS = Noun(
    name="holdings",
    scope="account_id",
    key="holding_key",
    columns={
        "id": "uuid",
        "account_id": "uuid",
        "holding_key": "text",
        "security_id": "uuid",
        "quantity": "numeric",
        "market_value": "numeric",
        "price": "numeric",
        "average_price": "numeric",
        "cost_basis": "numeric",
        "currency": "text",
        "as_of": "date",
        "closed_at": "timestamptz",
        "content_hash": "bytea",
        "run_id": "uuid",
    },
)

TRANSACTIONS = Noun(
    name="transactions",
    scope="account_id",
    key="provider_transaction_id",
    kept=frozenset({"loop_id"}),
    columns={
        "id": "uuid",
        "account_id": "uuid",
        "provider_transaction_id": "text",
        "type": "text",
        "subtype": "text",
        "status": "text",
        "amount": "numeric",
        "currency": "text",
        "posted_date": "date",
        "occurred_at": "timestamptz",
        "settlement_date": "date",
        "description": "text",
        "counterparty": "text",
        "category": "text",
        "security_id": "uuid",
        "quantity": "numeric",
        "price": "numeric",
        "fees": "numeric",
        "pending_key": "text",
        "provider_type": "text",
        "flags": "text[]",
        "content_hash": "bytea",
        "loop_id": "uuid",
        "run_id": "uuid",
    },
)

TOMBSTONE_HASH = b""
"""Content hash of what the provider has withdrawn: unlike any other, so that a record listed again is read anew."""


def record_hash(record: msgspec.Struct, *without: str, salt: str = "") -> bytes:
    """Content hash of a small noun's record, leaving out fields that move without anything having changed."""
    fields: dict[str, Any] = msgspec.to_builtins(record)
    for name in without:
        fields.pop(name, None)
    return hashlib.blake2b(salt.encode() + msgspec.json.encode(fields, order="sorted"), digest_size=16).digest()


def raw_hasher(integration: str, mapping_version: int) -> Callable[[Sequence[bytes]], list[bytes]]:
    """Content hashes of records as received; a new mapping version makes every record differ."""
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
    """An account of a provider."""
    content_hash = record_hash(record)
    values = (
        provider_id,
        record.account_key,
        record.provider_ref,
        record.name,
        record.official_name,
        record.mask,
        record.type,
        record.subtype,
        record.provider_type,
        record.provider_subtype,
        record.margin,
        record.currency,
        record.status,
        content_hash,
        run_id,
    )
    return Listed(Entry(provider_id, record.account_key, content_hash), values)


def balance(record: BalanceRecord, account_id: bytes, run_id: bytes, now: datetime) -> Listed:
    """A snapshot; its hash has the day, so that there is one a day even when nothing moves, and no `as_of`."""
    content_hash = record_hash(record, "as_of", salt=now.date().isoformat())
    values = (
        account_id,
        record.source,
        record.current,
        record.available,
        record.credit_limit,
        record.cash,
        record.market_value,
        record.currency,
        record.as_of,
        content_hash,
        run_id,
        now,
    )
    return Listed(Entry(account_id, record.source, content_hash), values)


def security(record: SecurityRecord, source: str) -> Listed:
    """An instrument in the words of the integration `source`."""
    content_hash = record_hash(record, salt=source)
    values = (
        record.key,
        record.type,
        record.symbol,
        record.name,
        record.cusip,
        record.isin,
        record.currency,
        record.multiplier,
        source,
        content_hash,
    )
    return Listed(Entry(NO_SCOPE, record.key, content_hash), values)


def holding(record: HoldingRecord, account_id: bytes, security_id: bytes, run_id: bytes) -> Listed:
    """An open position."""
    content_hash = record_hash(record)
    values = (
        account_id,
        record.holding_key,
        security_id,
        record.quantity,
        record.market_value,
        record.price,
        record.average_price,
        record.cost_basis,
        record.currency,
        record.as_of,
        None,
        content_hash,
        run_id,
    )
    return Listed(Entry(account_id, record.holding_key, content_hash), values)


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
    return (
        row_id,
        account_id,
        key,
        record.type,
        record.subtype,
        record.status,
        record.amount,
        record.currency,
        record.posted_date,
        record.occurred_at,
        record.settlement_date,
        record.description,
        record.counterparty,
        record.category,
        security_id,
        record.quantity,
        record.price,
        record.fees,
        record.pending_key,
        record.provider_type,
        list(record.flags) or None,
        content_hash,
        loop_id,
        run_id,
    )

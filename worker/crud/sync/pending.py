"""Finds which posted transaction replaces which pending one, and which pending ones come from an old page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

import msgspec

from worker.crud.sync.apply import Texts, Uuids, is_safe_key, texts, uuids
from worker.crud.sync.nouns import TRANSACTIONS
from worker.crud.sync.work import Work
from worker.models.records import TransactionRecord
from worker.models.vocabulary import TransactionStatus

_PENDING = TransactionStatus.PENDING


class ReadAnew(msgspec.Struct, gc=False):
    """A record that is new or changed, after mapping."""

    record: TransactionRecord
    scope: bytes
    key: str
    hash: bytes
    stored_id: bytes | None


class StoredRow(NamedTuple):
    """A stored row that a page may replace or withdraw."""

    id: bytes
    account_id: bytes
    key: str
    status: str
    amount: Decimal
    description: str | None


def without_superseded(work: Work, read: list[ReadAnew]) -> tuple[list[ReadAnew], dict[tuple[bytes, str], str]]:
    """Leaves out pending rows whose successor is also stored or listed: they come from an old page.

    Returns:
        The others. And for those left out, by account and key, the keys of the rows that they had replaced.
    """
    pending = [one for one in read if one.record.status is _PENDING]
    if not pending:
        return read, {}
    successors = {(one.scope, one.record.pending_key) for one in read if one.record.pending_key not in (None, one.key)}
    found = work.connection.execute(
        "SELECT t.account_id, t.pending_key"
        " FROM unnest(%s, %s) AS k(account_id, key)"
        " JOIN transactions t ON t.account_id = k.account_id AND t.pending_key = k.key"
        " WHERE t.status <> 'removed'",
        _pairs((one.scope, one.key) for one in pending),
    )
    successors |= {(account_id.bytes, key) for account_id, key in found}
    superseded = [one for one in pending if (one.scope, one.key) in successors]
    left_out = {id(one) for one in superseded}
    work.tally.add(TRANSACTIONS.name, unchanged=len(superseded))
    replaced = {(one.scope, one.key): key for one in superseded if (key := one.record.pending_key) is not None}
    return [one for one in read if id(one) not in left_out], replaced


def take_over(
    work: Work,
    read: Sequence[ReadAnew],
    superseded: Mapping[tuple[bytes, str], str],
    withdrawn: Sequence[StoredRow],
) -> tuple[dict[bytes, bool], list[StoredRow]]:
    """Gives posted rows the ids of the pending rows that they replace, directly or through `superseded` ones.

    Returns:
        The ids that were taken over, each with whether the row was live. And the replaced rows whose successor has its
        own row already.
    """
    taken: dict[bytes, bool] = {}
    replaced: list[StoredRow] = []
    linked = [
        (one, _predecessors(one, superseded))
        for one in read
        if (key := one.record.pending_key) is not None and key != one.key
    ]
    row_keys = [(one.scope, key) for one, keys in linked for key in keys]
    by_row_key = {(row.account_id, row.key): row for row in stored_rows(work, row_keys)}
    settled = set[tuple[bytes, str]]()
    if by_row_key:
        settled = {(one.scope, one.key) for one in read if one.record.status != TransactionStatus.PENDING}
    for one, keys in linked:
        for key in keys:
            row = by_row_key.get((one.scope, key))
            if row is None or row.id in taken or (one.scope, key) in settled:  # a posted record keeps its own row
                continue
            if row.status in (TransactionStatus.POSTED, TransactionStatus.CANCELED):
                continue
            if one.stored_id is None:
                one.stored_id = row.id
                taken[row.id] = row.status != TransactionStatus.REMOVED
            elif row.status != TransactionStatus.REMOVED:
                replaced.append(row)
    for one, row in _unique_matches(read, [row for row in withdrawn if row.id not in taken]):
        one.stored_id = row.id
        taken[row.id] = True
    return taken, replaced


def _predecessors(one: ReadAnew, superseded: Mapping[tuple[bytes, str], str]) -> list[str]:
    """The key of the row that this one replaces, and the keys of rows before it that were never stored."""
    keys: list[str] = []
    key = one.record.pending_key
    while key is not None and key not in keys:
        keys.append(key)
        key = superseded.get((one.scope, key))
    return keys


def _unique_matches(read: Sequence[ReadAnew], withdrawn: Sequence[StoredRow]) -> list[tuple[ReadAnew, StoredRow]]:
    """Pairs of a posted row and a missing pending row that have the same values, where neither fits another row."""
    if not withdrawn:
        return []
    new: dict[tuple[Any, ...], list[ReadAnew]] = {}
    for one in read:
        if one.stored_id is None and one.record.status == TransactionStatus.POSTED and one.record.pending_key is None:
            alike = (one.scope, one.record.amount, one.record.description)
            new.setdefault(alike, []).append(one)
    old: dict[tuple[Any, ...], list[StoredRow]] = {}
    for row in withdrawn:
        old.setdefault((row.account_id, row.amount, row.description), []).append(row)
    return [(new[alike][0], rows[0]) for alike, rows in old.items() if len(rows) == 1 and len(new.get(alike, ())) == 1]


def stored_rows(work: Work, row_keys: Sequence[tuple[bytes, str]]) -> list[StoredRow]:
    """The stored rows that have these accounts and keys."""
    if not row_keys:
        return []
    rows = work.connection.execute(
        "SELECT t.id, t.account_id, t.provider_transaction_id, t.status, t.amount, t.description"
        " FROM unnest(%s, %s) AS k(account_id, key)"
        " JOIN transactions t ON t.account_id = k.account_id AND t.provider_transaction_id = k.key",
        _pairs(one for one in row_keys if is_safe_key(one[1])),
    )
    return [as_stored(row) for row in rows]


def as_stored(row: tuple[Any, ...]) -> StoredRow:
    """A `StoredRow` from a row of the query's result."""
    return StoredRow(row[0].bytes, row[1].bytes, *row[2:])


def _pairs(row_keys: Iterable[tuple[bytes, str]]) -> tuple[Uuids, Texts]:
    """The accounts and the keys as two array parameters."""
    scopes, keys = [], []
    for scope, key in row_keys:
        scopes.append(scope)
        keys.append(key)
    return uuids(scopes), texts(keys)

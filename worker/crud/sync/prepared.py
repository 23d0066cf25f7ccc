"""What of a page's transactions can be made ready without the database, while the pages before it are stored."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import fields, replace
from itertools import chain
from typing import NamedTuple, TypeVar

from worker.crud.sync.work import Rules
from worker.errors import BadRecord
from worker.models.pages import Page, RawRecord
from worker.models.records import TransactionRecord

T = TypeVar("T")
RowKey = tuple[str, str]
"""A transaction's account and its key, as the provider names both."""


class Prepared(NamedTuple):
    """A page's transactions, each once, and their content hashes.

    Attributes:
        conflicting: those that were listed twice with different content; the last one wins, and is flagged.
        records: all of them read, or why not, where all are expected to be new; else only what differs is read, later.
    """

    rows: Sequence[RawRecord]
    account_keys: Sequence[str]
    keys: Sequence[str]
    hashes: Sequence[bytes]
    row_keys: Set[RowKey]
    conflicting: frozenset[RowKey] = frozenset()
    records: Sequence[TransactionRecord | BadRecord] | None = None


def prepare(page: Page, rules: Rules) -> Prepared:
    """Finds what is listed twice, and hashes the records; reads them if none of them can be stored already."""
    rows: Sequence[RawRecord] = page.transactions
    last = {(raw.account_key, raw.key): raw for raw in rows}
    conflicting: frozenset[RowKey] = frozenset()
    if len(last) < len(rows):
        conflicting = frozenset(key for raw in rows if last[key := (raw.account_key, raw.key)].raw != raw.raw)
        rows = list(last.values())
    texts = [raw.raw for raw in rows]
    if page.beside:
        texts = [raw.raw + page.beside.get((raw.account_key, raw.key), b"") for raw in rows]
    return Prepared(
        rows,
        [raw.account_key for raw in rows],
        [raw.key for raw in rows],
        rules.content_hashes(texts),
        last.keys(),
        conflicting,
        [read(page, raw) for raw in rows] if rules.expect_new else None,
    )


def read(page: Page, raw: RawRecord) -> TransactionRecord | BadRecord:
    """One of the page's transactions, or why it cannot be trusted."""
    if page.map_transaction is None:
        raise TypeError("a page with transactions must say how they are read")
    try:
        return page.map_transaction(raw)
    except Exception as error:  # also a fault of the reader's own must not cost more than this record
        return BadRecord.of(error)


def joined(pages: Iterable[tuple[Page, Prepared]]) -> Iterator[tuple[Page, Prepared]]:
    """The same with as few pages as will do: much of what a page costs is its statements' way there and back.

    A page that lists transactions and nothing else is one with the page after it, unless both list the same one, or
    that page says which days it lists completely.
    """
    together: list[tuple[Page, Prepared]] = []
    row_keys: set[RowKey] = set()
    for page, prepared in pages:
        if together and not (_only_lists(together[-1][0], page) and row_keys.isdisjoint(prepared.row_keys)):
            yield _one_of(together, row_keys)
            together, row_keys = [], set()
        together.append((page, prepared))
        row_keys.update(prepared.row_keys)
    if together:
        yield _one_of(together, row_keys)


_SAYS_MORE = {field.name for field in fields(Page)} - {"feed", "cursor", "more", "transactions", "map_transaction"}


def _only_lists(page: Page, then: Page) -> bool:
    """Whether `page` does nothing but list transactions of the next one's feed that are read as the next one's are."""
    return (
        not then.windows
        and page.feed == then.feed
        and page.map_transaction is then.map_transaction
        and not any(getattr(page, name) for name in _SAYS_MORE)
    )


def _one_of(together: Sequence[tuple[Page, Prepared]], row_keys: Set[RowKey]) -> tuple[Page, Prepared]:
    if len(together) == 1:
        return together[0]
    last, parts = together[-1][0], [prepared for _, prepared in together]
    read = [part.records for part in parts if part.records is not None]
    return (
        replace(last, transactions=_flat(page.transactions for page, _ in together)),
        Prepared(
            rows=_flat(part.rows for part in parts),
            account_keys=_flat(part.account_keys for part in parts),
            keys=_flat(part.keys for part in parts),
            hashes=_flat(part.hashes for part in parts),
            row_keys=row_keys,
            conflicting=frozenset().union(*(part.conflicting for part in parts)),
            records=_flat(read) if len(read) == len(parts) else None,
        ),
    )


def _flat(lists: Iterable[Sequence[T]]) -> list[T]:
    return list(chain.from_iterable(lists))

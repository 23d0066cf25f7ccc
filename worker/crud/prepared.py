"""What of a page's transactions can be made ready without the database, while the pages before it are stored."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import replace
from typing import NamedTuple

from worker.crud.work import Rules
from worker.errors import BadRecord
from worker.models.pages import Page, RawRecord
from worker.models.records import TransactionRecord

Place = tuple[str, str]
"""A transaction's account and its key, as the provider names both."""


class Prepared(NamedTuple):
    """A page's transactions, each place once, and their content hashes.

    Attributes:
        conflicting: places that were listed twice with different content; the last one wins, and is flagged.
        records: all of them read, or why not, where all are expected to be new; else only what differs is read, later.
    """

    rows: Sequence[RawRecord]
    account_keys: Sequence[str]
    keys: Sequence[str]
    hashes: Sequence[bytes]
    places: Set[Place]
    conflicting: frozenset[Place] = frozenset()
    records: Sequence[TransactionRecord | BadRecord] | None = None


def prepare(page: Page, rules: Rules) -> Prepared:
    """Finds what is listed twice, and hashes the records; reads them if none of them can be stored already."""
    rows: Sequence[RawRecord] = page.transactions
    last = {(raw.account_key, raw.key): raw for raw in rows}
    conflicting: frozenset[Place] = frozenset()
    if len(last) < len(rows):
        conflicting = frozenset(place for raw in rows if last[place := (raw.account_key, raw.key)].raw != raw.raw)
        rows = list(last.values())
    return Prepared(
        rows,
        [raw.account_key for raw in rows],
        [raw.key for raw in rows],
        rules.content_hashes([raw.raw for raw in rows]),
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
    except BadRecord as error:
        return error


def joined(pages: Iterable[tuple[Page, Prepared]]) -> Iterator[tuple[Page, Prepared]]:
    """The same with as few pages as will do: much of what a page costs is its statements' way there and back.

    A page that lists transactions and nothing else is one with the page after it, unless both list the same one, or
    that page says which days it lists completely.
    """
    before: tuple[Page, Prepared] | None = None
    for page, prepared in pages:
        if before is None:
            before = page, prepared
        elif _only_lists(before[0], page) and before[1].places.isdisjoint(prepared.places):
            before = _one_of(before, (page, prepared))
        else:
            yield before
            before = page, prepared
    if before is not None:
        yield before


def _only_lists(page: Page, then: Page) -> bool:
    """Whether `page` does nothing but list transactions that are read as the next one's are."""
    return (
        not then.windows
        and page.map_transaction is then.map_transaction
        and page
        == Page(
            feed=then.feed,
            cursor=page.cursor,
            more=page.more,
            transactions=page.transactions,
            map_transaction=page.map_transaction,
        )
    )


def _one_of(first: tuple[Page, Prepared], second: tuple[Page, Prepared]) -> tuple[Page, Prepared]:
    a, b = first[1], second[1]
    return (
        replace(second[0], transactions=[*first[0].transactions, *second[0].transactions]),
        Prepared(
            [*a.rows, *b.rows],
            [*a.account_keys, *b.account_keys],
            [*a.keys, *b.keys],
            [*a.hashes, *b.hashes],
            a.places | b.places,
            a.conflicting | b.conflicting,
            None if a.records is None or b.records is None else [*a.records, *b.records],
        ),
    )

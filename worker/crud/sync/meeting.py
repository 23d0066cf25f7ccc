"""Transactions of accounts that have several sources: which listed one is a row that another source has stored.

The main source's rows have its keys. A row that only a further source lists has a key that begins with the id of that
source, so that keys of different providers are never taken for each other. `transaction_keys` has the keys of all.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from worker.crud.sync.alike import Looks, Matcher, normalised
from worker.crud.sync.apply import Entries, texts, uuids
from worker.crud.sync.nouns import TRANSACTIONS
from worker.crud.sync.pending import ReadAnew
from worker.crud.sync.sources import Source, begin_books_anew
from worker.crud.sync.work import Work
from worker.models.pages import RawRecord, Removal
from worker.models.vocabulary import TransactionStatus


class _Named(NamedTuple):
    """A record of an account with several sources: the source, the record's key there, and the key of its row."""

    source: Source
    account_id: bytes
    key: str
    row_key: str


class _Row(NamedTuple):
    """A stored row, as a source names it. `has_others`: another source that is still read names it, too."""

    id: UUID
    row_key: str
    has_others: bool


class Meeting:
    """The records of one page that belong to accounts with several sources.

    Args:
        work: the page.
    """

    def __init__(self, work: Work) -> None:
        self._work = work
        self._of = work.accounts.sources
        self._named: dict[tuple[bytes, str], _Named] = {}
        self._met: list[tuple[UUID, str, UUID]] = []
        self._added_to: set[bytes] = set()

    def place(self, rows: Sequence[RawRecord], entries: Entries) -> tuple[list[int], Entries]:
        """Gives records of further sources the keys of their rows, and leaves out those that other sources state, too.

        Returns:
            The indexes of the records that are left, and their entries.
        """
        sources = [self._of.get(raw.account_key) for raw in rows]
        further = [
            (source, key) for source, key in zip(sources, entries.keys, strict=True) if source and not source.is_main
        ]
        known = self._rows_of(further)
        left, keys = [], list(entries.keys)
        for index, (source, key) in enumerate(zip(sources, entries.keys, strict=True)):
            if source is not None:
                row = known.get((source.id, key))
                if row is not None and row.has_others:
                    self._work.tally.add(TRANSACTIONS.name, unchanged=1)
                    continue
                if not source.is_main:
                    keys[index] = own_key(source, key) if row is None else row.row_key
                named = _Named(source, entries.scopes[index], key, keys[index])
                self._named[named.account_id, named.row_key] = named
            left.append(index)
        scopes, hashes = entries.scopes, entries.hashes
        return left, Entries([scopes[i] for i in left], [keys[i] for i in left], [hashes[i] for i in left])

    def meet(self, found: Sequence[ReadAnew]) -> tuple[list[ReadAnew], set[bytes]]:
        """Finds the rows of records that are new by their keys. Those of further sources are left out if they have one.

        Returns:
            The other records, and the ids of the rows that now belong to records of the main source.
        """
        self.note()  # so that no other record gets the row of one that is listed under its key
        new: defaultdict[tuple[Source, bytes], list[ReadAnew]] = defaultdict(list)
        for one in found:
            source = self._of.get(one.record.account_key)
            if source is not None and one.stored_id is None:
                new[source, one.scope].append(one)
        rows: dict[int, UUID] = {}
        for (source, account_id), ones in new.items():
            rows |= self._by_key(source, ones)
            left = [one for one in ones if id(one) not in rows]
            rows |= self._by_looks(source, UUID(bytes=account_id), left)
        others: list[ReadAnew] = []
        taken: set[bytes] = set()
        for one in found:
            row_id = rows.get(id(one))
            if row_id is None:
                others.append(self._as_own(one))
                continue
            named = self._named[one.scope, one.key]
            if named.source.is_main:
                one.stored_id = row_id.bytes
                taken.add(one.stored_id)
                others.append(one)
            else:
                self._met.append((named.source.id, named.key, row_id))
                self._work.tally.add(TRANSACTIONS.name, unchanged=1)
        return others, taken

    def _as_own(self, one: ReadAnew) -> ReadAnew:
        """A further source's record names the pending row that it replaces as that one is stored."""
        source, pending_key = self._of.get(one.record.account_key), one.record.pending_key
        if source is not None and not source.is_main:
            self._added_to.add(one.scope)
            if pending_key is not None:
                one.record = msgspec.structs.replace(one.record, pending_key=own_key(source, pending_key))
        return one

    def _by_key(self, source: Source, ones: Sequence[ReadAnew]) -> dict[int, UUID]:
        """Rows that the source has named before, under the record's key or under that of its pending record."""
        keys = {id(one): self._named[one.scope, one.key].key for one in ones}
        asked = [(source, key) for key in keys.values()]
        if not source.is_main:
            asked += [(source, key) for one in ones if (key := one.record.pending_key) is not None]
        known = self._rows_of(asked)
        rows = {}
        for one in ones:
            row = known.get((source.id, keys[id(one)]))
            if row is None and not source.is_main:
                before = known.get((source.id, one.record.pending_key or ""))
                row = before if before is not None and before.has_others else None
            if row is not None:
                rows[id(one)] = row.id
        return rows

    def _by_looks(self, source: Source, account_id: UUID, ones: Sequence[ReadAnew]) -> dict[int, UUID]:
        """Rows that look like a record and that the source has not named yet."""
        if not ones:
            return {}
        days = sorted({one.record.posted_date for one in ones})
        stored = self._work.connection.execute(
            "SELECT t.id, t.posted_date, t.amount, t.currency, t.description, t.status FROM transactions t"
            " WHERE t.account_id = %s AND (t.posted_date = ANY(%s) OR t.status = 'pending') AND t.status <> 'removed'"
            " AND NOT EXISTS (SELECT FROM transaction_keys k WHERE k.transaction_id = t.id AND k.source_id = %s)"
            " ORDER BY t.id",
            (account_id, days, source.id),
        ).fetchall()
        if not stored:
            return {}
        pairs = Matcher(
            [
                _looks(one.record.posted_date, one.record.amount, one.record.currency, one.record.description,
                       one.record.status)
                for one in ones
            ],
            [_looks(*row[1:]) for row in stored],
        ).match()  # fmt: skip
        return {id(ones[listed]): stored[row][0] for listed, row in pairs.items()}

    def note(self) -> None:
        """Stores which source has listed which row under which key, for the records whose rows are stored."""
        named = list(self._named.values())
        if named or self._met:
            self._work.connection.execute(
                _NOTE,
                {
                    "sources": uuids([one.source.id.bytes for one in named]),
                    "accounts": uuids([one.account_id for one in named]),
                    "keys": texts(one.key for one in named),
                    "row_keys": texts(one.row_key for one in named),
                    "met_sources": uuids([source_id.bytes for source_id, _, _ in self._met]),
                    "met_keys": texts(key for _, key, _ in self._met),
                    "met_rows": uuids([row_id.bytes for _, _, row_id in self._met]),
                },
            )

    def end(self) -> None:
        """Stores what is to be known when all rows of the page are stored."""
        self.note()
        for account_id in sorted(self._added_to):
            begin_books_anew(self._work.connection, UUID(bytes=account_id))

    def removed_rows(self, removals: Sequence[Removal]) -> list[bytes]:
        """The rows that further sources withdraw."""
        asked = [
            (source, removal.key)
            for account_key, source in self._of.items()
            if not source.is_main
            for removal in removals
            if removal.account_key in (None, account_key)
        ]
        return [row.id.bytes for row in self._rows_of(asked).values()]

    def _rows_of(self, asked: Iterable[tuple[Source, str]]) -> dict[tuple[UUID, str], _Row]:
        wanted = [(source.id, key) for source, key in asked]
        if not wanted:
            return {}
        found = self._work.connection.execute(
            _ROWS_OF, {"sources": uuids([id_.bytes for id_, _ in wanted]), "keys": texts(key for _, key in wanted)}
        )
        return {(source_id, key): _Row(*row) for source_id, key, *row in found}


_LIVE_OTHER = """
    SELECT FROM transaction_keys o JOIN account_sources s ON s.id = o.source_id AND s.ended_at IS NULL
    JOIN providers p ON p.id = s.provider_id AND p.status <> 'unlinked'
    WHERE o.transaction_id = {row} AND {other}
"""
_ROWS_OF = f"""
    SELECT k.source_id, k.key, t.id, t.provider_transaction_id,
        EXISTS ({_LIVE_OTHER.format(row="t.id", other="o.source_id <> k.source_id")})
    FROM unnest(%(sources)s, %(keys)s) AS asked (source_id, key)
    JOIN transaction_keys k ON k.source_id = asked.source_id AND k.key = asked.key
    JOIN transactions t ON t.id = k.transaction_id
"""  # noqa: S608 - constants
_NOTE = """
    WITH listed AS (
        SELECT DISTINCT ON (n.source_id, n.key) n.source_id, n.key, t.id
        FROM unnest(%(sources)s, %(accounts)s, %(keys)s, %(row_keys)s) AS n (source_id, account_id, key, row_key)
        JOIN transactions t ON t.account_id = n.account_id AND t.provider_transaction_id = n.row_key
        UNION ALL SELECT * FROM unnest(%(met_sources)s, %(met_keys)s, %(met_rows)s)
    ), noted AS (
        INSERT INTO transaction_keys AS k (source_id, key, transaction_id) SELECT * FROM listed
        ON CONFLICT (source_id, key) DO UPDATE SET transaction_id = excluded.transaction_id
        WHERE k.transaction_id <> excluded.transaction_id
    )
    DELETE FROM transaction_keys k USING listed l
    WHERE k.transaction_id = l.id AND k.source_id = l.source_id AND k.key <> l.key
        AND NOT EXISTS (SELECT FROM listed o WHERE o.source_id = k.source_id AND o.key = k.key)
"""
_KEPT = f"""
    SELECT asked.id FROM unnest(%(ids)s) AS asked (id)
    WHERE EXISTS ({_LIVE_OTHER.format(row="asked.id", other="s.provider_id <> %(provider)s")})
"""  # noqa: S608 - constants
_UNNAME = """
    DELETE FROM transaction_keys k USING account_sources s
    WHERE s.id = k.source_id AND s.provider_id = %(provider)s AND k.transaction_id = ANY(%(ids)s)
"""


LISTED_ELSEWHERE = _LIVE_OTHER.format(row="t.id", other="s.provider_id <> %s")
"""A query that finds something if another login than that of the parameter lists the transaction `t`, too."""


def own_key(source: Source, key: str) -> str:
    """The key of a row that only this further source lists."""
    return f"{source.id}:{key}"


def without_shared(work: Work, ids: Sequence[bytes]) -> Sequence[bytes]:
    """The rows that may be withdrawn: no other login lists them. Of the others, this login's keys are forgotten."""
    if not ids or not work.accounts.sources:
        return ids
    given: dict[str, Any] = {"ids": uuids(ids), "provider": work.run.provider_id}
    kept = {id_.bytes for (id_,) in work.connection.execute(_KEPT, given)}
    if kept:
        work.connection.execute(_UNNAME, given | {"ids": uuids(list(kept))})
    return [id_ for id_ in ids if id_ not in kept]


def _looks(day: Any, amount: Any, currency: str, description: str | None, status: str) -> Looks:
    return Looks(day, amount, currency, normalised(description), status == TransactionStatus.PENDING)

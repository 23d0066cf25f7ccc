"""One page on its way into the tables: what can be made ready before, and what all steps of applying it share.

`Prepared` is made without the database, while the pages before it are stored. `Work` has the page's run, the rules, its
counts, and what is refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from itertools import chain
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

from sqlalchemy.orm import Session

from worker.crud.sync.apply import Connection, Refusal, driver
from worker.crud.sync.nouns import Noun
from worker.errors import BadPayload, BadRecord, ProviderError, Scope
from worker.models.pages import Page, RawRecord
from worker.models.records import Reject, TransactionRecord

_ALWAYS_BELIEVED = 10
"""So few rows may go at once whatever their share: one pending row of one is no mass deletion."""


class Tally(Counter[tuple[str, str]]):
    """Rows per noun and outcome."""

    def add(self, noun: str, *, added: int = 0, changed: int = 0, unchanged: int = 0, removed: int = 0) -> None:
        """Counts what became of rows."""
        for outcome, count in (("added", added), ("changed", changed), ("unchanged", unchanged), ("removed", removed)):
            if count:
                self[noun, outcome] += count

    def total(self, outcome: str | None = None) -> int:
        """Rows of one outcome, or of all."""
        return sum(count for (_, counted), count in self.items() if outcome in (None, counted))

    def nested(self) -> dict[str, dict[str, int]]:
        """As a run keeps them: noun → outcome → rows."""
        nested: dict[str, dict[str, int]] = {}
        for (noun, outcome), count in self.items():
            if count:
                nested.setdefault(noun, {})[outcome] = count
        return nested


@dataclass(frozen=True, slots=True)
class RunKey:
    """Whose run a page belongs to; every page is fenced by it.

    Attributes:
        reading_id: set in a full sync, which notes every row that it meets.
    """

    id: UUID
    owner: UUID
    provider_id: UUID
    provider_key: str
    reading_id: UUID | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How a page is read and how far it is believed.

    Attributes:
        content_hashes: of raw records and the mapping version.
        mask: makes a raw record fit to be kept in quarantine.
        mass_deletion_share: a listing that would withdraw more than this share is not believed; 1 believes all.
        open_quarantine: whether records of this provider wait in quarantine, which a stored record may resolve.
        expect_new: nothing of this provider was stored when the run began: rows go in unseen, and a page in which one
            turns out to be stored is refused.
    """

    content_hashes: Callable[[Sequence[bytes]], list[bytes]]
    mask: Callable[[bytes], dict[str, Any]]
    mass_deletion_share: float
    open_quarantine: bool = False
    expect_new: bool = False


@dataclass(slots=True)
class Work:
    """One page on its way into the tables, inside one transaction.

    Attributes:
        careful: the page was refused as a whole, and is taken apart.
    """

    session: Session
    run: RunKey
    rules: Rules
    now: datetime
    accounts: dict[str, bytes]
    loop_id: bytes | None
    careful: bool
    connection: Connection = field(init=False)
    provider_id: bytes = field(init=False)
    run_id: bytes = field(init=False)
    tally: Tally = field(default_factory=Tally)
    rejects: list[Reject] = field(default_factory=list)
    problems: list[ProviderError] = field(default_factory=list)
    stored_keys: list[str] = field(default_factory=list)
    removed_keys: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.connection = driver(self.session)
        self.provider_id = self.run.provider_id.bytes
        self.run_id = self.run.id.bytes

    def account(self, account_key: str, *, kind: str, record_key: str | None = None) -> bytes | None:
        """The stored account's id; a record of an account that nobody listed goes to quarantine."""
        known = self.accounts.get(account_key)
        if known is None:
            self.reject(kind, "unknown_account", account_key=account_key, record_key=record_key)
        return known

    def reject(
        self,
        kind: str,
        reason: str,
        *,
        account_key: str | None = None,
        record_key: str | None = None,
        detail: str | None = None,
        payload: dict[str, Any] | None = None,
    ) -> None:
        """Sends a record to quarantine."""
        keys = {"account_key": account_key, "record_key": record_key}
        self.rejects.append(Reject(kind=kind, reason=reason, detail=detail, payload=payload, **keys))

    def reject_refused(self, kind: str, noun: Noun, refused: Sequence[Refusal]) -> None:
        """Sends rows that no column takes to quarantine."""
        if not refused:
            return
        keys = {id_: key for key, id_ in self.accounts.items()}
        for row, reason in refused:
            account_key = keys.get(noun.scope_of(row)) if noun.scope == "account_id" else None
            record_key = noun.key_of(row)
            self.reject(kind, "not_storable", record_key=record_key, account_key=account_key, detail=reason)

    def believes(self, going: int, of: int, *, account_key: str | None = None, always: int = _ALWAYS_BELIEVED) -> bool:
        """The mass-deletion brake: whether `going` rows of `of` may be withdrawn because they are not listed.

        Up to `always` rows may go whatever their share. A refusal is a problem of the run.
        """
        if going <= always or going <= of * self.rules.mass_deletion_share:
            return True
        scope = Scope.ACCOUNT if account_key else Scope.PROVIDER
        self.problems.append(BadPayload("mass_deletion", scope=scope, account_key=account_key))
        return False


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

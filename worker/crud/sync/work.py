"""One page that is being applied: what is prepared before, and what all steps of applying it share.

`Prepared` is made without the database, while earlier pages are being stored. `Work` has the page's run, the rules, the
counts, and the refused records.
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
from worker.crud.sync.noun import Noun
from worker.crud.sync.sources import Known
from worker.errors import BadPayload, BadRecord, ProviderError, Scope
from worker.models.pages import Page, RawRecord
from worker.models.records import Reject, TransactionRecord

_ALWAYS_BELIEVED = 10
"""Up to this many rows may be withdrawn whatever their share: a single pending row is no mass deletion."""


class Tally(Counter[tuple[str, str]]):
    """Number of rows for each noun and outcome."""

    def add(self, noun: str, *, added: int = 0, changed: int = 0, unchanged: int = 0, removed: int = 0) -> None:
        """Adds to the counts of a noun."""
        for outcome, count in (("added", added), ("changed", changed), ("unchanged", unchanged), ("removed", removed)):
            if count:
                self[noun, outcome] += count

    def total(self, outcome: str | None = None) -> int:
        """Number of rows with one outcome, or with any."""
        return sum(count for (_, counted), count in self.items() if outcome in (None, counted))

    def of(self, noun: str) -> Tally:
        """The counts of one noun."""
        return Tally({key: count for key, count in self.items() if key[0] == noun})

    def nested(self) -> dict[str, dict[str, int]]:
        """The counts in the form in which a run stores them: noun → outcome → rows."""
        nested: dict[str, dict[str, int]] = {}
        for (noun, outcome), count in self.items():
            if count:
                nested.setdefault(noun, {})[outcome] = count
        return nested


@dataclass(frozen=True, slots=True)
class RunKey:
    """The run that a page belongs to; every page is fenced by it.

    Attributes:
        reading_id: set in a full sync, which records every row that it meets.
    """

    id: UUID
    owner: UUID
    provider_id: UUID
    provider_key: str
    reading_id: UUID | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How pages are read, and how far a listing is trusted.

    Attributes:
        content_hashes: makes content hashes from raw records and the mapping version.
        mask: makes a masked copy of a raw record, for quarantine.
        mass_deletion_share: a listing that would withdraw a larger share of the rows is not trusted; 1 trusts all.
        open_quarantine: whether the provider has open quarantine entries, which a stored record may resolve.
        expect_new: no transaction of this provider was stored when the reading began. So rows are inserted without a
            comparison, and a page with a row that is stored already is refused.
        memory_feeds: feeds that keep their cursors when everything is read again.
        reads_files: the login's data comes in files.
        file_keys: keys of the integrations whose data comes in files.
    """

    content_hashes: Callable[[Sequence[bytes]], list[bytes]]
    mask: Callable[[bytes], dict[str, Any]]
    mass_deletion_share: float
    open_quarantine: bool = False
    expect_new: bool = False
    memory_feeds: frozenset[str] = frozenset()
    reads_files: bool = False
    file_keys: frozenset[str] = frozenset()


@dataclass(slots=True)
class Work:
    """One page that is being applied, inside one transaction.

    Attributes:
        careful: the page was refused as a whole, so its rows are now stored in smaller groups.
        recognised: number of accounts that were found under a new key, so that everything must be read again.
    """

    session: Session
    run: RunKey
    rules: Rules
    now: datetime
    accounts: Known
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
    recognised: int = 0

    def __post_init__(self) -> None:
        self.connection = driver(self.session)
        self.provider_id = self.run.provider_id.bytes
        self.run_id = self.run.id.bytes

    @property
    def holds_nothing(self) -> bool:
        """Whether nothing is stored yet that a page may list or no longer list: so there is nothing to compare."""
        return self.rules.expect_new and not self.careful

    def account(self, account_key: str, *, kind: str, record_key: str | None = None) -> bytes | None:
        """Our id of an account. If it is not stored, the record goes to quarantine."""
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
        """Sends rows that Postgres refused to quarantine."""
        if not refused:
            return
        keys = {id_: key for key, id_ in self.accounts.items()}
        for row, reason in refused:
            account_key = keys.get(noun.scope_of(row)) if noun.scope == "account_id" else None
            record_key = noun.key_of(row)
            self.reject(kind, "not_storable", record_key=record_key, account_key=account_key, detail=reason)

    def believes(self, going: int, of: int, *, account_key: str | None = None, always: int = _ALWAYS_BELIEVED) -> bool:
        """The mass-deletion check: whether `going` of `of` rows may be withdrawn because they are not listed.

        Up to `always` rows may be withdrawn whatever their share. If the answer is no, this is a problem of the run.
        """
        if going <= always or going <= of * self.rules.mass_deletion_share:
            return True
        scope = Scope.ACCOUNT if account_key else Scope.PROVIDER
        self.problems.append(BadPayload("mass_deletion", scope=scope, account_key=account_key))
        return False


T = TypeVar("T")
RowKey = tuple[str, str]
"""A transaction's account and key, both as the provider names them."""


class Prepared(NamedTuple):
    """A page's transactions, each once, and their content hashes.

    Attributes:
        conflicting: those that were listed twice with different content; the last one counts and gets a flag.
        records: all of them mapped (or the error of each), if all are expected to be new; otherwise None, and only the
            new and changed ones are mapped later.
    """

    rows: Sequence[RawRecord]
    account_keys: Sequence[str]
    keys: Sequence[str]
    hashes: Sequence[bytes]
    row_keys: Set[RowKey]
    conflicting: frozenset[RowKey] = frozenset()
    records: Sequence[TransactionRecord | BadRecord] | None = None


def prepare(page: Page, rules: Rules) -> Prepared:
    """Finds records that are listed twice, and hashes all; maps them, too, if none of them can be stored already."""
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
    """One of the page's transactions after mapping, or the reason why it cannot be trusted."""
    if page.map_transaction is None:
        raise TypeError("a page with transactions must say how they are read")
    try:
        return page.map_transaction(raw)
    except Exception as error:  # an error in the mapping's own code must not affect other records, either
        return BadRecord.of(error)


def joined(pages: Iterable[tuple[Page, Prepared]], *, heed_windows: bool = True) -> Iterator[tuple[Page, Prepared]]:
    """Joins pages into as few as possible: much of a page's cost is the round trips of its statements.

    A page that only lists transactions is joined with the next page, unless both list the same transaction, or one of
    them has windows that are to be heeded.
    """
    says_more = _SAYS_MORE if heed_windows else _SAYS_MORE - {"windows"}
    together: list[tuple[Page, Prepared]] = []
    row_keys: set[RowKey] = set()
    for page, prepared in pages:
        if together and not (_only_lists(together[-1][0], page, says_more) and row_keys.isdisjoint(prepared.row_keys)):
            yield _one_of(together, row_keys)
            together, row_keys = [], set()
        together.append((page, prepared))
        row_keys.update(prepared.row_keys)
    if together:
        yield _one_of(together, row_keys)


_SAYS_MORE = {field.name for field in fields(Page)} - {"feed", "cursor", "more", "transactions", "map_transaction"}


def _only_lists(page: Page, then: Page, says_more: Set[str]) -> bool:
    """Whether `page` only lists transactions, of the same feed and with the same mapping as the next page."""
    return (
        not (then.windows and "windows" in says_more)
        and page.feed == then.feed
        and page.map_transaction is then.map_transaction
        and not any(getattr(page, name) for name in says_more)
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

"""One page being applied: its run, the rules, its counts, and what is refused; shared by all steps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from worker.crud.sync.apply import Connection, Refusal, driver
from worker.crud.sync.nouns import Noun
from worker.errors import BadPayload, ProviderError, Scope
from worker.models.records import Reject

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

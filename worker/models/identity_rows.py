"""What people are shown when they say which accounts are the same."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID


@dataclass(frozen=True, slots=True)
class AccountName:
    """An account's id and name."""

    id: UUID
    name: str


@dataclass(frozen=True, slots=True)
class ChangeRow:
    """A merge or a split.

    Attributes:
        account_id: the account that has stayed.
        other_id: the account that has gone into it, or has come out of it.
    """

    id: UUID
    kind: str
    account_id: UUID
    other_id: UUID
    actor: str
    created_at: datetime
    undone_at: datetime | None


@dataclass(frozen=True, slots=True)
class Done:
    """What a merge or a split did, or would do.

    Attributes:
        id: id of the change, by which it can be undone.
        shared: number of transactions that both accounts have.
        moved: number of transactions that only the merged or split account has.
    """

    id: UUID
    kind: str
    account_id: UUID
    other_id: UUID
    shared: int
    moved: int

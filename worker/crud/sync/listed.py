"""Records that a page lists completely for some accounts: which can be stored, and which stored rows are missing."""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import Protocol, TypeVar
from uuid import UUID

from worker.crud.sync.apply import is_safe_key
from worker.crud.sync.noun import Noun
from worker.crud.sync.work import Work
from worker.models.pages import Page


class OfAccount(Protocol):
    """A record of an account."""

    @property
    def account_key(self) -> str:
        """The provider's id of the account."""


T = TypeVar("T", bound=OfAccount)


def storable(work: Work, records: Sequence[T], noun: Noun, *, kind: str) -> dict[tuple[bytes, str], T]:
    """The records by account and key; those of unknown accounts and with unusable keys go to quarantine."""
    found = {}
    for record in records:
        key: str = getattr(record, noun.key)
        account_id = work.account(record.account_key, kind=kind, record_key=key)
        if account_id is None or work.accounts.is_further(record.account_key):
            continue
        if not is_safe_key(key):
            work.reject(kind, "bad_key", account_key=record.account_key)
            continue
        found[account_id, key] = record
    return found


def vanished(
    work: Work, page: Page, noun: Noun, *, complete_for: Set[str], listed: Set[tuple[bytes, str]], kinds: Set[str]
) -> list[UUID]:
    """Ids of open rows that a complete listing lacks.

    There is no mass-deletion check: people do sell everything, and what is listed again is opened again.

    Args:
        work: the page at work.
        page: the page.
        noun: the table; it has `closed_at`.
        complete_for: the provider's ids of the accounts that are listed completely.
        listed: account and key of every listed record.
        kinds: kinds of rejects; such a record, without a readable id, may be any of the missing ones.
    """
    uncertain = {reject.account_key for reject in (*page.rejects, *work.rejects) if reject.kind in kinds}
    stated = work.accounts.main
    complete = [
        UUID(bytes=stated[key])
        for key in complete_for
        if key in stated and key not in uncertain and None not in uncertain
    ]
    if not complete:
        return []
    rows = work.connection.execute(
        f"SELECT id, account_id, {noun.key} FROM {noun.name} WHERE account_id = ANY(%s) AND closed_at IS NULL",  # noqa: S608
        (complete,),
    )
    return [id_ for id_, account_id, key in rows if (account_id.bytes, key) not in listed]

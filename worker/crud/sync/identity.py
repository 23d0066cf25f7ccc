"""Recognises accounts that a login lists for the first time, although they are stored under another key.

An account is the same if a stable id says so; otherwise if institution, mask, type, currency and name are the same, and
this is true of exactly one stored account and exactly one listed one. There is never a guess between two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple
from uuid import UUID

from worker.crud import audit
from worker.crud.providers import take_turns_in_linking
from worker.crud.sync import runs, sources
from worker.crud.sync.apply import is_safe_key
from worker.crud.sync.work import Work
from worker.models.pages import Page
from worker.models.records import AccountRecord
from worker.models.vocabulary import AccountStatus, AccountType, ProviderStatus
from worker.process.logger import Logger

log = Logger(__name__)
_SHORTEST_MASK = 4


class StoredAccount(NamedTuple):
    """An account of the same user that may be one of those that are listed."""

    id: UUID
    provider_id: UUID
    provider_key: str
    provider_status: str
    key: str
    status: str
    institution: str | None
    stable_keys: list[str] | None
    mask: str | None
    type: str
    currency: str
    name: str


_SAME_USER = """
    SELECT a.id, a.provider_id, p.provider_key, p.status, a.provider_account_id, a.status, a.institution, a.stable_keys,
        a.mask, a.type, a.currency, a.name
    FROM accounts a JOIN providers p ON p.id = a.provider_id
    WHERE p.user_id = (SELECT user_id FROM providers WHERE id = %s) AND a.status <> 'closed' ORDER BY a.id
"""


def recognise(work: Work, page: Page) -> None:
    """Gives stored accounts the keys under which the page lists them. Nothing happens if the page lists no new key."""
    new = [one for one in page.accounts if one.account_key not in work.accounts and is_safe_key(one.account_key)]
    if not new:
        return
    stored = [StoredAccount(*row) for row in work.connection.execute(_SAME_USER, (work.run.provider_id,))]
    found = [*pairs_of(new, list(_former(work, page, stored)), same=same_account)]
    taken = {record.account_key for record, _ in found}
    rest = [record for record in new if record.account_key not in taken]
    joined = [*pairs_of(rest, list(_at_other_door(work, stored)), same=_fits_file)]
    if not found and not joined:
        return
    # Whoever links or begins a run takes this turn first, so no other run goes on with what it knows of the accounts.
    for provider_id in sorted({one.provider_id for _, one in (*found, *joined)} - {work.run.provider_id}):
        take_turns_in_linking(work.session, provider_id)
        runs.end_running(
            work.session,
            provider_id=provider_id,
            error="account_shared",
            reason="another login lists one of its accounts, too; the next run goes on from the committed cursors",
        )
    for record, account in found:
        _replace_key(work, record, account)
    for record, account in joined:
        _join(work, record, account)
    work.accounts = sources.read_known(work.connection, work.run.provider_id)


def _former(work: Work, page: Page, stored: Sequence[StoredAccount]) -> Iterator[StoredAccount]:
    """Accounts that are not read any more under the key that is stored: of this login, or of one that was unlinked."""
    listed = {one.account_key for one in page.accounts} | {
        reject.account_key or reject.record_key for reject in page.rejects if reject.kind == "account"
    }
    unreadable = None in listed
    for account in stored:
        if account.provider_id == work.run.provider_id:
            gone = account.status == AccountStatus.INACCESSIBLE or (page.accounts_complete and not unreadable)
            if gone and account.key not in listed:
                yield account
        elif account.provider_key == work.run.provider_key and account.provider_status == ProviderStatus.UNLINKED:
            yield account


def _at_other_door(work: Work, stored: Sequence[StoredAccount]) -> Iterator[StoredAccount]:
    """For a file, the accounts of institutions; for an institution, the accounts of files."""
    for account in stored:
        if (account.provider_key in work.rules.file_keys) is not work.rules.reads_files:
            yield account


Same = Callable[[AccountRecord, StoredAccount, bool], bool]


def pairs_of(
    new: Sequence[AccountRecord], stored: Sequence[StoredAccount], *, same: Same
) -> Iterator[tuple[AccountRecord, StoredAccount]]:
    """Pairs in which neither fits another one, those with a stable id first."""
    left, free = list(new), list(stored)
    for by_stable_key in (True, False):
        pairs = [(record, account) for record in left for account in free if same(record, account, by_stable_key)]
        for record, account in pairs:
            if _count(record, (one for one, _ in pairs)) == 1 and _count(account, (one for _, one in pairs)) == 1:
                left.remove(record)
                free.remove(account)
                yield record, account


def _count(one: object, among: Iterable[object]) -> int:
    return sum(other is one for other in among)


def same_account(record: AccountRecord, account: StoredAccount, by_stable_key: bool) -> bool:
    """Whether a listed account is a stored one, by a stable id, or else by everything that people see of it."""
    known = set(account.stable_keys or ())
    if by_stable_key:
        return not known.isdisjoint(record.stable_keys)
    if known and record.stable_keys and known.isdisjoint(record.stable_keys):
        return False
    return (record.mask, record.type, record.currency, record.name, record.institution) == (
        account.mask,
        account.type,
        account.currency,
        account.name,
        account.institution,
    )


def _fits_file(record: AccountRecord, account: StoredAccount, by_stable_key: bool) -> bool:
    """Whether an account of a file and one of an institution may be the same: a file says neither institution nor name.

    A file that does not say the type has `other`.
    """
    if by_stable_key or record.mask is None or len(record.mask) < _SHORTEST_MASK:
        return False
    types = {record.type, account.type}
    return (record.mask, record.currency) == (account.mask, account.currency) and (
        len(types) == 1 or AccountType.OTHER in types
    )


def _replace_key(work: Work, record: AccountRecord, account: StoredAccount) -> None:
    """The account goes on under the new key; its rows get theirs when they are listed."""
    connection, provider_id = work.connection, work.run.provider_id
    ended = sources.note_main(connection, account.id)
    sources.end(connection, [ended])
    sources.make_main(connection, account.id, provider_id, record.account_key)
    sources.add(connection, account.id, provider_id, record.account_key)
    work.recognised += 1
    by = "stable key" if same_account(record, account, True) else "institution, mask, type, currency and name"
    _tell(work, account, "account_recognised", by)


def _join(work: Work, record: AccountRecord, account: StoredAccount) -> None:
    """The account has two sources from now on; the institution states it, and the files add what it does not list."""
    connection, provider_id = work.connection, work.run.provider_id
    sources.note_main(connection, account.id)
    sources.add(connection, account.id, provider_id, record.account_key)
    if not work.rules.reads_files:
        sources.make_main(connection, account.id, provider_id, record.account_key)
    sources.begin_books_anew(connection, account.id)
    work.recognised += not work.rules.reads_files
    _tell(work, account, "account_joined", "mask, type and currency")


def _tell(work: Work, account: StoredAccount, action: str, by: str) -> None:
    detail = {"account": str(account.id), "by": by, "from": str(account.provider_id)}
    audit.record(work.session, provider_id=work.run.provider_id, action=action, detail=detail)
    log.info(action, account_id=str(account.id), by=by, from_provider=str(account.provider_id))

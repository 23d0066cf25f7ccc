"""Finds the login that has the same accounts as one that is being linked."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy.orm import Session

from worker.crud.sync.apply import driver
from worker.crud.sync.identity import Same, StoredAccount, pairs_of, same_account
from worker.models.records import AccountRecord


@dataclass(frozen=True, slots=True)
class SameLogin:
    """A login with the same accounts.

    Attributes:
        accounts: their names, with the last characters of their numbers.
    """

    provider_id: UUID
    alias: str
    accounts: list[str]


_LINKED = """
    SELECT p.alias, a.id, a.provider_id, p.provider_key, p.status, a.provider_account_id, a.status, a.institution,
        a.stable_keys, a.mask, a.type, a.currency, a.name
    FROM accounts a JOIN providers p ON p.id = a.provider_id
    WHERE p.user_id = %s AND p.provider_key = %s AND p.id IS DISTINCT FROM %s AND a.status = 'active'
        AND p.status NOT IN ('pending', 'unlinked')
    ORDER BY p.id, a.id
"""


def has_others(session: Session, *, user_id: UUID, provider_key: str, besides: UUID) -> bool:
    """Whether the user has a linked login of this integration, another one than `besides`, with accounts."""
    return driver(session).execute(f"{_LINKED} LIMIT 1", (user_id, provider_key, besides)).fetchone() is not None


def same_login(
    session: Session,
    *,
    listed: Sequence[AccountRecord],
    user_id: UUID,
    provider_key: str,
    besides: UUID,
    same: Same = same_account,
) -> SameLogin | None:
    """The user's linked login, another one than `besides`, that has all the accounts that are listed, or no others.

    `same` says whether a listed account is a stored one.

    Two logins that have only some accounts in common, as those of two people with a joint account, are not the same.
    None if `besides` has the listed accounts itself: then it is linked again, whatever other logins have.
    """
    of_login: defaultdict[UUID, list[StoredAccount]] = defaultdict(list)
    aliases: dict[UUID, str] = {}
    for alias, *account in driver(session).execute(_LINKED, (user_id, provider_key, None)):
        stored = StoredAccount(*account)
        aliases[stored.provider_id] = alias
        of_login[stored.provider_id].append(stored)
    for provider_id in sorted(of_login, key=lambda id_: id_ != besides):
        accounts = of_login[provider_id]
        pairs = _pairs(listed, accounts, same)
        if pairs and len(pairs) in (len(listed), len(accounts)):
            if provider_id == besides:
                return None
            names = [f"{record.name} …{record.mask}" if record.mask else record.name for record, _ in pairs]
            return SameLogin(provider_id, aliases[provider_id], names)
    return None


def _pairs(
    listed: Sequence[AccountRecord], accounts: Sequence[StoredAccount], same: Same
) -> list[tuple[AccountRecord, StoredAccount]]:
    """Pairs that are the same by key and by what people see; of the rest, those in which neither fits another one."""
    stored = {one.key: one for one in accounts}
    by_key = [(one, stored[one.account_key]) for one in listed if one.account_key in stored]
    found = [(record, account) for record, account in by_key if same(record, account, False)]
    records, taken = ({id(pair[side]) for pair in found} for side in (0, 1))
    rest = [one for one in listed if id(one) not in records], [one for one in accounts if id(one) not in taken]
    return [*found, *pairs_of(*rest, same=same)]


def looks_same(record: AccountRecord, account: StoredAccount, by_stable_key: bool) -> bool:
    """Whether an account of which only what people see is told is a stored one; the currency is not told."""
    if by_stable_key or record.institution is None or record.mask is None:
        return False
    told = (record.mask, record.type, record.name, record.institution)
    return told == (account.mask, account.type, account.name, account.institution)

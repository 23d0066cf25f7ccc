"""Accounts whose ids last as long as a session, and which are described only once: when the session begins.

What is needed of a description is kept with the credential (`KeptCredential`). An account is recognised in the next
session by an id that lasts, which is its key. Accounts with the same lasting id are told apart by their currency.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import msgspec

from worker.errors import AccountGone, BadPayload, BadRecord, ProviderError, Scope
from worker.integrations.kit import account_keys
from worker.integrations.kit.base import Page
from worker.integrations.kit.calls import TROUBLE_OF_AN_ACCOUNT
from worker.integrations.kit.masking import last_four, without_numbers
from worker.integrations.kit.reading import without_nul
from worker.models.records import AccountRecord

FEED = "accounts"
"""The feed whose cursor keeps the keys; it must be one of `Integration.memory_feeds`."""


class Described(msgspec.Struct, gc=False, omit_defaults=True):
    """What is kept of an account, by names that are in stored credentials: neither its number nor its holder's name.

    Attributes:
        hash: the id that lasts.
        hashes: all ids that last; some of them may fit other accounts, too.
        uid: the id in the session; None if the account cannot be read in it.
        name: as the institution calls it; long numbers in it are shortened.
        mask: the last characters of its number.
        kind: the provider's word for its type.
    """

    hash: str
    hashes: list[str] = []
    uid: str | None = None
    name: str = ""
    mask: str | None = None
    currency: str | None = None
    kind: str | None = None

    @property
    def stable_keys(self) -> tuple[str, ...]:
        """All ids that last, the main one first."""
        return tuple(dict.fromkeys(map(without_nul, (self.hash, *self.hashes))))

    def named(self, name: str | None, number: str | None) -> Described:
        """The same with its name and the last characters of its number."""
        mask = last_four(number or "") or None
        return msgspec.structs.replace(self, name=without_numbers(name or ""), mask=mask)


async def listing(
    listed: Sequence[Described],
    kept: Sequence[Described],
    *,
    describe: Callable[[Described], Awaitable[Described]],
    record: Callable[[Described, str], AccountRecord],
    cursor: str | None,
) -> tuple[Page, dict[str, AccountRecord]]:
    """A page with the accounts of a session, and the records of those that can be read, by their ids in the session.

    An account without an id in the session, or without a description, is a problem of this account. One that had no id
    when the session began is listed all the same.

    Args:
        listed: the accounts that the session has, with nothing but their ids.
        kept: the accounts as they were described when the session began.
        describe: asks for an account of which nothing was kept.
        record: the record of an account and its key; raises `BadRecord`.
        cursor: that of `FEED`.
    """
    known, problems = {one.uid: one for one in kept if one.uid}, list[ProviderError]()
    found = [one for one in kept if not one.uid]
    blocked = {one.hash for one in found}
    for ids in listed:
        if not ids.uid and ids.hash in blocked:
            continue
        try:
            if not ids.uid:
                raise BadRecord("id_missing")
            one = known.get(ids.uid) or await describe(ids)
        except (BadRecord, *TROUBLE_OF_AN_ACCOUNT) as error:
            problems.append(
                BadPayload(f"no_details:{error.reason}", scope=Scope.ACCOUNT, account_key=without_nul(ids.hash))
            )
            continue
        hashes = ids.hashes or one.hashes
        found.append(msgspec.structs.replace(one, uid=ids.uid, hash=ids.hash, hashes=hashes))
    page, read = account_keys.listing(
        found,
        lambda one: (one.hash, one.currency or ""),
        record,
        msgspec.json.encode,
        feed=FEED,
        cursor=cursor,
    )
    keys = [account.account_key for one, account in read if not one.uid]
    unreadable = [AccountGone("account_unreadable", scope=Scope.ACCOUNT, account_key=key) for key in keys]
    page.problems = [*unreadable, *problems]
    page.accounts_complete = page.accounts_complete and not problems
    return page, {one.uid: account for one, account in read if one.uid}

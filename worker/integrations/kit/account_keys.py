"""Account keys where a provider's account ids are unique only within one of the institutions of a login."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec

from worker.errors import BadPayload, BadRecord
from worker.integrations.kit import reading
from worker.integrations.kit.base import Page
from worker.models.records import AccountRecord

T = TypeVar("T")

_places = reading.Reader(dict[str, str])


def assign_keys(accounts: Sequence[tuple[str, str]], cursor: str | None) -> tuple[list[str], str]:
    """Gives each account its key, and returns the keys and the cursor that keeps them.

    The key is the account's id. Where two institutions use the same id, the key of the later one has its institution,
    too. The cursor remembers which is which, so the keys last when the provider names its institutions differently.

    Args:
        accounts: id and institution of each account.
        cursor: what the call before returned; it must be kept for good (`Integration.memory_feeds`).
    """
    try:
        known = dict(_places.page(cursor.encode())) if cursor else {}
    except BadPayload:
        known = {}
    times, keys = Counter(id_ for id_, _ in accounts), list[str]()
    for id_, place in accounts:
        longer = f"{id_}@{place}"
        single = times[id_] == 1 and longer not in known
        keys.append(id_ if single or known.get(id_, place) == place else longer)
        known[keys[-1]] = place
    return [reading.without_nul(key) for key in keys], msgspec.json.encode(known, order="sorted").decode()


def listing(
    accounts: Sequence[T],
    identify: Callable[[T], tuple[str, str]],
    record: Callable[[T, str], AccountRecord],
    text: Callable[[T], bytes],
    *,
    feed: str,
    cursor: str | None,
) -> tuple[Page, list[tuple[T, AccountRecord]]]:
    """A page with all accounts, and each account that can be read beside its record; the others are rejects.

    Args:
        accounts: as the provider lists them.
        identify: an account's id and institution.
        record: its record, of the account and its key; raises `BadRecord`.
        text: its JSON text, which is masked if it is rejected.
        feed: the feed whose cursor keeps the keys; it must be one of `Integration.memory_feeds`.
        cursor: the feed's cursor.
    """
    keys, memory = assign_keys([identify(one) for one in accounts], cursor)
    found, rejects = [], []
    for one, key in zip(accounts, keys, strict=True):
        try:
            found.append((one, record(one, key)))
        except BadRecord as error:
            rejects.append(reading.reject("account", error, text(one), account_key=key))
    page = Page(feed=feed, cursor=memory, accounts=[account for _, account in found], rejects=rejects)
    page.accounts_complete = bool(found) and not rejects
    return page, found

"""Account keys where a provider's account ids are unique only within one of the institutions of a login."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import msgspec

from worker.errors import BadPayload
from worker.integrations.kit import reading

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

"""Separates rows with ids from others where pending ones may have none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import msgspec

from worker.errors import BadRecord
from worker.integrations.kit import reading


def split(raws: Sequence[msgspec.Raw], account_key: str, is_pending: Callable[[msgspec.Raw], bool]) -> reading.Split:
    """An account's rows with their ids, not yet read. A pending one without an id is recognised by its content.

    Args:
        raws: the JSON text of each row.
        account_key: the account.
        is_pending: of a row; raises `BadRecord`. A posted row without an id is rejected (`id_missing`): it could never
            be withdrawn. So is any row whose id cannot be read (`id_unreadable`).
    """
    seen: Counter[str] = Counter()

    def key_of(raw: msgspec.Raw) -> tuple[str, str]:
        if (id_ := reading.with_id.record(raw).id) not in (None, ""):
            return str(id_), account_key
        if not is_pending(raw):
            raise BadRecord("id_missing")
        return reading.fingerprint(raw, seen, without="account"), account_key

    return reading.split(raws, key_of)

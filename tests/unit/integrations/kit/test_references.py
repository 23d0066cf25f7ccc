"""Keys of rows whose references are not reliable: how often a row is taken apart for them."""

from __future__ import annotations

from collections import Counter
from datetime import date

import msgspec

from worker.errors import BadRecord
from worker.integrations.kit.references import Identity, Rows


def test_row_is_taken_apart_once_and_one_that_cannot_be_read_is_rejected() -> None:
    read: Counter[bytes] = Counter()

    def identify(raw: bytes) -> Identity:
        read[raw] += 1
        if raw == b"bad":
            raise BadRecord("unreadable")
        return Identity(
            None if raw == b"c" else raw.decode(), "content", "twin" if raw in b"ab" else None, date(2025, 3, 1)
        )

    found = Rows(identify, "account").split([msgspec.Raw(raw) for raw in (b"b", b"a", b"c", b"bad")])

    assert [row.key for row in found.rows] == ["a", "content"]
    assert [reject.reason for reject in found.rejects] == ["unreadable"]
    assert {raw: read[raw] for raw in (b"a", b"b", b"c")} == {b"a": 1, b"b": 1, b"c": 1}

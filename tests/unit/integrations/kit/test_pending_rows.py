"""Rows of which a pending one may have no id."""

from __future__ import annotations

import msgspec

from worker.integrations.kit import pending_rows


def split(*rows: bytes) -> tuple[list[str], list[str]]:
    """The keys of rows, and the reasons of the others. Rows with `p` are pending."""
    found = pending_rows.split([msgspec.Raw(row) for row in rows], "A", lambda raw: b'"p"' in bytes(raw))
    assert {row.account_key for row in found.rows} <= {"A"}
    return [row.key for row in found.rows], [one.reason for one in found.rejects]


def test_row_without_an_id_is_recognised_by_its_content_if_it_is_pending() -> None:
    keys, reasons = split(b'{"id":"x"}', b'{"p":1,"a":2}', b'{"a":2,"p":1}', b'{"p":2}', b'{"a":2}', b'{"id":5,"p":1}')

    assert (keys[0], keys[4], reasons) == ("x", "5", ["id_missing"])
    assert keys[2] == f"{keys[1]}:2" != f"{keys[3]}:2"
    assert split(b'{"a": 2, "p": 1}')[0] == keys[1:2]


def test_pending_row_with_an_id_that_cannot_be_read_is_not_taken_for_one_without() -> None:
    keys, reasons = split(b'{"id":1.5,"p":1}', b'{"id":[],"p":1}', b'{"id":null,"p":1}', b'{"id":"","p":2}', b'["p"]')

    assert [key.partition(":")[0] for key in keys] == ["content", "content"]
    assert reasons == ["id_unreadable", "id_unreadable", "not_an_object"]

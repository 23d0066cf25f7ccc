"""Rows by the member `id`, rows as they are mapped, and settings with several words."""

from __future__ import annotations

from decimal import Decimal

import msgspec
import pytest

from worker.errors import BadPayload, BadRecord
from worker.integrations.kit import reading
from worker.integrations.kit.base import RawRecord
from worker.integrations.kit.settings import in_words


class _Shape(msgspec.Struct):
    amount: Decimal
    text: str = ""


SHAPE = reading.Reader(_Shape)


def row(text: str) -> RawRecord:
    return RawRecord("1", "a", text.encode())


def test_rows_have_their_ids_and_those_without_are_rejected_alone() -> None:
    raws = ['{"id":"x"}', '{"id":7}', '{"id":""}', '{"id":null}', "{}", '{"id":[1]}', "[]"]

    found = reading.split_by_id([msgspec.Raw(raw.encode()) for raw in raws], "a")

    assert [(one.key, one.account_key) for one in found.rows] == [("x", "a"), ("7", "a")]
    assert [one.reason for one in found.rejects] == ["id_missing"] * 5


def test_list_of_an_answer_is_split_into_records_that_are_not_read() -> None:
    rows = reading.ListReader("rows")

    assert [bytes(one) for one in rows.page(b'{"more":1,"rows":[1, {"a":NaN}]}')] == [b"1", b'{"a":"NaN"}']
    for body in (b"{}", b"[]", b'{"rows":null}', b"<html>"):
        with pytest.raises(BadPayload):
            rows.page(body)


def test_member_of_an_answer_has_its_type() -> None:
    url = reading.MemberReader("url", str)

    assert url.page(b'{"url":"https://x","id":1}') == "https://x"
    for body in (b"{}", b'{"url":null}', b'{"url":1}', b"https://x"):
        with pytest.raises(BadPayload):
            url.page(body)


def test_row_is_decoded_with_what_was_repaired() -> None:
    given, flags = SHAPE.row(row('{"amount":1.10,"text":"a\\u0000b"}'))

    assert (str(given.amount), given.text, flags) == ("1.10", "ab", ("nul_stripped",))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"amount":"x"}', "amount_unreadable"),
        ('{"amount":1,"amount":2}', "key_twice:amount"),
        ('{"text":"t"}', "amount_missing"),
        ("{", "unreadable"),
    ],
)
def test_row_that_cannot_be_trusted_is_refused(text: str, reason: str) -> None:
    with pytest.raises(BadRecord) as caught:
        SHAPE.row(row(text))

    assert caught.value.reason == reason


def test_words_of_a_setting_are_separated_by_commas() -> None:
    assert in_words(" FI, SE ,, ") == ["FI", "SE"]
    assert in_words("") == []

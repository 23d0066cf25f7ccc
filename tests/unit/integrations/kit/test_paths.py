"""Fields that are read from inner objects."""

from __future__ import annotations

from decimal import Decimal

import msgspec
import pytest

from worker.errors import BadPayload, BadRecord
from worker.integrations.kit import paths, reading


class Row(msgspec.Struct, gc=False):
    amount: Decimal = msgspec.field(name="sum.amount")
    currency: str = msgspec.field(name="sum.currency")
    status: str = "booked"
    iban: str | None = msgspec.field(default=None, name="account-id.iban")
    number: str | None = msgspec.field(default=None, name="account-id.other.number")
    words: list[str] = msgspec.field(default_factory=list, name="info.words")

    @property
    def is_booked(self) -> bool:
        return self.status == "booked"


ROW = reading.Reader(Row)
SUM = b'"sum":{"amount":1.50,"currency":"EUR","more":{}}'


def test_members_of_inner_objects_are_fields_of_the_record() -> None:
    text = b'{%s,"account-id":{"iban":"FI1","other":{"number":"7"}},"info":{"words":["a"]}}' % SUM

    found = ROW.record(text)

    assert found == Row(Decimal("1.50"), "EUR", "booked", "FI1", "7", ["a"])
    assert str(found.amount) == "1.50"
    assert found.is_booked


@pytest.mark.parametrize(
    "more", [b"", b',"account-id":null', b',"account-id":{}', b',"account-id":{"other":null}', b',"info":null']
)
def test_inner_object_that_is_missing_or_null_gives_the_defaults(more: bytes) -> None:
    assert ROW.record(b"{%s%s}" % (SUM, more)) == Row(Decimal("1.50"), "EUR")


def test_records_share_no_default_that_can_be_changed() -> None:
    first, second = ROW.record(b"{%s}" % SUM), ROW.record(b'{%s,"info":null}' % SUM)
    first.words.append("x")

    assert second.words == ROW.record(b'{%s,"info":{}}' % SUM).words == []


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"{}", "sum_missing"),
        (b'{"sum":null}', "sum_unreadable"),
        (b'{"sum":{"amount":1}}', "currency_missing"),
        (b'{"sum":{"amount":"1,5","currency":"EUR"}}', "sum.amount_unreadable"),
        (b'{%s,"account-id":{"other":{"number":[]}}}' % SUM, "account-id.other.number_unreadable"),
        (b'{%s,"account-id":"FI1"}' % SUM, "account-id_unreadable"),
        (b"[]", "not_an_object"),
    ],
)
def test_fault_is_named_by_its_place_in_the_text(text: bytes, reason: str) -> None:
    with pytest.raises(BadRecord) as caught:
        ROW.record(text)

    assert caught.value.reason == reason


def test_single_path_and_answers_of_other_types_are_read_too() -> None:
    class Started(msgspec.Struct):
        url: str = msgspec.field(name="links.self.href")

    assert reading.Reader(Started).page(b'{"links":{"self":{"href":"x"}}}').url == "x"
    assert reading.Reader(dict[str, int]).page(b'{"a.b":1}') == {"a.b": 1}
    with pytest.raises(BadPayload):
        reading.Reader(Started).page(b"{}")


def test_member_that_is_read_as_a_whole_and_by_a_path_is_refused() -> None:
    class Twice(msgspec.Struct):
        name: str = msgspec.field(name="bank.of.name")
        bank: dict[str, str] = msgspec.field(name="bank.of")

    with pytest.raises(TypeError, match=r"^bank\.of is read as a whole and by a path, too$"):
        paths.decoder(Twice)


def test_struct_whose_fields_are_given_by_keyword_is_read_too() -> None:
    class Named(msgspec.Struct, kw_only=True):
        name: str | None = msgspec.field(default=None, name="bank.name")
        id: int

    assert reading.Reader(Named).record(b'{"bank":{"name":"x"},"id":7}') == Named(name="x", id=7)

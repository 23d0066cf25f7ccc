"""Balances and positions that are added to a page, and the parts of the kit that help to read them."""

from __future__ import annotations

from decimal import Decimal

import msgspec
import pytest

from worker.errors import BadRecord
from worker.integrations.kit import account_names, figures, holdings, money, reading
from worker.integrations.kit.base import Page
from worker.integrations.kit.words import by_word, first_within
from worker.models.records import BalanceRecord, HoldingRecord, SecurityRecord
from worker.models.vocabulary import SecurityType


def balance(raw: bytes) -> BalanceRecord:
    if raw == b"0":
        raise BadRecord("balance_unreadable")
    return BalanceRecord(account_key="A", current=Decimal(raw.decode()), source="stated")


def holding(raw: bytes) -> HoldingRecord:
    if raw == b"0":
        raise BadRecord("units_unreadable")
    key = raw.decode()
    security = SecurityRecord(key=key, type=SecurityType.OTHER)
    return HoldingRecord(account_key="A", holding_key=key, security=security, quantity=Decimal(1))


def raws(*texts: bytes) -> list[msgspec.Raw]:
    return [msgspec.Raw(text) for text in texts]


def test_balance_that_cannot_be_read_is_refused_and_the_others_stay() -> None:
    page = Page()
    for raw in (b"1", b"0", b"3"):
        figures.add_balance(page, "A", raw, balance)

    assert [one.current for one in page.balances] == [1, 3]
    assert [(one.kind, one.account_key, one.reason) for one in page.rejects] == [("balance", "A", "balance_unreadable")]


def test_positions_are_all_of_an_account_only_if_each_of_them_can_be_read() -> None:
    page, other = Page(), [holding(b"9")]
    figures.add_holdings(page, "A", raws(b"7", b"7"), holding, more=other)
    figures.add_holdings(page, "B", raws(b"8", b"0"), holding)
    figures.add_holdings(page, "C", [], holding, complete=False)
    figures.add_holdings(page, "D", [], holding)

    assert [one.holding_key for one in page.holdings] == ["7", "7:2", "9", "8"]
    assert page.holdings_complete_for == {"A", "D"}
    assert [(one.kind, one.account_key) for one in page.rejects] == [("holding", "B")]


@pytest.mark.parametrize(
    ("amounts", "held"),
    [
        ([("USD", Decimal(5))], []),
        ([("USD", Decimal(5)), ("CAD", Decimal("-0.5"))], [("x:cash:USD", 5), ("x:cash:CAD", Decimal("-0.5"))]),
        ([("USD", Decimal(0)), ("CAD", None), ("EUR", Decimal(1))], [("x:cash:EUR", 1)]),
        ([], []),
    ],
)
def test_money_is_a_position_of_each_currency_if_there_are_several(
    amounts: list[tuple[str, Decimal | None]], held: list[tuple[str, Decimal]]
) -> None:
    found = holdings.of_money("x", "A", amounts)

    assert [(one.security.key, one.market_value) for one in found] == held


@pytest.mark.parametrize(
    ("given", "institution", "names"),
    [
        ("Checking", "Bank", ("Checking", "Bank Checking", "Bank")),
        ("Bank Checking", "Bank", ("Bank Checking", "Bank Checking", "Bank")),
        ("Checking 123456789", None, ("Checking …6789", "Checking …6789", None)),
        (None, "Bank", ("Bank", "Bank", "Bank")),
        ("Sav\x00ings", " \x00", ("Savings", "Savings", None)),
        ("", "", ("A", "A", None)),
    ],
)
def test_name_of_an_account_has_no_long_number_and_its_institution_once(
    given: str | None, institution: str | None, names: tuple[str, str, str | None]
) -> None:
    found = account_names.names(given, institution, otherwise="A")

    assert (found.name, found.official.strip(), found.institution) == names


@pytest.mark.parametrize(
    ("number", "mask"), [("Q6542138443", "8443"), ("****8443", "8443"), ("123", "23"), ("******", None), ("", None)]
)
def test_mask_is_the_last_letters_and_digits_of_a_number(number: str, mask: str | None) -> None:
    assert account_names.mask(number) == mask


def test_record_that_cannot_be_read_is_replaced() -> None:
    reader = reading.Reader(dict[str, int])

    assert reader.record_or(b'{"a": 1}', {}) == {"a": 1}
    assert reader.record_or(b'{"a": "x"}', {}) == reader.record_or(b"null", {}) == {}


@pytest.mark.parametrize(
    ("value", "reason"), [("0", "x_not_positive"), ("-1", "x_not_positive"), ("NaN", "x_not_finite")]
)
def test_number_that_must_be_above_zero_is_refused_by_name(value: str, reason: str) -> None:
    assert money.positive(Decimal("0.5"), "x") == Decimal("0.5")
    with pytest.raises(BadRecord) as caught:
        money.positive(Decimal(value), "x")
    assert caught.value.reason == reason


def test_every_word_of_a_table_has_its_meaning() -> None:
    assert by_word((1, "a  b"), (2, "c"), (3, "")) == {"a": 1, "b": 1, "c": 2}


def stated(*kinds: str, currency: str = "EUR") -> list[BalanceRecord]:
    return [
        BalanceRecord(account_key="a", current=Decimal(place), source=kind, currency=currency)
        for place, kind in enumerate(kinds, 1)
    ]


@pytest.mark.parametrize(
    ("kinds", "current", "available"),
    [
        (("FREE", "NOW", "END"), "END", Decimal(1)),
        (("NOW", "NOW"), "NOW", None),
        (("ODD", "FREE"), "ODD", Decimal(2)),
    ],
)
def test_balance_of_several_kinds_is_the_first_that_is_preferred(
    kinds: tuple[str, ...], current: str, available: Decimal | None
) -> None:
    (found,) = figures.preferred(stated(*kinds), "EUR", current=("END", "NOW"), available=("FREE",))

    assert (found.source, found.current, found.available) == (current, Decimal(kinds.index(current) + 1), available)


def test_balance_in_the_currency_of_the_account_comes_first() -> None:
    both = [*stated("END", currency="USD"), *stated("NOW")]

    assert [one.currency for one in figures.preferred(both, "EUR", current=("END", "NOW"), available=())] == ["EUR"]
    assert [one.currency for one in figures.preferred(both[:1], "EUR", current=(), available=())] == ["USD"]
    assert figures.preferred([], "EUR", current=("END",), available=("END",)) == []


def test_first_word_of_a_table_that_a_text_has_counts() -> None:
    table = (("loan", 1), ("card", 2))

    assert [first_within(text, table, otherwise=0) for text in ("a cardloan", "postcards", "")] == [1, 2, 0]

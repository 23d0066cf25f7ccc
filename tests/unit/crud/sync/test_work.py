from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from worker.crud.sync import nouns
from worker.crud.sync.work import Prepared, Rules, joined, prepare
from worker.integrations.kit.base import Page, RawRecord, Removal, Window
from worker.models.records import Reject, TransactionRecord

RULES = Rules(content_hashes=nouns.raw_hasher("model", 1), mask=lambda raw: {}, mass_deletion_share=0.5)


def read(raw: RawRecord) -> TransactionRecord:
    raise AssertionError(raw)


def page(*keys: str, **more: Any) -> tuple[Page, Prepared]:
    rows = [RawRecord(key, "A", key.encode()) for key in keys]
    made = Page(**{"feed": "feed", "cursor": "-".join(keys), "transactions": rows, "map_transaction": read} | more)
    return made, prepare(made, RULES)


def keys_of(pages: list[tuple[Page, Prepared]]) -> list[list[str]]:
    return [list(prepared.keys) for _, prepared in pages]


def test_pages_that_only_list_transactions_become_one_with_the_last_ones_place() -> None:
    ((found, prepared),) = joined([page("a", "b", more=True), page("c", more=True), page("d")])

    assert (found.cursor, found.more) == ("d", False)
    assert [raw.key for raw in found.transactions] == ["a", "b", "c", "d"]
    assert prepared == prepare(found, RULES)


def test_empty_sequence_of_any_kind_says_nothing() -> None:
    empty: dict[str, Any] = {"removals": [], "rejects": [], "windows": [], "problems": []}

    assert keys_of(list(joined([page("a", **empty), page("b")]))) == [["a", "b"]]


def test_what_the_last_page_does_besides_listing_stays_with_it() -> None:
    ((found, _),) = joined([page("a", more=True), page("b", removals=[Removal("x", None)])])

    assert list(found.removals) == [Removal("x", None)]


@pytest.mark.deep
@pytest.mark.parametrize(
    "more",
    [
        {"removals": [Removal("b", None)]},
        {"windows": [Window("A", date(2025, 1, 1), date(2025, 1, 31))]},
        {"rejects": [Reject(kind="transaction", reason="unreadable")]},
        {"accounts_complete": True},
        {"holdings_complete_for": frozenset({"A"})},
        {"map_transaction": lambda raw: read(raw)},
        {"feed": "other"},
    ],
    ids=lambda more: next(iter(more)),
)
def test_page_that_does_more_than_list_is_stored_before_the_next_one(more: dict[str, Any]) -> None:
    assert keys_of(list(joined([page("a", **more), page("b")]))) == [["a"], ["b"]]


def test_pages_that_list_the_same_record_stay_apart() -> None:
    assert keys_of(list(joined([page("a", "b"), page("b", "c"), page("d")]))) == [["a", "b"], ["b", "c", "d"]]


def test_page_that_lists_some_days_completely_does_not_answer_for_the_one_before_it() -> None:
    days = [Window("A", date(2025, 1, 1), date(2025, 1, 31))]

    assert keys_of(list(joined([page("a"), page("b", windows=days)]))) == [["a"], ["b"]]


def test_windows_keep_no_pages_apart_while_nothing_is_stored_that_they_could_miss() -> None:
    days = [Window("A", date(2025, 1, 1), date(2025, 1, 31))]
    pages = [page("a", windows=days), page("b", windows=days)]

    assert keys_of(list(joined(pages, heed_windows=False))) == [["a", "b"]]
    assert keys_of(list(joined(pages))) == [["a"], ["b"]]


def test_conflicts_of_each_page_are_remembered() -> None:
    twice = [RawRecord("a", "A", b"1"), RawRecord("a", "A", b"2")]
    first = Page(feed="feed", transactions=twice, map_transaction=read)

    ((_, prepared),) = joined([(first, prepare(first, RULES)), page("b")])

    assert prepared.conflicting == {("A", "a")}


def test_no_pages_stay_no_pages() -> None:
    assert list(joined([])) == []

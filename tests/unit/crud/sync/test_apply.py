from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

import pytest

from worker.crud.sync import nouns
from worker.crud.sync.apply import are_safe_keys, is_safe_key, new_ids
from worker.crud.sync.noun import Noun, noun_of
from worker.crud.sync.work import Rules, Tally, prepare
from worker.models import Security
from worker.models.pages import Page, RawRecord
from worker.models.records import BalanceRecord, SecurityRecord
from worker.models.vocabulary import SecurityType

ACCOUNT = bytes(16)
NOUNS = (nouns.ACCOUNTS, nouns.BALANCES, nouns.SECURITIES, nouns.HOLDINGS, nouns.LIABILITIES, nouns.TRANSACTIONS)
RULES = Rules(content_hashes=nouns.raw_hasher("model", 1), mask=lambda raw: {}, mass_deletion_share=0.5)


@pytest.mark.deep
def test_ids_are_uuids_of_version_7_in_rising_order() -> None:
    ids = new_ids(5000)

    found = [UUID(bytes=id_) for id_ in ids]
    assert len(set(ids)) == 5000
    assert {(id_.version, id_.variant) for id_ in found} == {(7, "specified in RFC 4122")}
    assert ids[:4096] == sorted(ids[:4096])
    assert new_ids(0) == []


@pytest.mark.parametrize("key", ["a", "ключ", "k" * 512, "with space"])
def test_usual_keys_are_safe(key: str) -> None:
    assert is_safe_key(key)
    assert are_safe_keys([key, "other"])


@pytest.mark.parametrize("key", ["", "a\x1fb", "a\x00", "line\nbreak", "\udfff", "k" * 513])
def test_keys_that_cannot_be_stored_or_told_apart_are_not_safe(key: str) -> None:
    assert not is_safe_key(key)
    assert not are_safe_keys(["good", key])


def test_no_keys_are_safe_keys() -> None:
    assert are_safe_keys([])


@pytest.mark.parametrize("noun", NOUNS, ids=lambda noun: noun.name)
def test_a_row_begins_with_its_id_and_ends_with_what_the_record_says(noun: Noun) -> None:
    columns = list(noun.columns)

    assert columns[0] == "id"
    assert columns[-len(noun.fields) :] == list(noun.fields)
    assert {noun.scope or "id", noun.key, "content_hash"} <= set(columns)


def test_key_and_scope_of_a_row_are_found_by_name() -> None:
    row = tuple(nouns.HOLDINGS.columns)

    assert (nouns.HOLDINGS.scope_of(row), nouns.HOLDINGS.key_of(row)) == ("account_id", "holding_key")


def test_a_column_that_neither_record_nor_caller_fills_is_named_at_once() -> None:
    with pytest.raises(
        TypeError, match=r"Security has no columns \['colour'\] .* SecurityRecord no attributes \['source'\]"
    ):
        noun_of(Security, SecurityRecord, scope=None, key="key", given=("content_hash", "colour"))


def test_change_leaves_kept_columns_alone() -> None:
    assert b'"loop_id" = ' not in nouns.TRANSACTIONS.update_statement
    assert b'"amount" = listed."amount"' in nouns.TRANSACTIONS.update_statement


def test_new_mapping_version_and_other_integration_change_the_hash() -> None:
    hashes = {nouns.raw_hasher(key, version)([b"{}"])[0] for key in ("a", "b") for version in (1, 2)}

    assert len(hashes) == 4
    assert all(len(one) == 16 for one in hashes)


def balance(day: int, **changes: object) -> bytes:
    fields: dict[str, object] = {"account_key": "A", "current": Decimal("1.10"), "source": "x"}
    record = BalanceRecord(**fields | changes)  # type: ignore[arg-type]
    return nouns.balance(record, ACCOUNT, ACCOUNT, datetime(2025, 3, day, tzinfo=UTC)).entry.hash


def test_balance_hash_moves_with_the_figure_and_the_day_and_not_with_its_time() -> None:
    assert balance(1) == balance(1, as_of=datetime(2025, 3, 1, 9, tzinfo=UTC))
    assert len({balance(1), balance(2), balance(1, current=Decimal("1.11")), balance(1, current=None)}) == 4


def test_security_hash_depends_on_who_describes_it() -> None:
    record = SecurityRecord(key="cusip:1", type=SecurityType.EQUITY)

    assert nouns.security(record, "a").entry.hash != nouns.security(record, "b").entry.hash


def test_prepared_page_has_each_key_once_and_says_where_two_differ() -> None:
    rows = [
        RawRecord("t1", "A", b"1"),
        RawRecord("t1", "A", b"1"),
        RawRecord("t2", "A", b"1"),
        RawRecord("t2", "A", b"2"),
    ]

    prepared = prepare(Page(transactions=[*rows, RawRecord("t1", "B", b"3")]), RULES)

    assert [(raw.account_key, raw.key, raw.raw) for raw in prepared.rows] == [
        ("A", "t1", b"1"),
        ("A", "t2", b"2"),
        ("B", "t1", b"3"),
    ]
    assert prepared.conflicting == {("A", "t2")}
    assert len(prepared.hashes) == len(prepared.keys) == len(prepared.account_keys) == 3


def test_tally_adds_up_by_noun_and_outcome() -> None:
    tally = Tally()
    tally.add("transactions", added=3, unchanged=4)
    tally.add("accounts", added=1)
    tally["transactions", "quarantined"] += 1

    assert tally.nested() == {
        "transactions": {"added": 3, "unchanged": 4, "quarantined": 1},
        "accounts": {"added": 1},
    }
    assert (tally.total(), tally.total("added"), tally.total("removed")) == (9, 4, 0)

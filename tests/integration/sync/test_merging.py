"""A person says which accounts are the same, and takes it back."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from decimal import Decimal
from itertools import count
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from tests.integration.sync.eras import Institution, Moved
from tests.integration.sync.test_file_over_login import ACCOUNT, FILE, NEWER, SAME, Person, at_bank, person
from tests.integration.sync.test_identity import rows_of
from tests.integration.sync.test_relinks import relinked
from worker.crud.sync import sources
from worker.errors import NotFound, Refused
from worker.services.fleet import merging

__all__ = ["person"]

AMOUNTS = Counter([Decimal("-12.50"), Decimal(7), Decimal(7), Decimal(-1)])


def without_mask(*rows: Moved) -> Institution:
    """An institution that does not tell masks, so a file gets an account of its own."""
    institution = at_bank(*rows)
    institution.add(replace(ACCOUNT, mask=None))
    return institution


def ids(person: Person) -> dict[str, UUID]:
    return dict(person.linked.rows("SELECT name, id FROM accounts"))


def amounts(person: Person, account_id: UUID) -> Counter[Decimal]:
    return Counter(row[2] for row in rows_of(person.linked).values() if row[0] == account_id)


def tables(person: Person) -> dict[str, list[str]]:
    """Everything of the two accounts, without what only says when it was written."""
    queries = {
        "accounts": "SELECT (to_jsonb(t) - '{content_hash,run_id,opening,opening_from}'::text[])::text FROM accounts t",
        "transactions": "SELECT (to_jsonb(t) - '{content_hash,run_id}'::text[])::text FROM transactions t",
        "balances": "SELECT to_jsonb(t)::text FROM balances t",
        "balance_days": "SELECT to_jsonb(t)::text FROM balance_days t",
        "sources": "SELECT to_jsonb(t)::text FROM account_sources t",
        "keys": "SELECT to_jsonb(t)::text FROM transaction_keys t",
    }
    return {name: sorted(row[0] for row in person.linked.rows(query)) for name, query in queries.items()}


@pytest.fixture
def doubled(person: Person) -> Person:
    """A person whose account at an institution is there a second time, from a file; each has a row of its own."""
    person.sync(without_mask(SAME[0], SAME[1], NEWER))
    person.give(FILE)
    assert set(ids(person)) == {"checking", "savings", "Checking …6789"}
    return person


def merge(person: Person, *, dry_run: bool = False) -> Any:
    known = ids(person)
    given = (str(known["Checking …6789"]), str(known["checking"]))
    return person.runtime.run(merging.merge(person.runtime, *given, actor="test", dry_run=dry_run))


def undo(person: Person, change: Any) -> Any:
    return person.runtime.run(merging.undo(person.runtime, str(change.id), actor="test", dry_run=False))


@pytest.mark.deep
def test_merged_account_has_each_transaction_once_and_syncs_and_files_double_nothing(doubled: Person) -> None:
    account_id = ids(doubled)["checking"]

    done = merge(doubled)

    assert (done.shared, done.moved) == (2, 1)
    assert set(ids(doubled)) == {"checking", "savings"}
    assert amounts(doubled, account_id) == AMOUNTS
    before = rows_of(doubled.linked)
    assert doubled.give(FILE).added == 0
    assert doubled.linked.sync(mode="full").added == 0
    assert rows_of(doubled.linked) == before


@pytest.mark.deep
def test_merge_that_is_undone_leaves_everything_as_it_was(doubled: Person) -> None:
    before = tables(doubled)

    undo(doubled, merge(doubled))

    assert tables(doubled) == before
    assert doubled.give(FILE).counts["transactions"] == {"unchanged": 3}
    assert doubled.linked.sync().counts.get("transactions", {}).keys() <= {"unchanged"}
    assert tables(doubled) == before


@pytest.mark.deep
def test_what_came_after_a_merge_goes_to_the_account_whose_login_listed_it(doubled: Person) -> None:
    known = ids(doubled)
    done = merge(doubled)
    institution = doubled.linked.integration.institution  # type: ignore[attr-defined]
    institution.put(Moved(20, "checking", "-3.00", day=21))
    doubled.linked.sync()
    doubled.give(FILE.replace(b"20250301", b"20250221"))

    undo(doubled, done)

    assert amounts(doubled, known["checking"])[Decimal("-3.00")] == 1
    assert amounts(doubled, known["Checking …6789"]) == Counter({Decimal(7): 2, Decimal("-12.50"): 2})


@pytest.mark.deep
def test_dry_run_says_the_numbers_and_changes_nothing(doubled: Person) -> None:
    before = tables(doubled)

    done = merge(doubled, dry_run=True)

    assert (done.shared, done.moved) == (2, 1)
    assert tables(doubled) == before
    assert doubled.linked.rows("SELECT 1 FROM account_changes") == []


@pytest.mark.deep
def test_split_gives_file_and_login_an_account_each_and_they_stay_apart(person: Person) -> None:
    person.sync(at_bank(*SAME, NEWER))
    person.give(FILE)
    account_id = ids(person)["checking"]
    before = rows_of(person.linked)

    done = split(person, account_id)

    assert (done.shared, done.moved) == (3, 0)
    assert amounts(person, account_id) == AMOUNTS
    assert amounts(person, done.other_id) == AMOUNTS - Counter([Decimal(-1)])
    assert before.items() <= rows_of(person.linked).items()
    person.give(FILE)
    person.linked.sync(mode="full")
    assert (amounts(person, account_id).total(), amounts(person, done.other_id).total()) == (4, 3)
    assert person.linked.rows("SELECT 1 FROM account_sources") == []


def split(person: Person, account_id: UUID) -> Any:
    return person.runtime.run(merging.split(person.runtime, str(account_id), None, actor="test", dry_run=False))


def test_account_that_was_wrongly_recognised_is_split_into_the_old_one_and_the_new_one(person: Person) -> None:
    institution = at_bank(*SAME)
    person.sync(institution)
    before, account_id = rows_of(person.linked), ids(person)["checking"]
    other = Institution()
    other.add(ACCOUNT)
    other.put(replace(SAME[0], text="Something else"), Moved(30, "checking", "9.00", day=30))
    relinked(person.linked, "second")
    person.linked.integration.era = "second"  # type: ignore[attr-defined]
    person.sync(other)

    done = split(person, account_id)

    assert person.linked.rows("SELECT status FROM accounts WHERE id = :account", account=account_id) == [
        ("inaccessible",)
    ]
    assert {key: row[1:3] for key, row in rows_of(person.linked).items() if row[0] == account_id} == {
        key: row[1:3] for key, row in before.items()
    }
    assert amounts(person, done.other_id) == Counter([Decimal("-12.50"), Decimal(9)])
    assert person.linked.sync().added <= 1  # a balance
    assert amounts(person, done.other_id).total() == 2


@pytest.mark.deep
def test_split_that_is_undone_is_one_account_again_and_goes_on(person: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    falling = count(1 << 120, -1)  # ids of the same millisecond have no order
    monkeypatch.setattr(sources, "new_id", lambda: UUID(int=next(falling)))
    person.sync(at_bank(*SAME, NEWER))
    person.give(FILE)
    account_id = ids(person)["checking"]
    before = rows_of(person.linked)

    undo(person, split(person, account_id))

    assert rows_of(person.linked) == before
    assert person.give(FILE).added == 0
    assert person.linked.sync().changed == 0
    assert rows_of(person.linked) == before


def test_what_cannot_be_merged_or_undone_says_why_and_changes_nothing(doubled: Person) -> None:
    known, before = ids(doubled), tables(doubled)
    call = {"actor": "test", "dry_run": False}
    file, login, savings = (str(known[name]) for name in ("Checking …6789", "checking", "savings"))

    for first, into, why in ((login, login, "same account"), (login, file, "dashtam accounts merge")):
        with pytest.raises(Refused, match=why):
            doubled.runtime.run(merging.merge(doubled.runtime, first, into, **call))
    with pytest.raises(Refused, match="nothing to split"):
        doubled.runtime.run(merging.split(doubled.runtime, savings, None, **call))
    with pytest.raises(NotFound):
        doubled.runtime.run(merging.merge(doubled.runtime, "ffffffff", savings, **call))
    doubled.linked.execute("UPDATE accounts SET currency = 'EUR' WHERE name = 'savings'")
    with pytest.raises(Refused, match="EUR"):
        doubled.runtime.run(merging.merge(doubled.runtime, login, savings, **call))
    doubled.linked.execute("UPDATE accounts SET currency = 'USD' WHERE name = 'savings'")
    assert tables(doubled) == before
    done = merge(doubled)
    undo(doubled, done)
    with pytest.raises(Refused, match="undone already"):
        undo(doubled, done)


@pytest.mark.deep
def test_every_table_that_belongs_to_an_account_is_known_to_a_merge(doubled: Person) -> None:
    query = text(
        "SELECT conrelid::regclass::text FROM pg_constraint WHERE contype = 'f' AND confrelid = 'accounts'::regclass"
    )
    with doubled.runtime.transaction() as session:
        found = set(session.execute(query).scalars())

    assert found == {
        "balances",
        "balance_days",
        "holdings",
        "liabilities",
        "transactions",
        "book_drifts",
        "account_sources",
    }

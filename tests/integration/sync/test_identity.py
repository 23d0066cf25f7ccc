"""A login is linked again and gets new ids: accounts and rows stay the same ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from tests.integration.sync.conftest import Linked
from tests.integration.sync.eras import EraIntegration, Institution, Kept, Moved
from tests.integration.sync.feeds import Plan
from tests.integration.sync.test_relinks import relinked
from tests.support.feed_copy import Copy, stored
from worker.errors import Fenced
from worker.models import SyncRun
from worker.models.feed import Change
from worker.models.vocabulary import RunStatus
from worker.services import feed

pytestmark = pytest.mark.deep

Rows = dict[UUID, tuple[Any, ...]]


def bank(*accounts: Kept) -> Institution:
    institution = Institution()
    institution.add(*(accounts or (Kept("checking"), Kept("savings", mask="0002"))))
    institution.put(
        *(Moved(number, "checking", "-5.00", day=number // 2) for number in range(6)),  # two equal ones a day
        Moved(10, "savings", "100.00", day=1, text="Salary"),
        Moved(11, "checking", "-7.50", day=3, text="Bookshop", status="pending"),
    )
    return institution


def rows_of(linked: Linked) -> Rows:
    """Every row that is not withdrawn, by our id: account, day, amount, description, status."""
    found = linked.rows(
        "SELECT t.id, a.id, t.posted_date, t.amount, t.description, t.status FROM transactions t"
        " JOIN accounts a ON a.id = t.account_id WHERE t.status <> 'removed'"
    )
    return {row[0]: row[1:] for row in found}


def accounts_of(linked: Linked) -> dict[str, UUID]:
    return dict(linked.rows("SELECT name, id FROM accounts WHERE status = 'active'"))


def looks_of(linked: Linked) -> list[tuple[str, date, Decimal, str, str]]:
    names = {id_: name for name, id_ in linked.rows("SELECT name, id FROM accounts")}
    return sorted((names[row[0]], *row[1:]) for row in rows_of(linked).values())


Link = Callable[[Institution], Linked]


@pytest.fixture
def link(link_model: Callable[..., Linked]) -> Link:
    """Links the first era of an institution, and syncs it."""

    def link_and_sync(institution: Institution) -> Linked:
        linked = link_model(EraIntegration(institution))
        linked.execute("UPDATE providers SET external_id = 'first' WHERE id = :id")
        assert linked.sync().status == RunStatus.COMPLETED
        return linked

    return link_and_sync


def link_again(linked: Linked, era: str = "second") -> SyncRun:
    """Links the same login by a new Item, and syncs it."""
    relinked(linked, era)
    linked.integration.era = era  # type: ignore[attr-defined]
    return linked.sync()


def test_login_that_is_linked_again_keeps_its_accounts_and_rows_under_the_same_ids(link: Link) -> None:
    institution = bank()
    linked = link(institution)
    accounts, rows = accounts_of(linked), rows_of(linked)

    run = link_again(linked)

    assert run.status == RunStatus.COMPLETED
    assert accounts_of(linked) == accounts
    assert rows_of(linked) == rows
    assert linked.rows("SELECT DISTINCT split_part(provider_transaction_id, '/', 1) FROM transactions") == [("second",)]
    again = linked.sync()
    assert (again.status, again.mode, again.added, again.changed, again.removed) == (
        "completed",
        "incremental",
        0,
        0,
        0,
    )


def test_rows_that_came_and_went_between_two_links_are_added_and_withdrawn_and_no_other_changes(link: Link) -> None:
    institution = bank()
    linked = link(institution)
    before = rows_of(linked)
    institution.put(Moved(20, "checking", "-5.00", day=2), Moved(21, "checking", "-1.00", day=9, text="Kiosk"))
    del institution.rows[0]
    institution.put(replace(institution.rows[11], status="posted", day=5))
    institution.put(replace(institution.rows[10], text="SALARY, march"))

    run = link_again(linked)

    after = rows_of(linked)
    assert run.status == RunStatus.COMPLETED
    assert looks_of(linked) == institution.looks()
    assert len(after.keys() - before.keys()) == 2
    assert len(before.keys() - after.keys()) == 1


def test_history_that_the_new_link_does_not_list_any_more_is_kept(link: Link) -> None:
    institution = bank()
    linked = link(institution)
    before = rows_of(linked)
    for number in range(4):
        del institution.rows[number]

    run = link_again(linked)

    assert run.status == RunStatus.COMPLETED
    assert rows_of(linked) == before


@pytest.mark.parametrize("times", [2, 3])
def test_login_may_be_linked_again_and_again(link: Link, times: int) -> None:
    institution = bank()
    linked = link(institution)
    rows = rows_of(linked)

    for number in range(times):
        link_again(linked, f"link {number}")

    assert rows_of(linked) == rows
    assert linked.sync().changed == 0


def test_run_that_dies_after_accounts_were_recognised_is_gone_on_with_as_a_full_sync(link: Link) -> None:
    institution = bank()
    linked = link(institution)
    del institution.rows[3]
    institution.put(Moved(20, "checking", "-1.00", text="Kiosk"))
    relinked(linked, "second")
    linked.integration.era = "second"  # type: ignore[attr-defined]
    asked = linked.integration.asked
    linked.integration.plan = Plan(mutate_before={asked + 3: lambda: relinked(linked, "second")})
    with pytest.raises(Fenced):
        linked.sync()
    linked.integration.plan = Plan()

    run = linked.sync()

    assert (run.status, run.mode) == (RunStatus.COMPLETED, "full")
    assert looks_of(linked) == institution.looks()


def test_stable_id_says_more_than_names(link: Link) -> None:
    institution = bank(Kept("one", lasting=("a",)), Kept("one'", lasting=("b",)))
    institution.rows.clear()
    institution.put(Moved(1, "one", "1.00"), Moved(2, "one'", "2.00"))
    linked = link(institution)
    before = dict(linked.rows("SELECT stable_keys[1], id FROM accounts"))
    institution.add(replace(institution.accounts["one"], mask="9999"))

    link_again(linked)

    assert dict(linked.rows("SELECT stable_keys[1], id FROM accounts WHERE status = 'active'")) == before


def test_two_accounts_that_look_alike_are_not_guessed_between(link: Link) -> None:
    institution = bank(Kept("one"), Kept("one'"), Kept("other", mask="0003"))
    institution.rows.clear()
    institution.put(Moved(1, "one", "1.00"), Moved(2, "one'", "2.00"), Moved(3, "other", "3.00"))
    linked = link(institution)
    before = {id_ for (id_,) in linked.rows("SELECT id FROM accounts WHERE name = 'one'")}
    other = linked.rows("SELECT id FROM accounts WHERE name = 'other'")

    link_again(linked)

    active = {id_ for (id_,) in linked.rows("SELECT id FROM accounts WHERE name = 'one' AND status = 'active'")}
    assert len(active) == 2
    assert active.isdisjoint(before)
    assert linked.rows("SELECT id FROM accounts WHERE name = 'other'") == other


@pytest.mark.parametrize(
    "changes",
    [{"mask": "4321"}, {"institution": "ins_2"}, {"currency": "EUR"}, {"lasting": ("another",)}],
    ids=["mask", "institution", "currency", "stable_id"],
)
def test_account_that_differs_is_another_one(link: Link, changes: dict[str, Any]) -> None:
    institution = bank(Kept("checking", lasting=("one",)))
    del institution.rows[10]
    linked = link(institution)
    before = accounts_of(linked)
    institution.accounts["checking"] = replace(institution.accounts["checking"], **{"lasting": ()} | changes)

    link_again(linked)

    assert accounts_of(linked) != before
    assert linked.rows("SELECT status FROM accounts ORDER BY id") == [("inaccessible",), ("active",)]


def test_account_that_gets_another_id_within_one_link_goes_on_as_the_same(link: Link) -> None:
    institution = bank()
    linked = link(institution)
    accounts, rows = accounts_of(linked), rows_of(linked)
    linked.integration.era = "second"  # type: ignore[attr-defined]
    linked.execute("DELETE FROM sync_cursors WHERE provider_id = :id")

    run = linked.sync()

    assert run.mode == "full"
    assert (accounts_of(linked), rows_of(linked)) == (accounts, rows)


def test_change_feed_tells_a_reader_of_no_row_that_went_and_came(link: Link) -> None:
    institution = bank()
    linked = link(institution)
    copy = Copy()
    read_feed(linked, copy)
    institution.put(Moved(20, "checking", "-1.00", text="Kiosk"), replace(institution.rows[10], text="Salary, march"))

    link_again(linked)
    changes = read_feed(linked, copy)

    told = Counter((change.noun.value, change.change.value) for change in changes if change.noun.value != "balances")
    assert told == {("accounts", "modified"): 2, ("transactions", "added"): 1, ("transactions", "modified"): 1}
    with linked.runtime.transaction() as session:
        assert copy.rows == stored(session)


def read_feed(linked: Linked, copy: Copy) -> list[Change[Any]]:
    """Reads the change feed to its end."""

    async def read() -> list[Change[Any]]:
        told: list[Change[Any]] = []
        async for found in feed.changes(linked.runtime, user_id=None, cursor=copy.cursor):
            told += found.items
            copy.cursor = found.cursor
        return told

    told = linked.runtime.run(read())
    copy.apply(told)
    return told

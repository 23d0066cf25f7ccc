"""Any history of a login that is linked again, and any file over a login: every transaction is there once."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.integration.sync.conftest import Linked
from tests.integration.sync.eras import FIRST_DAY, EraIntegration, Institution, Kept, Moved
from tests.integration.sync.test_file_over_login import ACCOUNT, Person
from tests.integration.sync.test_relinks import relinked
from tests.support.fixtures import MakeRuntime
from tests.unit.integrations.statement_files.test_ofx import sgml, sgml_row
from worker.models.vocabulary import RunStatus

EXAMPLES = int(os.environ.get("DEEP_EXAMPLES", "200"))
FEW = settings(
    max_examples=12,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.generate, Phase.shrink),
)
PARTS = 5
MANY = settings(FEW, max_examples=EXAMPLES // PARTS)

# Two accounts that look alike, and two that do not.
ACCOUNTS = (Kept("one"), Kept("one'"), Kept("two", mask="0002"), Kept("three", mask="0003"))
ROW = st.tuples(
    st.integers(0, len(ACCOUNTS) - 1),
    st.sampled_from(["-5.00", "-5.01", "12.30"]),
    st.integers(0, 4),
    st.sampled_from(["Coffee", "Rent", ""]),
    st.sampled_from(["posted", "posted", "pending"]),
)
FATE = st.sampled_from(["kept", "kept", "kept", "kept", "renamed", "posted", "gone"])
HISTORY = st.tuples(
    st.lists(st.tuples(ROW, FATE), max_size=20), st.lists(ROW, max_size=6), st.integers(2, 4), st.sampled_from([3, 50])
)
History = tuple[list[tuple[tuple[Any, ...], str]], list[tuple[Any, ...]], int, int]
Looks = Counter[tuple[Any, ...]]


def moved(number: int, row: tuple[Any, ...]) -> Moved:
    account, *more = row
    return Moved(number, ACCOUNTS[account].name, *more)


def later(row: Moved, fate: str) -> list[Moved]:
    """What the institution says of a row when the login is linked again."""
    if fate == "gone":
        return []
    if fate == "renamed":
        return [replace(row, text=f"{row.text} (card)")]
    return [replace(row, status="posted", day=row.day + 1)] if fate == "posted" and row.status == "pending" else [row]


class Story:
    """One login that is linked, synced, linked again and synced."""

    def __init__(self, link_model: Callable[..., Linked], history: History) -> None:
        rows, more, accounts, page_size = history
        kept = ACCOUNTS[:accounts]
        before = [(moved(number, row), fate) for number, (row, fate) in enumerate(rows) if row[0] < accounts]
        self.old, self.new = Institution(), Institution()
        for institution in (self.old, self.new):
            institution.add(*kept)
        self.old.put(*(row for row, _ in before))
        self.new.put(*(after for row, fate in before for after in later(row, fate)))
        self.new.put(*(moved(100 + number, row) for number, row in enumerate(more) if row[0] < accounts))
        self.linked = link_model(EraIntegration(self.old))
        self.linked.integration.page_size = page_size  # type: ignore[attr-defined]
        self.linked.execute("UPDATE providers SET external_id = id || 'first' WHERE id = :id")

    def live(self) -> dict[UUID, tuple[Any, ...]]:
        """Every transaction of an account that is read, by our id."""
        found = self.linked.rows(
            "SELECT t.id, a.provider_account_id, t.posted_date, t.amount, t.description, t.status"
            " FROM transactions t JOIN accounts a ON a.id = t.account_id"
            " WHERE a.provider_id = :id AND a.status = 'active' AND t.status <> 'removed'"
        )
        return {row[0]: (row[1].partition("/")[2], *row[2:]) for row in found}

    def link_again(self) -> None:
        relinked(self.linked, f"{self.linked.provider_id} second")
        self.linked.integration.institution, self.linked.integration.era = self.new, "second"  # type: ignore[attr-defined]

    def expected(self) -> tuple[Looks, Looks]:
        """What the institution lists now, and of accounts that were recognised what is older than that.

        Pending rows among the latter may have turned into posted ones that are listed, so they come by themselves.
        """
        listed, first = self.new.looks(), {}
        for account, day, *_ in listed:
            first[account] = min(first.get(account, day), day)
        alike = {"one", "one'"}
        oldest = min(first.values(), default=None)
        older = [
            row
            for row in self.old.looks()
            if row[0] not in alike and (oldest is None or row[1] < first.get(row[0], oldest))
        ]
        pending = Counter(row for row in older if row[-1] == "pending")
        return Counter([*listed, *older]) - pending, pending


def tell(link_model: Callable[..., Linked], history: History) -> None:
    story = Story(link_model, history)
    assert story.linked.sync().status == RunStatus.COMPLETED
    before = story.live()
    assert Counter(before.values()) == Counter(story.old.looks())
    story.link_again()

    run = story.linked.sync()

    after = story.live()
    assert run.status == RunStatus.COMPLETED
    expected, maybe = story.expected()
    assert expected <= Counter(after.values()) <= expected + maybe
    same = Counter(story.old.looks()) & Counter(after.values())
    recognised = sum(count for row, count in same.items() if row[0] not in ("one", "one'"))
    assert len(before.keys() & after.keys()) >= recognised
    again = story.linked.sync()
    assert (again.added, again.changed, again.removed) == (0, 0, 0)
    assert story.live() == after


@pytest.mark.deep
@given(history=HISTORY)
@FEW
def test_any_history_that_is_linked_again_is_there_once(link_model: Callable[..., Linked], history: History) -> None:
    tell(link_model, history)


@pytest.mark.release
@pytest.mark.parametrize("part", range(PARTS))
@given(history=HISTORY)
@MANY
def test_two_hundred_histories_that_are_linked_again_are_there_once(
    link_model: Callable[..., Linked], part: int, history: History
) -> None:
    tell(link_model, history)


CELL = st.tuples(st.integers(1, 9), st.sampled_from(["-5.00", "7.00"]))
FILED = st.tuples(st.lists(CELL, min_size=1, max_size=8), st.lists(CELL, max_size=8), st.booleans())


@pytest.mark.deep
@given(books=FILED)
@FEW
def test_any_file_over_a_login_adds_what_is_missing_and_nothing_else(
    make_runtime: MakeRuntime, books: tuple[list[tuple[int, str]], list[tuple[int, str]], bool]
) -> None:
    in_file, at_login, file_first = books
    person = Person(make_runtime)
    person.linked.execute("UPDATE providers SET external_id = NULL WHERE id = :id")
    institution = Institution()
    institution.add(ACCOUNT)
    institution.put(
        *(Moved(number, "checking", amount, day=day - 1, text="") for number, (day, amount) in enumerate(at_login))
    )
    content = sgml(*(sgml_row(str(n), f"202503{day:02}", amount) for n, (day, amount) in enumerate(in_file)))
    steps = [lambda: person.sync(institution), lambda: person.give(content)]

    for step in reversed(steps) if file_first else steps:
        step()

    expected = Counter(in_file) | Counter(at_login)
    assert found(person) == expected
    person.give(content)
    person.linked.sync(mode="full")
    assert found(person) == expected


def found(person: Person) -> Counter[tuple[int, str]]:
    rows = person.linked.rows(
        "SELECT t.posted_date, t.amount FROM transactions t JOIN accounts a ON a.id = t.account_id"
        " JOIN providers p ON p.id = a.provider_id WHERE p.user_id = :user AND t.status <> 'removed'",
        user=person.user_id,
    )
    return Counter(((day - FIRST_DAY).days + 1, f"{amount:.2f}") for day, amount in rows)

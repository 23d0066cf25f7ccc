"""A file of a bank is imported for an account that a login at an institution states, before it is linked or after."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import text

from tests.factories import make_linked_provider
from tests.integration.sync.conftest import Linked
from tests.integration.sync.eras import EraIntegration, Institution, Kept, Moved
from tests.integration.sync.test_identity import link_again, looks_of, rows_of
from tests.support.fixtures import MakeRuntime
from tests.unit.integrations.statement_files.test_camt import camt, entry, statement
from tests.unit.integrations.statement_files.test_ofx import sgml, sgml_row
from worker.crud.sync import beginning
from worker.integrations.statement_files.integration import StatementFiles
from worker.models import SyncRun, new_id
from worker.models.vocabulary import RunStatus, Trigger
from worker.services.sync import importing

FILE = sgml(sgml_row("1", "20250301"), sgml_row("2", "20250303", "7.00"), sgml_row("3", "20250303", "7.00"))
"""Rows of the account …6789: -12.50 on the first of March, and twice 7.00 on the third."""
ACCOUNT = Kept("checking", mask="6789")


def at_bank(*rows: Moved) -> Institution:
    institution = Institution()
    institution.add(ACCOUNT, Kept("savings", mask="0002"))
    institution.put(*rows)
    return institution


SAME = (
    Moved(1, "checking", "-12.50", day=0, text="Kiosk at the corner"),
    Moved(2, "checking", "7.00", day=2, text="Refund"),
    Moved(3, "checking", "7.00", day=2, text="Refund"),
)
NEWER = Moved(4, "checking", "-1.00", day=20, text="Newer than the file")


class Person:
    """A person with a login at an institution, who imports files."""

    def __init__(self, make_runtime: MakeRuntime) -> None:
        self.runtime = make_runtime(
            integrations={"model": EraIntegration(Institution()), "statement_files": StatementFiles.build()}
        )
        with self.runtime.transaction() as session:
            provider = make_linked_provider(session, self.runtime.encryption, provider_key="model")
            self.linked = Linked(self.runtime, self.runtime.integrations["model"], provider.id)  # type: ignore[arg-type]
            self.user_id = provider.user_id
        self.linked.execute("UPDATE providers SET external_id = 'first' WHERE id = :id")

    def sync(self, institution: Institution) -> SyncRun:
        self.linked.integration.institution = institution  # type: ignore[attr-defined]
        run = self.linked.sync()
        assert run.status == RunStatus.COMPLETED, (run.error, run.error_reason)
        return run

    def give(self, content: bytes) -> Any:
        run = self.runtime.run(importing.import_file(self.runtime, content, user_id=self.user_id)).run
        assert run is not None
        assert run.status == RunStatus.COMPLETED, (run.error, run.error_reason)
        return run

    def amounts(self) -> list[tuple[date, Decimal]]:
        return sorted((row[1], row[2]) for row in rows_of(self.linked).values())

    def accounts(self) -> list[tuple[Any, ...]]:
        return self.linked.rows(
            "SELECT a.name, p.provider_key, a.status FROM accounts a JOIN providers p ON p.id = a.provider_id"
            " ORDER BY a.name"
        )


@pytest.fixture
def person(make_runtime: MakeRuntime) -> Person:
    return Person(make_runtime)


OWN = [("checking", "model", "active"), ("savings", "model", "active")]


@pytest.mark.deep
def test_file_that_overlaps_a_login_changes_nothing(person: Person) -> None:
    person.sync(at_bank(*SAME, NEWER))
    before = rows_of(person.linked)

    run = person.give(FILE)

    assert (run.added, run.changed, run.removed, run.unchanged) == (0, 0, 0, 4)
    assert rows_of(person.linked) == before
    assert person.accounts() == OWN
    again = person.give(FILE)
    assert (again.added, again.changed, again.removed) == (0, 0, 0)


@pytest.mark.deep
def test_file_adds_what_the_login_does_not_list_and_no_sync_takes_it_away(person: Person) -> None:
    institution = at_bank(SAME[1], NEWER)
    person.sync(institution)

    run = person.give(FILE)

    assert run.added == 2
    assert [amount for _, amount in person.amounts()] == [Decimal("-12.50"), 7, 7, -1]
    assert person.linked.sync(mode="full").status == RunStatus.COMPLETED
    assert [amount for _, amount in person.amounts()] == [Decimal("-12.50"), 7, 7, -1]
    link_again(person.linked)
    assert [amount for _, amount in person.amounts()] == [Decimal("-12.50"), 7, 7, -1]
    assert person.give(FILE).added == 0


@pytest.mark.deep
def test_pending_row_of_a_file_is_gone_when_a_later_file_lists_it_as_booked(person: Person) -> None:
    def file(status: str, ref: str) -> bytes:
        row = entry(code="USD", day="2025-03-05", status=f"<Sts>{status}</Sts>", ref=ref)
        days = "<FrToDt><FrDtTm>2025-03-01T00:00:00</FrDtTm><ToDtTm>2025-03-31T00:00:00</ToDtTm></FrToDt>"
        account = "<Id><Othr><Id>1023456789</Id></Othr></Id><Ccy>USD</Ccy>"
        return camt(statement(days, row, account=account))

    person.sync(at_bank(NEWER))

    person.give(file("PDNG", "R1"))
    person.give(file("BOOK", "R2"))

    assert person.accounts() == OWN
    assert [amount for _, amount in person.amounts()] == [Decimal("-12.50"), -1]
    assert {row[4] for row in rows_of(person.linked).values()} == {"posted"}


@pytest.mark.deep
def test_rows_of_an_account_that_another_login_states_are_rows_that_are_stored(person: Person) -> None:
    person.sync(at_bank(NEWER))
    person.give(FILE)
    ((files,),) = person.linked.rows("SELECT id FROM providers WHERE provider_key = 'statement_files'")

    with person.runtime.transaction() as session:
        begun = beginning.begin_run(
            session,
            provider_id=files,
            owner=new_id(),
            trigger=Trigger.MANUAL,
            mode="incremental",
            now=datetime.now(UTC),
            dead_after=timedelta(minutes=1),
            min_interval=None,
            memory_feeds={"statement_files": frozenset()},
        )

    assert not begun.is_first


def test_login_that_lists_later_what_a_file_has_added_takes_the_row_over(person: Person) -> None:
    institution = at_bank(SAME[0])
    person.sync(institution)
    person.give(FILE)
    before = rows_of(person.linked)
    institution.put(*SAME, NEWER)

    run = person.linked.sync()

    after = rows_of(person.linked)
    assert run.counts["transactions"] == {"added": 1, "changed": 2}
    assert before.keys() <= after.keys()
    assert looks_of(person.linked) == institution.looks()
    institution.rows.pop(3)
    person.linked.sync()
    assert len(rows_of(person.linked)) == 4  # the file still says that there are two


@pytest.mark.deep
def test_account_of_a_file_becomes_that_of_the_login_that_is_linked_later(person: Person) -> None:
    person.give(FILE)
    before = rows_of(person.linked)
    institution = at_bank(*SAME, NEWER)

    run = person.sync(institution)

    after = rows_of(person.linked)
    assert run.counts["transactions"]["added"] == 1
    assert before.keys() < after.keys()
    assert looks_of(person.linked) == institution.looks()
    assert person.accounts() == OWN
    assert person.give(FILE).added == 0
    assert rows_of(person.linked) == after


@pytest.mark.deep
@pytest.mark.parametrize(
    "accounts",
    [
        (replace(ACCOUNT, mask="1111"),),
        (replace(ACCOUNT, currency="EUR"),),
        (ACCOUNT, replace(ACCOUNT, name="other")),
        (replace(ACCOUNT, mask=None),),
    ],
    ids=["another_mask", "another_currency", "two_that_fit", "no_mask"],
)
def test_file_gets_an_account_of_its_own_unless_exactly_one_fits(person: Person, accounts: tuple[Kept, ...]) -> None:
    institution = Institution()
    institution.add(*accounts)
    person.sync(institution)

    person.give(FILE)

    assert ("Checking …6789", "statement_files", "active") in person.accounts()
    assert len(person.accounts()) == len(accounts) + 1


@pytest.mark.deep
def test_books_check_begins_anew_when_a_file_has_added_older_rows(person: Person) -> None:
    person.sync(at_bank(SAME[1], NEWER))
    person.linked.execute("UPDATE accounts SET opening = 1, opening_from = '2025-03-01'")

    person.give(FILE)

    query = text("SELECT opening FROM accounts WHERE name = 'checking'")
    with person.runtime.transaction() as session:
        assert session.execute(query).scalar_one() is None


MANY = 5000
"""Rows: twelve a day, of which two have the same amount."""


def many(first: int, last: int) -> list[Moved]:
    return [Moved(n, "checking", f"-{n % 12 // 2 + 1}.00", day=n // 12, text="") for n in range(first, last)]


def filed(rows: list[Moved]) -> bytes:
    return sgml(*(sgml_row(f"N{row.number}", f"{row.date:%Y%m%d}", row.amount) for row in rows))


@pytest.mark.release
@pytest.mark.deep
@pytest.mark.parametrize("file_first", [False, True], ids=["login_first", "file_first"])
def test_file_of_five_thousand_rows_and_a_login_of_the_same_rows_are_there_once(
    person: Person, file_first: bool
) -> None:
    rows = many(0, MANY)
    institution = at_bank(*rows)
    person.linked.integration.page_size = 500  # type: ignore[attr-defined]
    steps = [lambda: person.sync(institution), lambda: person.give(filed(rows))]

    first, second = reversed(steps) if file_first else steps
    assert first().counts["transactions"]["added"] == MANY
    before = rows_of(person.linked)
    run = second()

    assert len(before) == MANY
    assert run.counts["transactions"].get("added", 0) == run.removed == 0
    assert rows_of(person.linked).keys() == before.keys()
    assert person.accounts() == OWN
    more = person.give(filed(many(MANY // 2, MANY // 2 * 3)))
    after = rows_of(person.linked)
    assert more.added == MANY // 2
    assert (more.changed, more.removed) == (0, 0)
    assert before.keys() < after.keys()
    assert len(after) == MANY // 2 * 3
    assert person.linked.sync(mode="full").status == RunStatus.COMPLETED
    assert rows_of(person.linked).keys() == after.keys()

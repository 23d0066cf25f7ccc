"""Terms of cards and loans in the tables: added, changed, withdrawn, opened again, refused, told by the feed."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from tests.integration.sync.conftest import Linked
from tests.integration.sync.test_pages import NOW, Applying
from worker.integrations.kit.base import Page
from worker.models.records import LiabilityRecord, Reject
from worker.models.vocabulary import LiabilityKind

pytestmark = pytest.mark.deep


@pytest.fixture
def apply(linked: Linked) -> Applying:
    applying = Applying(linked)
    applying.list_accounts("A", "B")
    return applying


def owed(balance: str, *, account: str = "A", key: str = "credit", **more: Any) -> LiabilityRecord:
    kind = LiabilityKind.CREDIT
    return LiabilityRecord(
        account_key=account, liability_key=key, kind=kind, last_statement_balance=Decimal(balance), **more
    )


def listing(*records: LiabilityRecord, complete: tuple[str, ...] = ("A", "B"), **more: Any) -> Page:
    return Page(liabilities=records, liabilities_complete_for=frozenset(complete), **more)


def stored(apply: Applying) -> list[tuple[Any, ...]]:
    return apply.linked.rows(
        "SELECT a.provider_account_id, l.liability_key, l.last_statement_balance::text, l.closed_at IS NULL"
        " FROM liabilities l JOIN accounts a ON a.id = l.account_id ORDER BY 1, 2"
    )


def versions(apply: Applying) -> list[tuple[Any, ...]]:
    return apply.linked.rows("SELECT id, ctid::text, xmin::text FROM liabilities ORDER BY id")


def test_liability_is_added_changed_withdrawn_and_opened_again(apply: Applying) -> None:
    first = apply(listing(owed("10.00"), owed("5.00", account="B", key="student")))
    ids = [row[0] for row in versions(apply)]
    changed = apply(listing(owed("12.50", interest_rate=Decimal("15.240")), owed("5.00", account="B", key="student")))
    gone = apply(listing(owed("5.00", account="B", key="student")))
    withdrawn = stored(apply)
    back = apply(listing(owed("12.50", interest_rate=Decimal("15.240")), owed("5.00", account="B", key="student")))

    assert first.tally["liabilities", "added"] == 2
    assert (changed.tally["liabilities", "changed"], changed.tally["liabilities", "unchanged"]) == (1, 1)
    assert gone.tally["liabilities", "removed"] == 1
    assert withdrawn == [("A", "credit", "12.50", False), ("B", "student", "5.00", True)]
    assert back.tally["liabilities", "changed"] == 1
    assert stored(apply) == [("A", "credit", "12.50", True), ("B", "student", "5.00", True)]
    assert [row[0] for row in versions(apply)] == ids


def test_same_terms_again_write_nothing(apply: Applying) -> None:
    page = listing(owed("10.00", details={"aprs": [{"percentage": "15.24"}], "has_pmi": True}))
    apply(page)
    before = versions(apply)

    again = apply(page, now=NOW + timedelta(days=1))

    assert again.tally.nested() == {"liabilities": {"unchanged": 1}}
    assert versions(apply) == before


def test_account_that_is_not_listed_completely_loses_nothing(apply: Applying) -> None:
    apply(listing(owed("1"), owed("2", account="B")))

    apply(listing(complete=("B",)))

    assert stored(apply) == [("A", "credit", "1", True), ("B", "credit", "2", False)]


def test_unreadable_record_may_be_any_of_the_missing_ones(apply: Applying) -> None:
    apply(listing(owed("1")))

    apply(listing(rejects=[Reject(kind="liability", reason="account_id_unreadable")]))

    assert stored(apply) == [("A", "credit", "1", True)]


def test_refused_records_wait_in_quarantine_until_they_can_be_read(apply: Applying) -> None:
    done = apply(
        listing(owed("1"), owed("2", key="\0"), owed("3", account="nobody"), owed("4", account="B", status="\0"))
    )
    waiting = "SELECT reason FROM quarantine WHERE kind = 'liability' AND resolved_at IS NULL ORDER BY 1"

    assert apply.linked.rows(waiting) == [("bad_key",), ("not_storable",), ("unknown_account",)]
    assert done.tally["liabilities", "quarantined"] == 3
    assert stored(apply) == [("A", "credit", "1", True)]

    apply(listing(owed("1"), owed("4", account="B")))

    # What has an account that is not stored may still be there.
    assert apply.linked.rows(waiting) == [("unknown_account",)]
    assert stored(apply) == [("A", "credit", "1", True), ("B", "credit", "4", True)]


def test_rows_go_with_their_account_and_the_change_feed_tells_it(apply: Applying) -> None:
    apply(listing(owed("1"), owed("2", account="B")))
    (row_id,) = apply.linked.rows(
        "SELECT l.id FROM liabilities l JOIN accounts a ON a.id = l.account_id WHERE a.provider_account_id = 'A'"
    )[0]
    apply.linked.execute("DELETE FROM change_log")

    apply.linked.execute("DELETE FROM accounts WHERE provider_account_id = 'A'")

    told = apply.linked.rows("SELECT change, ids FROM change_log WHERE noun = 'liabilities'")
    assert told == [("removed", [row_id])]
    assert stored(apply) == [("B", "credit", "2", True)]

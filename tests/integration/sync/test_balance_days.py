"""Balances by day: one row for each account and day, the last that was stated for it, and no write without news."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from tests.integration.sync.conftest import Linked
from tests.integration.sync.test_pages import NOW, Applying
from worker.crud import upkeep
from worker.integrations.kit.base import Page
from worker.models.records import BalanceRecord

pytestmark = pytest.mark.deep


@pytest.fixture
def apply(linked: Linked) -> Applying:
    applying = Applying(linked)
    applying.list_accounts("A", "B")
    return applying


def stated(current: str, *, account: str = "A", **more: Any) -> BalanceRecord:
    return BalanceRecord(account_key=account, current=Decimal(current), source="stated", **more)


def days(apply: Applying) -> list[tuple[Any, ...]]:
    return apply.linked.rows(
        "SELECT a.provider_account_id, day::text, d.current::text FROM balance_days d"
        " JOIN accounts a ON a.id = d.account_id ORDER BY 1, 2"
    )


def test_last_balance_of_a_day_counts_and_the_days_before_stay(apply: Applying) -> None:
    for hours, current in ((0, "1.10"), (6, "2.20"), (24, "3.30"), (25, "4.40")):
        apply(Page(balances=[stated(current), stated("9", account="B")]), now=NOW + timedelta(hours=hours))

    assert days(apply) == [
        ("A", "2025-03-14", "2.20"),
        ("A", "2025-03-15", "4.40"),
        ("B", "2025-03-14", "9"),
        ("B", "2025-03-15", "9"),
    ]


def test_second_sync_of_a_day_with_the_same_figures_writes_nothing(apply: Applying) -> None:
    page = Page(balances=[stated("1.10", available=Decimal(1), credit_limit=Decimal(5), currency="EUR")])
    apply(page)
    before = apply.linked.rows("SELECT ctid::text, xmin::text FROM balance_days")

    apply(page, now=NOW + timedelta(hours=1))

    assert apply.linked.rows("SELECT ctid::text, xmin::text FROM balance_days") == before
    assert len(before) == 1


def test_day_is_that_of_the_time_that_the_provider_states(apply: Applying) -> None:
    yesterday = datetime(2025, 3, 13, 23, 59, tzinfo=UTC)
    in_another_zone = datetime.fromisoformat("2025-03-11T22:00:00-04:00")

    apply(Page(balances=[stated("1", as_of=yesterday), stated("2", account="B", as_of=in_another_zone)]))

    assert days(apply) == [("A", "2025-03-13", "1"), ("B", "2025-03-12", "2")]


def test_time_that_lies_ahead_counts_as_today(apply: Applying) -> None:
    apply(Page(balances=[stated("1", as_of=datetime(9998, 1, 1, tzinfo=UTC))]))

    assert days(apply) == [("A", "2025-03-14", "1")]


def test_older_statement_changes_only_the_day_that_it_is_of(apply: Applying) -> None:
    apply(Page(balances=[stated("1")]))
    newest = "SELECT current::int FROM balances ORDER BY taken_at DESC LIMIT 1"

    older = [stated("7", as_of=NOW - timedelta(days=30)), stated("8", as_of=NOW - timedelta(days=60))]
    apply(Page(past_balances=older), now=NOW + timedelta(days=1))

    assert days(apply) == [("A", "2025-01-13", "8"), ("A", "2025-02-12", "7"), ("A", "2025-03-14", "1")]
    assert apply.linked.rows(newest) == [(1,)]

    apply(Page(past_balances=[stated("2", as_of=NOW)]), now=NOW + timedelta(days=2))

    assert days(apply)[-1] == ("A", "2025-03-14", "2")


def test_balance_that_cannot_be_stored_leaves_the_others(apply: Applying) -> None:
    bad = stated("2", account="B", currency="\0")
    apply(Page(balances=[stated("1"), bad], past_balances=[stated("3", as_of=NOW - timedelta(days=1))]))

    assert days(apply) == [("A", "2025-03-13", "3"), ("A", "2025-03-14", "1")]


def test_days_are_kept_for_good() -> None:
    assert "balance_days" not in upkeep.RETAINED

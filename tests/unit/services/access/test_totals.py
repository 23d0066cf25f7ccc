from __future__ import annotations

from uuid import UUID

import pytest

from worker.services.access import logins
from worker.services.access.logins import LoginQuery, Totals

USER = UUID(int=1)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    at = [100.0]
    monkeypatch.setattr(logins, "elapsed", lambda: at[0])
    return at


def test_large_number_is_remembered_for_seconds(clock: list[float]) -> None:
    totals = Totals()
    totals.remember(LoginQuery(None), 100_000)
    assert totals.recall(LoginQuery(None)) == 100_000
    clock[0] += 10.0
    assert totals.recall(LoginQuery(None)) is None


def test_small_number_is_counted_anew(clock: list[float]) -> None:
    totals = Totals()
    totals.remember(LoginQuery(USER), 9_999)
    assert totals.recall(LoginQuery(USER)) is None


def test_pages_and_orders_of_one_list_have_one_number(clock: list[float]) -> None:
    totals = Totals()
    totals.remember(LoginQuery(None, page=1), 100_000)
    assert totals.recall(LoginQuery(None, page=7, per_page=10, sort="alias", descending=False)) == 100_000


def test_other_filters_have_other_numbers(clock: list[float]) -> None:
    totals = Totals()
    totals.remember(LoginQuery(None), 100_000)
    assert totals.recall(LoginQuery(USER)) is None
    assert totals.recall(LoginQuery(None, state="active")) is None
    assert totals.recall(LoginQuery(None, provider_key="schwab")) is None


def test_numbers_that_are_too_old_are_forgotten(clock: list[float]) -> None:
    totals = Totals()
    totals.remember(LoginQuery(None, state="active"), 100_000)
    clock[0] += 60
    totals.remember(LoginQuery(None), 100_000)
    assert len(totals._known) == 1

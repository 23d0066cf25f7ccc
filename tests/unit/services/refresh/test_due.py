from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.integrations.kit.base import RefreshPolicy
from worker.services.refresh import due

NOW = datetime(2025, 3, 14, 15, 0, tzinfo=UTC)
HALF_AN_HOUR = timedelta(minutes=30)
POLICY = RefreshPolicy(default_lifetime=HALF_AN_HOUR)
ID = UUID("01890000-0000-7000-8000-000000000001")


def _due(lifetime: timedelta | None, *, policy: RefreshPolicy | None = POLICY, id_: UUID = ID, generation: int = 1):
    return due.refresh_due_at(policy, provider_id=id_, generation=generation, issued_at=NOW, lifetime=lifetime)


def test_token_without_expiry_is_never_due() -> None:
    assert _due(None) is None


def test_integration_without_refresh_is_never_due() -> None:
    assert _due(HALF_AN_HOUR, policy=None) is None


@given(lifetime=st.timedeltas(timedelta(seconds=1), timedelta(days=30)), generation=st.integers(1, 10_000))
def test_due_lies_before_the_margin_and_never_in_the_first_quarter(lifetime: timedelta, generation: int) -> None:
    margin = max(POLICY.margin, lifetime * POLICY.margin_share)

    at = _due(lifetime, generation=generation)

    assert at is not None
    assert NOW + lifetime / 4 <= at
    assert at <= NOW + max(lifetime - margin, lifetime / 2)


def test_margin_is_the_larger_of_minutes_and_share() -> None:
    long = timedelta(hours=10)
    latest = max(_due(long, id_=uuid4()) for _ in range(200))  # type: ignore[type-var]

    assert latest is not None
    assert NOW + timedelta(hours=7) < latest <= NOW + timedelta(hours=8)


def test_due_is_the_same_whoever_computes_it_and_moves_with_the_generation() -> None:
    assert _due(HALF_AN_HOUR) == _due(HALF_AN_HOUR)
    assert _due(HALF_AN_HOUR) != _due(HALF_AN_HOUR, generation=2)


@pytest.mark.parametrize("lifetime", [timedelta(minutes=5), HALF_AN_HOUR, timedelta(days=1)])
def test_herd_is_spread_so_wide_that_no_moment_has_twice_the_mean(lifetime: timedelta) -> None:
    size, parts = 600, 4
    waits = [_due(lifetime, id_=UUID(int=number)) - NOW for number in range(size)]  # type: ignore[operator]

    part = (max(waits) - min(waits)) / parts
    counts = [0] * parts
    for wait in waits:
        counts[min(int((wait - min(waits)) / part), parts - 1)] += 1
    mean_wait = sum(waits, timedelta()) / size
    peak_to_mean = max(counts) / part.total_seconds() / (size / mean_wait.total_seconds())
    assert peak_to_mean < 1.8


@pytest.mark.parametrize(("failures", "seconds"), [(0, 30), (1, 30), (2, 60), (3, 120), (6, 900), (1000, 900)])
def test_backoff_doubles_up_to_a_quarter_of_an_hour(failures: int, seconds: int) -> None:
    wait = (due.retry_at(NOW, provider_id=ID, failures=failures) - NOW).total_seconds()

    assert 0.75 * seconds <= wait <= 1.25 * seconds


def test_backoff_is_never_shorter_than_the_provider_asks() -> None:
    asked = NOW + timedelta(hours=3)

    assert due.retry_at(NOW, provider_id=ID, failures=1, after=asked - NOW) == asked
    assert due.retry_at(NOW, provider_id=ID, failures=1, after=timedelta(0)) > NOW


@pytest.mark.parametrize(
    ("left", "lifetime", "usable"),
    [
        (timedelta(seconds=61), HALF_AN_HOUR, True),
        (timedelta(seconds=59), HALF_AN_HOUR, False),
        (timedelta(seconds=4), timedelta(seconds=30), True),
        (timedelta(seconds=2), timedelta(seconds=30), False),
        (timedelta(seconds=59), None, False),
        (timedelta(seconds=-1), HALF_AN_HOUR, False),
    ],
)
def test_access_token_is_usable_while_it_lives_long_enough(
    left: timedelta, lifetime: timedelta | None, usable: bool
) -> None:
    assert due.is_usable(NOW, expires_at=NOW + left, lifetime=lifetime) is usable


def test_access_token_without_expiry_is_usable() -> None:
    assert due.is_usable(NOW, expires_at=None, lifetime=None)

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedules import ENTRIES
from worker.integrations.kit.base import RefreshPolicy
from worker.services.refresh import due
from worker.settings import Settings

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


@given(generation=st.integers(1, 100_000))
def test_half_hour_token_outlives_ten_minutes_in_which_postgres_is_silent(generation: int) -> None:
    settings = Settings.model_fields
    silence = timedelta(minutes=10)
    until_all_goes_on = timedelta(seconds=settings["lease_seconds"].default + 60 + ENTRIES["refresh-due"][1])

    at = _due(HALF_AN_HOUR, generation=generation)

    assert at is not None
    assert at + silence + until_all_goes_on <= NOW + HALF_AN_HOUR


def test_margin_is_the_larger_of_minutes_and_share() -> None:
    long = timedelta(hours=10)
    latest = max(_due(long, id_=uuid4()) for _ in range(200))  # type: ignore[type-var]

    assert latest is not None
    assert NOW + timedelta(hours=7) < latest <= NOW + timedelta(hours=8)


@pytest.mark.deep
@pytest.mark.parametrize(
    ("lifetime", "latest"),
    [
        (timedelta(minutes=6), timedelta(minutes=3)),
        (timedelta(minutes=40), timedelta(minutes=28)),
        (timedelta(hours=10), timedelta(hours=8)),
    ],
    ids=["half", "minutes", "share"],
)
def test_due_is_spread_over_the_second_half_of_the_longest_wait(lifetime: timedelta, latest: timedelta) -> None:
    waits = [_due(lifetime, id_=UUID(int=number)) - NOW for number in range(2000)]  # type: ignore[operator]

    assert max(waits) / latest == pytest.approx(1, rel=0.005)
    assert min(waits) / latest == pytest.approx(0.5, rel=0.005)
    assert max(waits) <= latest


def test_due_is_the_same_whoever_computes_it_and_moves_with_the_generation() -> None:
    assert _due(HALF_AN_HOUR) == _due(HALF_AN_HOUR)
    assert _due(HALF_AN_HOUR) != _due(HALF_AN_HOUR, generation=2)


@pytest.mark.deep
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


@pytest.mark.deep
@pytest.mark.parametrize(("failures", "seconds"), [(0, 30), (1, 30), (2, 60), (5, 480), (6, 900), (1000, 900)])
def test_backoff_is_spread_by_a_quarter_either_way(failures: int, seconds: int) -> None:
    waits = [
        (due.retry_at(NOW, provider_id=UUID(int=number), failures=failures) - NOW).total_seconds()
        for number in range(2000)
    ]

    assert min(waits) == pytest.approx(0.75 * seconds, rel=0.005)
    assert max(waits) == pytest.approx(1.25 * seconds, rel=0.005)
    assert sum(waits) / len(waits) == pytest.approx(seconds, rel=0.02)


def test_retry_after_an_unknown_outcome_waits_half_a_minute() -> None:
    assert timedelta(seconds=30) == due.RETRY_UNKNOWN_AFTER


@pytest.mark.parametrize("shown", [0, 1])
def test_token_shown_once_may_be_shown_again_after_half_a_minute(shown: int) -> None:
    assert due.show_again_at(NOW, provider_id=ID, shown=shown) == NOW + timedelta(seconds=30)


@pytest.mark.deep
@pytest.mark.parametrize("shown", [2, 3, 50])
def test_token_shown_more_often_waits_a_quarter_of_an_hour_and_up_to_a_quarter_more(shown: int) -> None:
    waits = [
        (due.show_again_at(NOW, provider_id=UUID(int=number), shown=shown) - NOW).total_seconds()
        for number in range(2000)
    ]

    assert min(waits) == pytest.approx(900, rel=0.005)
    assert max(waits) == pytest.approx(1125, rel=0.005)
    assert sum(waits) / len(waits) == pytest.approx(1012.5, rel=0.01)


@pytest.mark.parametrize("shown", [1, 2])
def test_token_is_not_shown_again_sooner_than_the_answer_asked_for(shown: int) -> None:
    usual = due.show_again_at(NOW, provider_id=ID, shown=shown)

    assert due.show_again_at(NOW, provider_id=ID, shown=shown, after=timedelta(hours=3)) == NOW + timedelta(hours=3)
    assert due.show_again_at(NOW, provider_id=ID, shown=shown, after=timedelta(seconds=1)) == usual


def test_fraction_is_the_same_in_every_release() -> None:
    """Workers of two releases run side by side, and due times are compared with those that another one stored."""
    assert due.fraction(ID, 1) == 0.6151023194852633
    assert due.fraction(ID, 300) == 0.9350667262648179


@given(id_=st.uuids(), number=st.integers(0, 2**63 - 1))
def test_fraction_is_at_least_nothing_and_less_than_one(id_: UUID, number: int) -> None:
    assert 0 <= due.fraction(id_, number) < 1


def test_backoff_is_never_shorter_than_the_provider_asks() -> None:
    asked = NOW + timedelta(hours=3)

    assert due.retry_at(NOW, provider_id=ID, failures=1, after=asked - NOW) == asked
    assert due.retry_at(NOW, provider_id=ID, failures=1, after=timedelta(0)) > NOW


@pytest.mark.deep
@pytest.mark.parametrize(
    ("left", "lifetime", "usable"),
    [
        (timedelta(seconds=60, microseconds=1), HALF_AN_HOUR, True),
        (timedelta(seconds=60), HALF_AN_HOUR, False),
        (timedelta(seconds=59), HALF_AN_HOUR, False),
        (timedelta(seconds=4), timedelta(seconds=30), True),
        (timedelta(seconds=3, microseconds=1), timedelta(seconds=30), True),
        (timedelta(seconds=3), timedelta(seconds=30), False),
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

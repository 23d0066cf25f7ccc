from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from worker.errors import (
    AccountGone,
    AppMisconfigured,
    BadPayload,
    EncryptionError,
    InstitutionDown,
    NotReady,
    RateLimited,
    ReauthRequired,
    Scope,
    Transient,
)
from worker.models.vocabulary import RunStatus
from worker.services.sync.next_due import Verdict, judge, not_before

NOW = datetime(2025, 3, 14, 15, 0, tzinfo=UTC)
INTERVAL = timedelta(hours=4)


def verdict(**given: Any) -> Verdict:
    usual: dict[str, Any] = {
        "provider_id": UUID(int=7),
        "now": NOW,
        "interval": INTERVAL,
        "failures": 0,
        "error": None,
        "problems": [],
        "landed": True,
    }
    return judge(**usual | given)


def wait(given: Verdict) -> timedelta:
    assert given.due_at is not None
    return given.due_at - NOW


def test_good_sync_is_due_an_interval_later_within_a_tenth() -> None:
    waits = {wait(verdict(provider_id=UUID(int=number))) for number in range(50)}

    assert all(INTERVAL * 0.9 <= one <= INTERVAL * 1.1 for one in waits)
    assert len(waits) == 50


def test_good_sync_forgets_earlier_failures() -> None:
    assert verdict(failures=5) == Verdict(RunStatus.COMPLETED, verdict().due_at, 0)


def test_failures_wait_longer_and_never_longer_than_the_interval() -> None:
    waits = [wait(verdict(error=Transient("reset"), failures=failures)) for failures in range(40)]

    assert waits[0] < timedelta(minutes=2)
    assert waits[3] > waits[0] * 4
    assert max(waits) <= INTERVAL * 1.25


@pytest.mark.parametrize(
    "error", [AppMisconfigured("client"), InstitutionDown("bank"), Transient("5xx", scope=Scope.APP)]
)
def test_trouble_that_all_logins_share_is_not_counted_against_one(error: Exception) -> None:
    assert verdict(error=error, failures=2).failures == 2


@pytest.mark.parametrize("error", [Transient("reset"), BadPayload("odd"), EncryptionError("sealed"), KeyError("bug")])
def test_own_trouble_is_counted(error: Exception) -> None:
    found = verdict(error=error, failures=2)

    assert (found.status, found.failures) == (RunStatus.FAILED, 3)


@pytest.mark.parametrize("error", [NotReady, RateLimited])
def test_retry_time_of_the_provider_is_honoured_and_no_failure(error: Any) -> None:
    named = timedelta(minutes=7)

    found = verdict(error=error("later", retry_after=named), failures=2)

    assert (wait(found), found.failures) == (named, 2)


def test_login_that_is_not_ready_is_asked_again_after_a_minute() -> None:
    assert wait(verdict(error=NotReady("preparing"))) == timedelta(minutes=1)


def test_limited_sync_of_which_nothing_landed_has_failed() -> None:
    assert verdict(error=RateLimited("quota"), landed=False).status is RunStatus.FAILED


def test_sync_that_was_not_ready_has_not_failed() -> None:
    assert verdict(error=NotReady("preparing"), landed=False).status is RunStatus.PARTIAL


def test_limit_without_a_time_waits_longer_each_time() -> None:
    waits, failures = [], 0
    for _ in range(6):
        found = verdict(error=RateLimited("quota"), failures=failures)
        waits.append(wait(found))
        failures = found.failures

    assert failures == 6
    assert waits[0] >= timedelta(seconds=45)
    assert waits[-1] > timedelta(minutes=20)


@pytest.mark.parametrize("error", [NotReady, RateLimited])
def test_named_time_that_is_too_short_to_be_meant_is_lengthened(error: Any) -> None:
    assert wait(verdict(error=error("later", retry_after=timedelta(seconds=0.01)))) == timedelta(seconds=15)


def test_dead_grant_is_never_due_by_itself() -> None:
    assert verdict(error=ReauthRequired("revoked")).due_at is None


def test_cancelled_sync_is_due_as_usual() -> None:
    found = verdict(cancelled=True, failures=3)

    assert (found.status, found.failures) == (RunStatus.CANCELLED, 3)
    assert wait(found) >= INTERVAL * 0.9


def test_sync_whose_time_was_up_goes_on_at_once() -> None:
    assert verdict(goes_on=True) == Verdict(RunStatus.PARTIAL, NOW, 0)


def test_problem_that_may_pass_is_tried_again_before_the_interval() -> None:
    found = verdict(problems=[Transient("reset", account_key="A")])

    assert (found.status, found.failures) == (RunStatus.PARTIAL, 1)
    assert wait(found) < timedelta(minutes=2)


def test_problem_that_stays_waits_for_the_interval() -> None:
    found = verdict(problems=[AccountGone("closed", account_key="A")])

    assert (found.status, found.failures) == (RunStatus.PARTIAL, 0)
    assert wait(found) >= INTERVAL * 0.9


def test_part_that_is_not_ready_is_fetched_when_it_is() -> None:
    problem = NotReady("preparing", retry_after=timedelta(minutes=3))

    assert verdict(problems=[problem]) == Verdict(RunStatus.COMPLETED, NOW + timedelta(minutes=3), 0)


def test_run_in_which_every_account_failed_is_no_success() -> None:
    problems = [AccountGone("closed", account_key=key) for key in "AB"]

    assert verdict(problems=problems, every_account_failed=True).status is RunStatus.FAILED


@pytest.mark.parametrize(
    ("hooked_until", "least", "most"),
    [
        (None, 3.6, 4.4),  # no hooks: the usual interval
        (-1, 3.6, 4.4),  # they have stopped
        (2, 3.6, 4.4),
        (8, 8, 8),  # polled again when the next hook is overdue
        (48, 10.8, 13.2),  # never more seldom than `longest`
    ],
)
def test_polling_slows_while_hooks_arrive_and_falls_back_when_they_stop(
    hooked_until: float | None, least: float, most: float
) -> None:
    until = None if hooked_until is None else NOW + timedelta(hours=hooked_until)

    given = verdict(hooked_until=until, longest=timedelta(hours=12))

    assert timedelta(hours=least) <= wait(given) <= timedelta(hours=most)


def test_failure_is_tried_again_soon_although_hooks_arrive() -> None:
    given = verdict(error=Transient("503"), hooked_until=NOW + timedelta(days=2), longest=timedelta(hours=12))

    assert wait(given) < timedelta(minutes=2)


def test_limit_of_one_account_is_waited_for_and_is_no_failure() -> None:
    limited = RateLimited("throttled", scope=Scope.ACCOUNT, account_key="A", retry_after=timedelta(seconds=40))
    told = verdict(problems=[limited], failures=3)

    assert (told.status, wait(told), told.failures) == (RunStatus.PARTIAL, timedelta(seconds=40), 0)


def test_limit_of_one_account_without_a_time_is_tried_again_like_a_failure() -> None:
    told = verdict(problems=[RateLimited("throttled", scope=Scope.ACCOUNT, account_key="A")])

    assert told.failures == 1
    assert wait(told) < timedelta(minutes=2)


def test_login_that_may_not_be_asked_often_is_due_no_earlier_and_one_that_is_not_due_stays_so() -> None:
    soon, late = verdict(problems=[Transient("reset")]), verdict(interval=timedelta(days=9))
    never = verdict(error=ReauthRequired("revoked"))

    assert wait(soon) < timedelta(minutes=2)
    assert wait(not_before(soon, NOW, timedelta(hours=8))) == timedelta(hours=8)
    assert not_before(late, NOW, timedelta(hours=8)) == late
    assert not_before(never, NOW, timedelta(hours=8)) == never

"""Circuit breaker, kill switch and alarm on a real Postgres."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from tests.integration.availability.conftest import MakeQuiet
from tests.support.waiting import wait_for
from worker.crud.fleet import breakers
from worker.errors import (
    AppMisconfigured,
    Forbidden,
    InstitutionDown,
    NotFound,
    RateLimited,
    ReauthRequired,
    Scope,
    Transient,
)
from worker.integrations.kit.base import Caller, Quota
from worker.models import IntegrationState, Notice
from worker.runtime import Runtime
from worker.services.availability import breaker

NOW = datetime(2025, 3, 14, 15, 0, tzinfo=UTC)
OUTAGE = Transient("http_503")


def state_of(runtime: Runtime) -> IntegrationState:
    with runtime.transaction() as session:
        return breakers.read_states(session)["schwab"]


def report(runtime: Runtime, *outcomes: object, now: datetime = NOW) -> None:
    runtime.run(breaker.report(runtime, "schwab", outcomes, now=now))  # type: ignore[arg-type]


def claimable(runtime: Runtime, now: datetime) -> int:
    return runtime.run(breaker.claimable(runtime, now, endpoint="token", at_most=500))["schwab"]


def test_ten_consecutive_failures_of_several_logins_open_the_breaker(quiet: Runtime) -> None:
    report(quiet, *[OUTAGE] * 10)

    assert state_of(quiet).breaker == "open"
    assert claimable(quiet, NOW + timedelta(seconds=14)) == 0


@pytest.mark.deep
def test_failures_add_up_across_workers(make_quiet: MakeQuiet) -> None:
    one, other = make_quiet(), make_quiet()
    report(one, *[OUTAGE] * 5)
    assert state_of(one).breaker == "closed"

    report(other, *[OUTAGE] * 5)

    assert state_of(one).breaker == "open"


def test_one_success_among_failures_keeps_the_breaker_closed(quiet: Runtime) -> None:
    report(quiet, *[OUTAGE] * 9, None, *[OUTAGE] * 9)

    state = state_of(quiet)
    assert (state.breaker, state.failures) == ("closed", 9)


@pytest.mark.deep
def test_one_login_that_fails_alone_never_opens_the_breaker(quiet: Runtime, new_ids: list[UUID]) -> None:
    lonely = new_ids[0]
    for _ in range(30):
        quiet.run(breaker.report(quiet, "schwab", [OUTAGE], provider_ids=[lonely], now=NOW))

    assert state_of(quiet).breaker == "closed"


@pytest.mark.deep
def test_three_logins_that_fail_in_turn_open_the_breaker(quiet: Runtime, new_ids: list[UUID]) -> None:
    for place in range(10):
        quiet.run(breaker.report(quiet, "schwab", [OUTAGE], provider_ids=[new_ids[place % 3]], now=NOW))

    assert state_of(quiet).breaker == "open"


@pytest.mark.deep
@pytest.mark.parametrize(
    "outcome",
    [
        ReauthRequired("invalid_grant"),
        InstitutionDown("INSTITUTION_DOWN"),
        Transient("one_account", scope=Scope.ACCOUNT),
        RateLimited("RATE_LIMIT"),
        None,
    ],
)
def test_what_is_no_outage_of_the_integration_leaves_no_trace(quiet: Runtime, outcome: Exception | None) -> None:
    report(quiet, *[outcome] * 50)

    with quiet.transaction() as session:
        assert breakers.read_states(session) == {}


@pytest.mark.deep
def test_open_breaker_lets_one_login_through_at_probe_time(quiet: Runtime) -> None:
    report(quiet, *[OUTAGE] * 10)

    assert claimable(quiet, NOW + timedelta(seconds=16)) == 1

    assert state_of(quiet).breaker == "half_open"


@pytest.mark.deep
def test_answer_to_the_probe_closes_the_breaker(quiet: Runtime) -> None:
    report(quiet, *[OUTAGE] * 10)
    claimable(quiet, NOW + timedelta(seconds=16))

    report(quiet, None, now=NOW + timedelta(seconds=17))

    state = state_of(quiet)
    assert (state.breaker, state.failures, state.probe_at, state.opened_at) == ("closed", 0, None, None)
    assert claimable(quiet, NOW + timedelta(seconds=18)) == 500


def test_dead_grant_as_answer_to_the_probe_closes_the_breaker_too(quiet: Runtime) -> None:
    report(quiet, *[OUTAGE] * 10)
    claimable(quiet, NOW + timedelta(seconds=16))

    report(quiet, ReauthRequired("invalid_grant"))

    assert state_of(quiet).breaker == "closed"


@pytest.mark.deep
def test_failed_probes_wait_longer_each_time_up_to_the_limit(quiet: Runtime) -> None:
    report(quiet, *[OUTAGE] * 10)
    now, waits = NOW, []

    for _ in range(8):
        state = state_of(quiet)
        assert state.probe_at is not None
        waits.append((state.probe_at - now).total_seconds())
        now = state.probe_at
        assert claimable(quiet, now) == 1
        report(quiet, OUTAGE, now=now)

    assert waits == [15, 15, 30, 60, 120, 240, 300, 300]


@pytest.mark.deep
def test_worker_with_an_old_state_does_not_probe_before_its_time(make_quiet: MakeQuiet) -> None:
    one, other = make_quiet(), make_quiet()
    report(one, *[OUTAGE] * 10)
    assert claimable(other, NOW) == 0
    probe_at = NOW + timedelta(seconds=15)
    assert claimable(one, probe_at) == 1
    report(one, OUTAGE, now=probe_at)

    assert claimable(other, probe_at + timedelta(seconds=1)) == 0


@pytest.mark.deep
def test_late_failures_of_calls_in_flight_do_not_put_off_the_probe(quiet: Runtime) -> None:
    report(quiet, *[OUTAGE] * 10)
    before = state_of(quiet).probe_at

    report(quiet, *[OUTAGE] * 10, now=NOW + timedelta(seconds=10))

    assert state_of(quiet).probe_at == before


@pytest.mark.deep
def test_open_breaker_defers_calls_of_the_schedule_and_lets_people_through(quiet: Runtime) -> None:
    report(quiet, *[OUTAGE] * 10, now=datetime.now(UTC))
    gate = quiet.gate("schwab")

    with pytest.raises(RateLimited) as refused:
        quiet.run(gate.admit(Caller(), endpoint="token", account_key=None))
    quiet.run(gate.admit(Caller(manual=True), endpoint="token", account_key=None))

    assert refused.value.reason == "breaker_open"
    assert refused.value.retry_after is not None
    named = datetime.now(UTC) + refused.value.retry_after
    assert abs(named - state_of(quiet).probe_at) < timedelta(seconds=2)


@pytest.mark.deep
def test_other_workers_see_an_open_breaker_within_two_seconds(
    make_quiet: MakeQuiet, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert breaker.CACHE_SECONDS <= 2
    monkeypatch.setattr(breaker, "CACHE_SECONDS", 0.05)
    one, other = make_quiet(), make_quiet()
    assert claimable(other, NOW) > 1

    report(one, *[OUTAGE] * 10)

    wait_for(lambda: claimable(other, NOW) == 0, what="the cached state to age")


def test_all_well_costs_no_query(quiet: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    claimable(quiet, NOW)
    monkeypatch.setattr(quiet, "transaction", lambda: pytest.fail("asked the database"))

    report(quiet, *[None] * 100)
    quiet.run(quiet.gate("schwab").admit(Caller(), endpoint="token", account_key=None))


def test_backlog_drains_at_the_rate_of_the_quota(make_quiet: MakeQuiet) -> None:
    runtime = make_quiet(quotas=(Quota("app", 120, 60), Quota("app", 10, 60, endpoint="trader")))

    # 120 a minute without the tenth kept back for people: 27 in the 15 s between ticks.
    assert claimable(runtime, NOW) == 27
    assert runtime.run(breaker.claimable(runtime, NOW, endpoint=None, at_most=500)) == {"schwab": 2}


@pytest.mark.deep
def test_pause_stops_ticks_and_all_calls_until_resume(quiet: Runtime) -> None:
    paused = quiet.run(breaker.pause(quiet, "schwab", reason="maintenance", actor="operator:ann"))

    state = state_of(quiet)
    assert paused
    assert (state.paused_reason, state.paused_by) == ("maintenance", "operator:ann")
    assert claimable(quiet, NOW) == 0
    for manual in (False, True):
        with pytest.raises(RateLimited, match="integration_paused"):
            quiet.run(quiet.gate("schwab").admit(Caller(manual=manual), endpoint="token", account_key=None))

    assert quiet.run(breaker.resume(quiet, "schwab", actor="operator:ann"))
    quiet.run(quiet.gate("schwab").admit(Caller(), endpoint="token", account_key=None))
    assert claimable(quiet, NOW) == 500


@pytest.mark.deep
def test_second_operator_pausing_or_resuming_changes_nothing(quiet: Runtime) -> None:
    quiet.run(breaker.pause(quiet, "schwab", reason="first", actor="operator:ann"))

    again = quiet.run(breaker.pause(quiet, "schwab", reason="second", actor="operator:bob"))

    assert not again
    assert state_of(quiet).paused_reason == "first"
    assert quiet.run(breaker.resume(quiet, "schwab", actor="operator:ann"))
    assert not quiet.run(breaker.resume(quiet, "schwab", actor="operator:bob"))


def test_pause_of_unknown_integration_is_refused(quiet: Runtime) -> None:
    with pytest.raises(NotFound, match="schwab"):
        quiet.run(breaker.pause(quiet, "bank_of_nowhere", reason="", actor="operator:ann"))


def test_refused_credentials_pause_the_integration_and_tell_the_operator_once(make_quiet: MakeQuiet) -> None:
    runtime = make_quiet()

    report(runtime, None, AppMisconfigured("invalid_client"), OUTAGE)
    report(make_quiet(), AppMisconfigured("invalid_client"))

    state = state_of(runtime)
    assert (state.alarm, state.paused_by, state.paused_reason) == (
        "invalid_client",
        "system",
        "app_misconfigured: invalid_client",
    )
    assert claimable(runtime, NOW) == 0
    with Session(runtime.engine) as session:
        told = session.scalars(select(Notice)).all()
    assert [(notice.stage, notice.provider_key, notice.channel) for notice in told] == [
        ("app_misconfigured", "schwab", "log")
    ]


def refuse(runtime: Runtime, *logins: UUID, call: str = "sync", now: datetime = NOW) -> None:
    """Each login's call is refused without a word on whose account."""
    for login in logins:
        outcomes = [Forbidden("http_403")]
        runtime.run(breaker.report(runtime, "schwab", outcomes, provider_ids=[login], call=call, now=now))


def paused(runtime: Runtime) -> bool:
    return state_of(runtime).paused_at is not None


@pytest.mark.deep
def test_one_login_that_is_refused_for_ever_pauses_nobody_else(quiet: Runtime, new_ids: list[UUID]) -> None:
    for minutes in range(50):
        refuse(quiet, new_ids[0], now=NOW + timedelta(minutes=minutes))

    assert not paused(quiet)
    assert claimable(quiet, NOW) == 500


@pytest.mark.deep
def test_many_logins_that_are_refused_while_none_is_served_pause_the_integration(
    make_quiet: MakeQuiet, new_ids: list[UUID]
) -> None:
    one, other = make_quiet(), make_quiet()
    refuse(one, *new_ids[:4])
    assert not paused(one)

    refuse(other, new_ids[4])

    state = state_of(one)
    assert state.paused_reason == "app_misconfigured: 5 logins were refused (http_403) and none was served"
    with Session(one.engine) as session:
        assert session.scalars(select(Notice.stage)).all() == ["app_misconfigured"]


@pytest.mark.deep
def test_login_that_is_served_says_that_the_application_is_not_meant(quiet: Runtime, new_ids: list[UUID]) -> None:
    for place, login in enumerate(new_ids * 3):
        refuse(quiet, login)
        if place % 4 == 3:
            quiet.run(breaker.report(quiet, "schwab", [None], call="sync", now=NOW))

    assert not paused(quiet)


@pytest.mark.deep
def test_refresh_that_is_served_says_nothing_about_syncs(quiet: Runtime, new_ids: list[UUID]) -> None:
    for login in new_ids:
        refuse(quiet, login)
        quiet.run(breaker.report(quiet, "schwab", [None], call="refresh", now=NOW))

    assert paused(quiet)


@pytest.mark.deep
def test_refusals_of_different_hours_do_not_add_up(quiet: Runtime, new_ids: list[UUID]) -> None:
    for hours, login in enumerate(new_ids):
        refuse(quiet, login, now=NOW + timedelta(hours=1.1 * hours))

    assert not paused(quiet)


@pytest.mark.deep
def test_resume_forgets_who_was_refused(quiet: Runtime, new_ids: list[UUID]) -> None:
    refuse(quiet, *new_ids)
    quiet.run(breaker.resume(quiet, "schwab", actor="operator:ann"))

    refuse(quiet, new_ids[0])

    assert not paused(quiet)


@pytest.mark.deep
def test_alarm_after_resume_tells_the_operator_anew(quiet: Runtime) -> None:
    report(quiet, AppMisconfigured("invalid_client"))
    quiet.run(breaker.resume(quiet, "schwab", actor="operator:ann"))

    report(quiet, AppMisconfigured("invalid_client"), now=NOW + timedelta(hours=1))

    assert state_of(quiet).alarm_at == NOW + timedelta(hours=1)
    with Session(quiet.engine) as session:
        assert len(session.scalars(select(Notice)).all()) == 2

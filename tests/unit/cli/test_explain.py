"""An operator asks at night, and must know what to do."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import pytest

from tests.support.fleet_rows import MINUTE, NOW, PROVIDER
from worker.models import IntegrationState
from worker.models.fleet import Attempt, Run, TokenFacts
from worker.services.explain import Actor, Facts, explain
from worker.services.findings import Finding
from worker.services.fleet.held import BreakerLimits

TOKEN = TokenFacts(
    generation=7,
    key_id="k1",
    scope=None,
    lifetime_s=1800,
    issued_at=NOW - 10 * MINUTE,
    lease_until=None,
    has_refresh_token=True,
)
DONE = Attempt(
    id=UUID(int=3),
    provider_id=PROVIDER.id,
    generation=6,
    status="done",
    trigger="schedule",
    error=None,
    reason=None,
    started_at=NOW - 10 * MINUTE,
    finished_at=NOW - 10 * MINUTE,
)
COMPLETED = Run(
    id=UUID(int=4),
    provider_id=PROVIDER.id,
    alias="Home",
    user="ada@example.org",
    status="completed",
    trigger="schedule",
    mode="incremental",
    started_at=NOW - 30 * MINUTE,
    heartbeat_at=NOW - 30 * MINUTE,
    finished_at=NOW - 30 * MINUTE,
    cancel_requested=False,
    pages=3,
    added=5,
    changed=1,
    unchanged=40,
    removed=0,
    quarantined=0,
    counts={},
    cursor_before=None,
    cursor_after=None,
    error=None,
    error_scope=None,
    error_reason=None,
    problems=None,
)
FACTS = Facts(
    provider=PROVIDER,
    causes=[],
    is_enabled=True,
    token=TOKEN,
    attempts=[DONE],
    runs=[COMPLETED],
    state=None,
    quarantined=0,
    now=NOW,
    run_dead_after=3 * MINUTE,
    opens_after=BreakerLimits(10, 3),
)


def _provider(**values: object) -> Facts:
    return replace(FACTS, provider=replace(PROVIDER, **values))  # type: ignore[arg-type]


def test_when_all_is_well_nobody_has_to_act() -> None:
    told = explain(FACTS)

    assert told.must_act is Actor.NOBODY
    assert told.todo == ["Nobody has to do anything."]
    assert told.refresh == [
        "The token was last stored 10 minutes ago.",
        "The last attempt succeeded 10 minutes ago, asked for by schedule.",
        "The access token ends in 20 minutes.",
        "The next refresh is due in 14 minutes.",
    ]
    assert told.sync == [
        "The last run, 30 minutes ago, completed: 5 added, 1 changed, 0 removed, 40 unchanged.",
        "The next sync is due in 3 hours.",
    ]
    assert told.next_refresh_at == PROVIDER.refresh_due_at
    assert told.next_sync_at == PROVIDER.sync_due_at


@pytest.mark.parametrize(
    ("status", "reason", "actor", "words"),
    [
        ("needs_reauth", "lost_rotation", Actor.USER, "without our learning the new one"),
        ("needs_reauth", "grant_expired", Actor.USER, "a refresh never extends it"),
        ("needs_reauth", "invalid_grant", Actor.USER, "no longer accepts the user's consent"),
        ("pending", None, Actor.USER, "never linked"),
        ("paused", "the user asked", Actor.OPERATOR, "Home: paused (the user asked)"),
        ("unlinked", None, Actor.NOBODY, "was unlinked"),
    ],
)
def test_a_provider_that_is_not_active_names_who_must_act(
    status: str, reason: str | None, actor: Actor, words: str
) -> None:
    told = explain(_provider(status=status, status_reason=reason))

    assert told.must_act is actor
    assert words in told.status[0]
    assert bool(told.causes) == (status != "unlinked")
    assert told.next_refresh_at is None
    assert told.next_sync_at is None


@pytest.mark.parametrize(("failed", "actor"), [(1, Actor.NOBODY), (2, Actor.USER), (5, Actor.USER)])
def test_new_tokens_that_are_refused_again_and_again_name_what_the_user_can_do(failed: int, actor: Actor) -> None:
    refused = replace(COMPLETED, status="failed", error="access_expired", error_reason="http_401")

    told = explain(replace(FACTS, runs=[*[refused] * failed, COMPLETED][:5]))

    assert told.must_act is actor
    sentences = [one for one in told.sync if "a token that had just been refreshed" in one]
    assert [one.startswith(f"The last {failed} runs failed") for one in sentences] == [True] * (failed > 1)
    assert any("link it again: dashtam link schwab" in one for one in told.todo) == (failed > 1)


def test_a_grant_that_ends_soon_asks_the_user_ahead_of_time() -> None:
    told = explain(_provider(grant_expires_at=NOW + timedelta(hours=20)))

    assert told.must_act is Actor.USER
    assert "The user's consent ends in 20 hours." in told.status


def test_refused_client_credentials_are_the_operators_to_mend() -> None:
    state = IntegrationState(provider_key="schwab", breaker="closed", failures=0, alarm="invalid_client", paused_at=NOW)

    told = explain(replace(FACTS, state=state))

    assert told.must_act is Actor.OPERATOR
    assert any("refuses our own credentials (invalid_client)" in sentence for sentence in told.status)
    assert any("dashtam integrations resume schwab" in sentence for sentence in told.todo)


def test_an_operators_pause_names_who_and_why() -> None:
    state = IntegrationState(
        provider_key="schwab",
        breaker="closed",
        failures=0,
        paused_at=NOW,
        paused_by="operator:ada",
        paused_reason="maintenance",
    )

    told = explain(replace(FACTS, state=state))

    assert told.status[0].startswith("schwab: paused by operator:ada (maintenance)")
    assert told.todo == ["when it may go on: dashtam integrations resume schwab"]
    assert told.refresh[-1] == "The next refresh is due in 14 minutes, and waits for what is said above."
    assert told.next_refresh_at is None


def test_an_open_breaker_mends_itself() -> None:
    state = IntegrationState(provider_key="schwab", breaker="open", probe_at=NOW + timedelta(seconds=40))

    told = explain(replace(FACTS, state=state))

    assert "the next probe is in 40 seconds" in told.status[0]
    assert "closes by itself" in told.todo[0]


def test_what_is_wrong_with_servers_and_processes_comes_first() -> None:
    away = Finding("redis", False, "Redis does not run at 127.0.0.1:6379", "start it: dashtam devstack up")
    state = IntegrationState(provider_key="schwab", breaker="open", probe_at=NOW + timedelta(seconds=40))

    told = explain(replace(FACTS, causes=[away], state=state))

    assert told.must_act is Actor.OPERATOR
    assert told.status[0] == "redis: Redis does not run at 127.0.0.1:6379"
    assert told.todo[0] == "start it: dashtam devstack up"
    assert not any("is active" in sentence for sentence in told.status)


@pytest.mark.parametrize("reason", ["over_budget", "held_by_provider", "http_429"])
def test_a_quota_that_is_used_up_is_the_cause_and_says_when_work_goes_on(reason: str) -> None:
    attempt = replace(DONE, status="deferred", error="rate_limited", reason=reason)

    told = explain(replace(FACTS, attempts=[attempt]))

    assert told.status[0] == "schwab: a quota of calls is used up; Home waits and goes on in 14 minutes"
    assert told.todo == ["it goes on by itself; to sync less often: dashtam providers interval Home --seconds 21600"]


@pytest.mark.parametrize("error", ["transient", "institution_down", "outcome_unknown", "gateway_error"])
def test_an_outage_is_the_cause_while_the_breaker_is_still_closed(error: str) -> None:
    good = replace(COMPLETED, started_at=NOW - 90 * MINUTE)
    failed = [
        replace(COMPLETED, status="failed", error=error, error_reason="http_503", started_at=NOW - ago * MINUTE)
        for ago in (2, 5)
    ]

    told = explain(replace(FACTS, attempts=[], runs=[*failed, good]))

    assert told.status[0] == (
        "schwab: the provider does not answer for this login: the last 2 refreshes and syncs have failed, the first "
        f"5 minutes ago ({error}: http_503)"
    )
    assert told.todo == [f"it is repeated by itself; to try at once: dashtam sync {PROVIDER.id} --force --wait"]
    assert not any("is active" in sentence for sentence in told.status)


def test_a_success_ends_an_outage() -> None:
    failed = replace(COMPLETED, status="failed", error="transient", error_reason="http_503")

    told = explain(replace(FACTS, attempts=[replace(DONE, started_at=NOW - MINUTE)], runs=[failed]))

    assert not told.causes


def test_an_outage_of_several_logins_is_told_with_what_opens_the_breaker() -> None:
    login = str(PROVIDER.id)
    state = IntegrationState(provider_key="schwab", breaker="closed", failures=4, failing=[login, "another"])

    told = explain(replace(FACTS, state=state))

    assert told.status[0] == (
        "schwab: the provider does not answer: the last 4 calls have failed; after 10 in a row, of 3 logins, the "
        "breaker opens and calls wait"
    )
    assert told.todo == [f"calls are repeated by themselves; to try one at once: dashtam sync {login} --force --wait"]


@pytest.mark.parametrize(("failures", "failing"), [(2, ["one", "two"]), (9, ["one"])])
def test_a_single_failure_and_a_single_login_are_no_outage_of_the_integration(
    failures: int, failing: list[str]
) -> None:
    state = IntegrationState(provider_key="schwab", breaker="closed", failures=failures, failing=failing)

    assert not explain(replace(FACTS, state=state)).causes


@pytest.mark.parametrize("reason", ["integration_paused", "refresh_waits"])
def test_what_was_put_off_for_another_reason_is_no_quota(reason: str) -> None:
    attempt = replace(DONE, status="deferred", error="rate_limited", reason=reason)

    told = explain(replace(FACTS, attempts=[attempt]))

    assert not told.causes
    assert f"({reason}): " in told.refresh[1]
    assert "quota" not in told.refresh[1]


def test_an_integration_that_is_not_enabled_is_said_to_be_so() -> None:
    told = explain(replace(FACTS, is_enabled=False))

    assert told.must_act is Actor.OPERATOR
    assert any("not enabled here" in sentence for sentence in told.status)


def test_tokens_that_do_not_expire_are_not_refreshed() -> None:
    told = explain(replace(_provider(refresh_due_at=None), token=replace(TOKEN, has_refresh_token=False)))

    assert told.refresh == ["Tokens of schwab do not expire; there is nothing to refresh."]


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ("sent", "its outcome is not yet known"),
        ("unknown", "it is retried once with the same token"),
        ("deferred", "was put off 10 minutes ago (app_quota): a quota was used up."),
        ("failed", "failed 10 minutes ago, asked for by schedule: transient (app_quota)"),
    ],
)
def test_the_last_attempt_is_told(status: str, words: str) -> None:
    attempt = replace(DONE, status=status, error="transient", reason="app_quota")

    assert any(words in sentence for sentence in explain(replace(FACTS, attempts=[attempt])).refresh)


def test_failures_in_a_row_are_told_with_the_next_time() -> None:
    told = explain(_provider(refresh_failures=2, refresh_due_at=NOW + 5 * MINUTE))

    assert told.refresh[-1] == "The next refresh is due in 5 minutes after 2 failures in a row."


def test_what_is_due_already_waits_for_the_next_tick() -> None:
    told = explain(_provider(sync_due_at=NOW - 2 * MINUTE))

    assert told.sync[-1] == "A sync has been due since 2 minutes ago; the next tick dispatches it."


def test_a_lease_shows_that_a_worker_is_at_it() -> None:
    token = replace(TOKEN, lease_until=NOW + timedelta(seconds=30))

    assert any("A worker is refreshing it just now" in s for s in explain(replace(FACTS, token=token)).refresh)


def test_a_failed_run_says_what_was_kept_and_when_the_last_good_one_was() -> None:
    failed = replace(COMPLETED, id=UUID(int=9), status="failed", error="transient", error_reason="http_503")

    told = explain(replace(FACTS, runs=[failed, COMPLETED]))

    assert "ended failed: transient (http_503)" in told.sync[0]
    assert "what was committed is kept" in told.sync[0]
    assert told.sync[1] == "The last complete one began 30 minutes ago."


def test_a_run_without_a_heartbeat_will_be_taken_over() -> None:
    running = replace(COMPLETED, status="running", finished_at=None, heartbeat_at=NOW - 10 * MINUTE)

    assert "it will be taken over" in explain(replace(FACTS, runs=[running])).sync[0]


def test_a_living_run_says_how_far_it_is() -> None:
    running = replace(COMPLETED, status="running", finished_at=None, heartbeat_at=NOW)

    assert "is at page 3" in explain(replace(FACTS, runs=[running])).sync[0]


def test_quarantined_records_are_the_operators_to_look_at() -> None:
    told = explain(replace(FACTS, quarantined=2))

    assert told.must_act is Actor.OPERATOR
    assert "2 records are in quarantine." in told.sync


def test_a_provider_that_was_never_synced_says_so() -> None:
    assert explain(replace(FACTS, runs=[])).sync[0] == "It was never synced."


def test_accounts_that_need_their_user_are_named_while_the_login_works() -> None:
    told = explain(replace(FACTS, need_user=["Robinhood Individual …8443"]))

    assert "Not updated, because their user must act: Robinhood Individual …8443." in told.sync
    assert told.must_act is Actor.USER
    assert any("repair the connection of these accounts there" in one for one in told.todo)

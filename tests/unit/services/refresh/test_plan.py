from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from uuid import UUID

import pytest

from tests.support.environment import new_keys
from tests.support.scripted import ScriptedIntegration, answer
from worker.crud.refresh.records import LeasedToken
from worker.errors import EncryptionError, RateLimited, Transient
from worker.services.encryption import EncryptionService
from worker.services.refresh.due import refresh_due_at, retry_at
from worker.services.refresh.plan import Call, Ended, NotSent, plan, seal_answer, unseal_answer
from worker.services.refresh.results import Outcome

NOW = datetime(2025, 3, 14, 15, 0, tzinfo=UTC)
ID = UUID("01890000-0000-7000-8000-000000000001")
ENCRYPTION = EncryptionService(new_keys("k1"))


def _leased(**values: Any) -> LeasedToken:
    defaults: dict[str, Any] = {
        "provider_id": ID,
        "provider_key": "schwab",
        "generation": 4,
        "refresh_token": ENCRYPTION.seal("refresh-4", provider_id=ID, kind="refresh", generation=4),
        "key_id": "k1",
        "lifetime": timedelta(seconds=1800),
        "issued_at": NOW - timedelta(minutes=29),
        "refresh_failures": 0,
        "unknowns": 0,
        "leased_at": NOW,
    }
    return LeasedToken(**defaults | values)


def _plan(
    leased: LeasedToken,
    *,
    force: bool = False,
    stale: int | None = None,
    integration: object = ...,
    manual: bool = False,
) -> Call | NotSent:
    known: Any = {"schwab": ScriptedIntegration() if integration is ... else integration} if integration else {}
    return plan(leased, integrations=known, encryption=ENCRYPTION, force=force, stale_generation=stale, manual=manual)


def test_due_token_is_presented() -> None:
    planned = _plan(_leased())

    assert isinstance(planned, Call)
    assert planned.refresh_token == "refresh-4"
    assert "refresh-4" not in repr(planned)


@pytest.mark.parametrize("wanted", [{"force": True}, {"stale": 4}], ids=["forced", "stale"])
def test_fresh_token_is_presented_when_wanted_anew(wanted: dict[str, Any]) -> None:
    assert isinstance(_plan(_leased(issued_at=NOW), **wanted), Call)


@pytest.mark.parametrize(
    ("who", "unknowns", "sent"),
    [({}, 0, False), ({"stale": 4}, 0, False), ({"manual": True}, 0, True), ({"manual": True}, 1, False)]
    + [({"force": True}, unknowns, True) for unknowns in (0, 1)],
    ids=["schedule", "refused", "person", "person in doubt", "operator", "operator in doubt"],
)
def test_wait_after_a_failure_binds_all_but_people_and_those_in_doubt_too(
    who: dict[str, Any], unknowns: int, sent: bool
) -> None:
    wait = timedelta(minutes=2)

    planned = _plan(_leased(not_before=NOW + wait, unknowns=unknowns), **who)

    assert isinstance(planned, Call) is sent
    if isinstance(planned, NotSent):
        assert planned.settlement.refresh_due_at == NOW + wait
        assert planned.result.outcome is Outcome.DEFERRED
        assert isinstance(planned.result.error, RateLimited)
        assert planned.result.error.retry_after == wait


def test_wait_that_is_over_binds_nobody() -> None:
    assert isinstance(_plan(_leased(not_before=NOW)), Call)
    assert isinstance(_plan(_leased(not_before=NOW - timedelta(hours=1))), Call)


def test_refresh_that_no_person_waits_for_keeps_the_wait_when_the_caller_says_nothing() -> None:
    leased = _leased(not_before=NOW + timedelta(minutes=1))
    integrations: Any = {"schwab": ScriptedIntegration()}

    planned = plan(leased, integrations=integrations, encryption=ENCRYPTION, force=False, stale_generation=None)

    assert isinstance(planned, NotSent)
    assert planned.result.outcome is Outcome.DEFERRED


def test_fresh_token_with_an_open_attempt_is_presented() -> None:
    assert isinstance(_plan(_leased(issued_at=NOW, unknowns=1)), Call)


@pytest.mark.parametrize("stale", [None, 3])
def test_fresh_token_is_not_sent_and_due_at_its_time(stale: int | None) -> None:
    planned = _plan(_leased(issued_at=NOW), stale=stale)

    assert isinstance(planned, NotSent)
    assert planned.result.outcome is Outcome.FRESH
    assert planned.settlement.refresh_due_at is not None
    assert planned.settlement.refresh_due_at >= NOW + timedelta(minutes=9)


def test_token_that_never_expires_is_not_sent() -> None:
    planned = _plan(_leased(lifetime=None))

    assert isinstance(planned, NotSent)
    assert planned.settlement.refresh_due_at is None


def test_token_without_refresh_is_unsupported() -> None:
    planned = _plan(_leased(refresh_token=None), force=True)

    assert isinstance(planned, NotSent)
    assert planned.result.outcome is Outcome.UNSUPPORTED
    assert not planned.settlement.keep_due


def test_integration_that_is_not_enabled_stays_due() -> None:
    planned = _plan(_leased(), integration=None)

    assert isinstance(planned, NotSent)
    assert planned.settlement.keep_due


@pytest.mark.parametrize(
    "moved",
    [
        {"generation": 5},
        {"provider_id": UUID(int=1)},
        {"key_id": "withdrawn"},
        {"refresh_token": ENCRYPTION.seal("x", provider_id=ID, kind="access", generation=4)},
    ],
    ids=["generation", "provider", "key", "kind"],
)
def test_ciphertext_that_is_not_its_own_is_not_sent_and_not_given_up(moved: dict[str, Any]) -> None:
    planned = _plan(_leased(**moved))

    assert isinstance(planned, NotSent)
    assert isinstance(planned.result.error, EncryptionError)
    assert planned.settlement.status is None
    assert planned.settlement.failed
    assert planned.settlement.refresh_due_at is not None


def test_failures_counted_so_far_and_this_one_make_the_wait_after_an_unreadable_token() -> None:
    for failures in (0, 1, 2, 5):
        planned = _plan(_leased(key_id="withdrawn", refresh_failures=failures))

        assert isinstance(planned, NotSent)
        assert planned.settlement.refresh_due_at == retry_at(NOW, provider_id=ID, failures=failures + 1)
        assert planned.result.outcome is Outcome.FAILED


@pytest.mark.parametrize(
    "leased",
    [{"issued_at": NOW}, {"refresh_token": None}, {"key_id": "withdrawn"}],
    ids=["fresh", "unsupported", "unreadable"],
)
def test_settlement_is_of_the_token_that_was_leased(leased: dict[str, Any]) -> None:
    planned = _plan(_leased(**leased))

    assert isinstance(planned, NotSent)
    assert (planned.settlement.provider_id, planned.settlement.generation) == (ID, 4)
    assert planned.settlement.status is None
    assert not planned.settlement.keep_due


def test_only_an_unreadable_token_counts_as_a_failure() -> None:
    for values in ({"issued_at": NOW}, {"refresh_token": None}, {"lifetime": None}):
        planned = _plan(_leased(**values))

        assert isinstance(planned, NotSent)
        assert not planned.settlement.failed


def test_token_is_due_from_its_very_moment_on() -> None:
    issued_at = NOW - timedelta(hours=1)
    policy = ScriptedIntegration().refresh_policy
    due_at = refresh_due_at(policy, provider_id=ID, generation=4, issued_at=issued_at, lifetime=timedelta(minutes=30))
    assert due_at is not None

    assert isinstance(_plan(_leased(issued_at=issued_at, leased_at=due_at)), Call)
    assert isinstance(_plan(_leased(issued_at=issued_at, leased_at=due_at - timedelta(microseconds=1))), NotSent)


@pytest.mark.parametrize("stale", [3, 5, 0])
def test_only_the_generation_that_was_found_stale_is_presented_early(stale: int) -> None:
    assert isinstance(_plan(_leased(issued_at=NOW), stale=stale), NotSent)


def test_large_generation_found_stale_is_compared_by_value() -> None:
    sealed = ENCRYPTION.seal("refresh", provider_id=ID, kind="refresh", generation=1000)

    assert isinstance(_plan(_leased(issued_at=NOW, generation=1000, refresh_token=sealed), stale=int("1000")), Call)


def test_integration_without_refresh_is_unsupported_and_not_asked_again() -> None:
    integration = ScriptedIntegration()
    integration.refresh_policy = None

    planned = _plan(_leased(), force=True, integration=integration)

    assert isinstance(planned, NotSent)
    assert planned.result.outcome is Outcome.UNSUPPORTED
    assert not planned.settlement.keep_due
    assert planned.settlement.refresh_due_at is None


def test_call_tells_the_databases_time_and_not_this_machines() -> None:
    asked_at = time.monotonic() / 3
    call = _plan(_leased(asked_at=asked_at))
    assert isinstance(call, Call)

    before = time.monotonic()
    now = call.now()
    after = time.monotonic()

    assert NOW + timedelta(seconds=before - asked_at) <= now <= NOW + timedelta(seconds=after - asked_at)


def test_each_call_is_an_attempt_of_its_own() -> None:
    first, second = _plan(_leased()), _plan(_leased())

    assert isinstance(first, Call)
    assert isinstance(second, Call)
    assert first.attempt_id != second.attempt_id


def _seal(given: Any, **values: Any) -> Any:
    policy = ScriptedIntegration().refresh_policy
    return seal_answer(ENCRYPTION, policy, given, **{"provider_id": ID, "generation": 4, "issued_at": NOW} | values)


def test_answer_is_bound_to_the_next_generation() -> None:
    token = _seal(answer(5))

    opened = ENCRYPTION.unseal(token.refresh_token, provider_id=ID, kind="refresh", generation=5)
    assert (token.generation, opened) == (4, "refresh-5")
    assert token.access_expires_at == NOW + timedelta(minutes=30)
    assert "gAAAA" not in repr(token)


@pytest.mark.parametrize("generation", [0, 1, 2, 7])
def test_both_tokens_are_bound_to_one_generation_more_than_was_presented(generation: int) -> None:
    token = _seal(answer(5), generation=generation)

    for kind, ciphertext in (("access", token.access_token), ("refresh", token.refresh_token)):
        opened = ENCRYPTION.unseal(
            ciphertext, provider_id=ID, kind=kind, generation=generation + 1, key_id=token.key_id
        )
        assert opened == f"{kind}-5"
    assert token.generation == generation
    assert token.refresh_due_at == refresh_due_at(
        ScriptedIntegration().refresh_policy,
        provider_id=ID,
        generation=generation + 1,
        issued_at=NOW,
        lifetime=timedelta(minutes=30),
    )


@pytest.mark.parametrize("generation", [0, 1, 4])
def test_sealed_answer_is_read_with_the_generation_that_it_is_bound_to(generation: int) -> None:
    token = _seal(answer(5), generation=generation)

    assert unseal_answer(ENCRYPTION, token) == {"access": "access-5", "refresh": "refresh-5"}


def test_sealed_answer_without_refresh_token_has_only_the_other() -> None:
    assert unseal_answer(ENCRYPTION, _seal(answer(5, refresh_token=None))) == {"access": "access-5"}


def test_call_counts_as_sent_unless_it_is_known_that_it_was_not() -> None:
    assert not Ended(cast("Call", None), Transient("reset")).unsent


@pytest.mark.parametrize(
    ("lifetime", "seconds"),
    [(timedelta(minutes=30), 1800), (timedelta(seconds=2.9), 2), (timedelta(seconds=0.4), 1), (timedelta(0), 1)],
)
def test_lifetime_is_stored_in_whole_seconds_and_at_least_one(lifetime: timedelta, seconds: int) -> None:
    token = _seal(answer(5, lifetime=lifetime))

    assert token.lifetime_s == seconds
    assert token.access_expires_at == NOW + lifetime


def test_refresh_and_new_grant_are_told_apart_in_the_audit_log() -> None:
    refreshed, linked = _seal(answer(5), task_id="task-1"), _seal(answer(5), new_grant=True)

    assert (refreshed.action, refreshed.actor, refreshed.task_id) == ("token_refreshed", "system", "task-1")
    assert (linked.action, linked.actor) == ("linked", "user")
    assert (refreshed.new_grant, linked.new_grant) == (False, True)


def test_answer_of_an_integration_without_refresh_is_never_due() -> None:
    token = seal_answer(ENCRYPTION, None, answer(5), provider_id=ID, generation=4, issued_at=NOW)

    assert token.refresh_due_at is None
    assert token.refresh_token is not None


def test_answer_without_refresh_token_keeps_the_one_presented() -> None:
    token = _seal(answer(5, refresh_token=None), kept_refresh_token="refresh-4")

    assert ENCRYPTION.unseal(token.refresh_token, provider_id=ID, kind="refresh", generation=5) == "refresh-4"


def test_answer_without_any_refresh_token_is_never_due() -> None:
    token = _seal(answer(5, refresh_token=None))

    assert (token.refresh_token, token.refresh_due_at) == (None, None)


def test_answer_without_lifetime_does_not_expire() -> None:
    token = _seal(answer(5, lifetime=None))

    assert (token.access_expires_at, token.lifetime_s, token.refresh_due_at) == (None, None, None)


def test_only_a_new_grant_moves_the_grant_clock_and_asks_for_a_sync() -> None:
    given = answer(5, grant_expires_at=NOW + timedelta(days=7), external_id="item-1")

    refreshed, linked = _seal(given), _seal(given, new_grant=True)

    assert (refreshed.grant_expires_at, refreshed.external_id, refreshed.sync_due_at) == (None, None, None)
    assert (linked.grant_expires_at, linked.external_id) == (NOW + timedelta(days=7), "item-1")
    assert linked.sync_due_at == NOW


def test_text_that_postgres_cannot_hold_is_mended() -> None:
    token = _seal(answer(5, scope="api\x00\ud800"))

    assert token.scope == "api?"


def test_text_that_goes_with_a_token_is_cut_to_two_thousand_characters() -> None:
    token = _seal(answer(5, scope="s" * 2001, external_id="i" * 2000), new_grant=True)

    assert (token.scope, token.external_id) == ("s" * 2000, "i" * 2000)

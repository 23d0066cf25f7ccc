from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from worker import errors
from worker.crud.refresh.records import LeasedToken, Settlement
from worker.errors import ProviderError, Scope
from worker.models.vocabulary import AttemptStatus, ProviderStatus
from worker.services.refresh.due import RETRY_UNKNOWN_AFTER, retry_at, show_again_at
from worker.services.refresh.outcomes import may_have_rotated, result_of, settle_failure
from worker.services.refresh.results import Outcome

NOW = datetime(2025, 3, 14, 15, 0, tzinfo=UTC)


def _leased(*, unknowns: int = 0, failures: int = 0, gateway_errors: int = 0) -> LeasedToken:
    return LeasedToken(
        provider_id=uuid4(),
        provider_key="schwab",
        generation=4,
        refresh_token="ciphertext",
        key_id="k1",
        lifetime=timedelta(seconds=1800),
        issued_at=NOW,
        refresh_failures=failures,
        unknowns=unknowns,
        gateway_errors=gateway_errors,
        leased_at=NOW,
    )


TERMINAL = [errors.ReauthRequired("invalid_grant")]
UNKNOWN = [errors.OutcomeUnknown("timeout"), errors.BadPayload("not_json"), errors.BadPayload("token_type")]
PASSING = [
    errors.Transient("http_503"),
    errors.Transient("http_503", scope=Scope.APP),
    errors.RateLimited("http_429"),
    errors.InstitutionDown("down"),
    errors.NotReady("preparing"),
    errors.BadRequest("invalid_request"),
    errors.AccountGone("gone"),
    errors.AppMisconfigured("invalid_client"),
    errors.BadPayload("redirect_refused"),
]


@pytest.mark.deep
@pytest.mark.parametrize("error", PASSING, ids=repr)
@pytest.mark.parametrize("unknowns", [0, 1, 2])
def test_error_that_may_pass_never_demands_reauth_and_is_tried_again(error: ProviderError, unknowns: int) -> None:
    settlement = settle_failure(_leased(unknowns=unknowns), error, now=NOW, attempt_id=uuid4())

    assert settlement.status is None
    assert settlement.refresh_due_at is not None
    assert settlement.refresh_due_at > NOW
    assert result_of(settlement, error).error is error


@pytest.mark.parametrize("error", UNKNOWN, ids=repr)
def test_first_unknown_outcome_is_tried_once_more_soon(error: ProviderError) -> None:
    settlement = settle_failure(_leased(), error, now=NOW, attempt_id=uuid4())

    assert may_have_rotated(error)
    assert settlement.attempt_status == AttemptStatus.UNKNOWN
    assert settlement.refresh_due_at == NOW + RETRY_UNKNOWN_AFTER
    assert not settlement.failed
    assert settlement.status is None
    assert result_of(settlement, error).outcome is Outcome.UNKNOWN


@pytest.mark.parametrize("error", UNKNOWN + TERMINAL, ids=repr)
def test_second_unknown_outcome_and_refused_retry_are_a_lost_rotation(error: ProviderError) -> None:
    settlement = settle_failure(_leased(unknowns=1), error, now=NOW, attempt_id=uuid4())

    assert (settlement.status, settlement.status_reason) == (ProviderStatus.NEEDS_REAUTH, "lost_rotation")
    assert settlement.refresh_due_at is None
    result = result_of(settlement, error)
    assert result.outcome is Outcome.NEEDS_REAUTH
    assert isinstance(result.error, errors.ReauthRequired)


@pytest.mark.parametrize("unknowns", [0, 1, 2, 7])
def test_gateways_errors_never_ask_the_user_and_are_tried_again_ever_more_rarely(unknowns: int) -> None:
    leased = _leased(unknowns=unknowns, gateway_errors=unknowns)
    settlement = settle_failure(leased, errors.GatewayError("http_502"), now=NOW, attempt_id=uuid4())

    assert (settlement.status, settlement.attempt_status) == (None, AttemptStatus.UNKNOWN)
    assert settlement.waits
    assert settlement.refresh_due_at is not None
    wait = settlement.refresh_due_at - NOW
    assert wait == RETRY_UNKNOWN_AFTER if unknowns == 0 else timedelta(minutes=15) <= wait <= timedelta(minutes=19)


@pytest.mark.parametrize("unknowns", [0, 1, 2, 3])
def test_wait_for_the_next_showing_counts_the_one_that_just_ended(unknowns: int) -> None:
    leased = _leased(unknowns=unknowns, gateway_errors=unknowns)

    settlement = settle_failure(leased, errors.GatewayError("http_502"), now=NOW, attempt_id=uuid4())

    assert settlement.refresh_due_at == show_again_at(NOW, provider_id=leased.provider_id, shown=unknowns + 1)


def test_refusal_after_gateways_errors_is_a_lost_rotation() -> None:
    settlement = settle_failure(_leased(unknowns=3, gateway_errors=3), TERMINAL[0], now=NOW, attempt_id=uuid4())

    assert (settlement.status, settlement.status_reason) == (ProviderStatus.NEEDS_REAUTH, "lost_rotation")


def test_second_outcome_without_any_answer_ends_it_whatever_gateways_said_between() -> None:
    first = settle_failure(_leased(unknowns=2, gateway_errors=2), UNKNOWN[0], now=NOW, attempt_id=uuid4())
    second = settle_failure(_leased(unknowns=3, gateway_errors=2), UNKNOWN[0], now=NOW, attempt_id=uuid4())

    assert (first.status, second.status) == (None, ProviderStatus.NEEDS_REAUTH)


def test_request_that_never_left_is_recorded_as_not_sent() -> None:
    settlement = settle_failure(_leased(), errors.Unsent("connect_failed"), now=NOW, attempt_id=uuid4())

    assert settlement.attempt_status == AttemptStatus.NOT_SENT


def test_dead_grant_keeps_the_providers_own_reason() -> None:
    settlement = settle_failure(_leased(), TERMINAL[0], now=NOW, attempt_id=uuid4())

    assert (settlement.status, settlement.status_reason) == (ProviderStatus.NEEDS_REAUTH, "invalid_grant")


@pytest.mark.parametrize(
    ("error", "counts"),
    [
        (errors.Transient("http_503"), True),
        (errors.Transient("http_503", scope=Scope.APP), False),
        (errors.InstitutionDown("down"), False),
        (errors.AppMisconfigured("invalid_client", scope=Scope.PROVIDER), False),
        (errors.RateLimited("http_429", retry_after=timedelta(seconds=30)), False),
        (errors.BadRequest("invalid_request"), True),
    ],
    ids=repr,
)
def test_only_trouble_of_its_own_counts_against_a_provider(error: ProviderError, counts: bool) -> None:
    assert settle_failure(_leased(), error, now=NOW, attempt_id=uuid4()).failed is counts


def test_failures_in_a_row_wait_longer() -> None:
    waits = [
        settle_failure(_leased(failures=n), errors.Transient("http_503"), now=NOW, attempt_id=uuid4()).refresh_due_at
        for n in (0, 3)
    ]

    assert waits[0] is not None
    assert waits[1] is not None
    assert waits[1] - NOW > 2 * (waits[0] - NOW)


@pytest.mark.deep
@pytest.mark.parametrize("failures", [0, 1, 2, 5])
@pytest.mark.parametrize("error", [errors.Transient("http_503"), errors.RateLimited("http_429")], ids=repr)
def test_wait_counts_the_failure_that_was_just_seen(error: ProviderError, failures: int) -> None:
    leased = _leased(failures=failures)

    settlement = settle_failure(leased, error, now=NOW, attempt_id=uuid4())

    assert settlement.refresh_due_at == retry_at(NOW, provider_id=leased.provider_id, failures=failures + 1)


def test_settlement_names_what_was_leased_the_attempt_and_the_error() -> None:
    leased, attempt_id = _leased(), uuid4()

    settlement = settle_failure(leased, errors.Transient("http_503"), now=NOW, attempt_id=attempt_id, task_id="task-1")

    assert (settlement.provider_id, settlement.generation) == (leased.provider_id, 4)
    assert (settlement.attempt_id, settlement.task_id) == (attempt_id, "task-1")
    assert (settlement.error, settlement.reason) == (errors.Transient.kind, "http_503")
    assert settlement.attempt_status == AttemptStatus.FAILED
    assert settlement.status_reason is None
    assert not settlement.keep_due


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (errors.Transient("http_503"), Outcome.FAILED),
        (errors.RateLimited("http_429"), Outcome.DEFERRED),
        (errors.OutcomeUnknown("timeout"), Outcome.UNKNOWN),
    ],
    ids=repr,
)
def test_result_says_what_became_of_the_attempt(error: ProviderError, outcome: Outcome) -> None:
    settlement = settle_failure(_leased(), error, now=NOW, attempt_id=uuid4())

    assert result_of(settlement, error).outcome is outcome


def test_lost_rotation_is_reported_by_that_name_whatever_the_last_answer_said() -> None:
    settlement = settle_failure(_leased(unknowns=1), errors.OutcomeUnknown("timeout"), now=NOW, attempt_id=uuid4())

    error = result_of(settlement, errors.OutcomeUnknown("timeout")).error

    assert isinstance(error, errors.ReauthRequired)
    assert error.reason == "lost_rotation"


def test_settlement_without_an_attempt_is_reported_as_a_failure() -> None:
    settlement = Settlement(provider_id=uuid4(), generation=4)

    assert result_of(settlement, errors.Transient("http_503")).outcome is Outcome.FAILED


def test_providers_own_time_is_waited_for() -> None:
    wait = timedelta(hours=5)

    settlement = settle_failure(
        _leased(), errors.RateLimited("http_429", retry_after=wait), now=NOW, attempt_id=uuid4()
    )

    assert settlement.refresh_due_at == NOW + wait
    assert not settlement.failed
    assert settlement.attempt_status == AttemptStatus.DEFERRED

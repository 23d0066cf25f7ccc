"""How much a tick may claim, and what a report means."""

from __future__ import annotations

import pytest

from worker import errors
from worker.errors import ProviderError, Scope
from worker.integrations.kit.base import Quota
from worker.services.availability import breaker
from worker.services.availability.breaker import per_tick


@pytest.mark.deep
@pytest.mark.parametrize(
    ("quotas", "share", "expected"),
    [
        ((), 1.0, 500),
        ((Quota("app", 120, 60),), 1.0, 30),
        ((Quota("app", 120, 60),), 0.9, 27),
        ((Quota("app", 120, 60), Quota("app", 12, 60)), 1.0, 3),
        ((Quota("app", 1, 60),), 0.9, 1),
        ((Quota("app", 1_000_000, 60),), 1.0, 500),
        ((Quota("provider", 1, 60),), 1.0, 500),
        ((Quota("app", 10, 86400, daily=True),), 1.0, 500),
    ],
    ids=["none", "one", "share", "the narrowest", "at least one", "claim limit", "of one login", "of a day"],
)
def test_tick_claims_what_the_quotas_of_the_application_let_through(
    quotas: tuple[Quota, ...], share: float, expected: int
) -> None:
    assert per_tick(quotas, seconds=15, share=share, at_most=500) == expected


@pytest.mark.deep
@pytest.mark.parametrize(
    ("outcome", "outage", "answer"),
    [
        (None, False, True),
        (errors.Transient("http_503"), True, False),
        (errors.OutcomeUnknown("timeout"), True, False),
        (errors.InstitutionDown("maintenance", scope=Scope.APP), True, False),
        (errors.InstitutionDown("one bank"), False, False),
        (errors.Transient("one account", scope=Scope.ACCOUNT), False, False),
        (errors.RateLimited("http_429"), False, False),
        (errors.BadPayload("html"), False, False),
        (errors.ReauthRequired("invalid_grant"), False, True),
        (errors.AccessExpired("http_401"), False, True),
        (errors.NotReady("PRODUCT_NOT_READY"), False, True),
        (errors.BadRequest("http_400"), False, True),
    ],
)
def test_outages_and_answers_are_told_apart(outcome: ProviderError | None, outage: bool, answer: bool) -> None:
    assert breaker._is_outage(outcome) is outage
    assert breaker._is_answer(outcome) is answer

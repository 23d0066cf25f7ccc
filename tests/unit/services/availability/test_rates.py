"""How much a tick may claim, and what a report means."""

from __future__ import annotations

import pytest

from worker.errors import (
    AccessExpired,
    BadPayload,
    BadRequest,
    InstitutionDown,
    NotReady,
    OutcomeUnknown,
    ProviderError,
    RateLimited,
    ReauthRequired,
    Scope,
    Transient,
)
from worker.integrations.kit.base import Quota
from worker.services.availability import breaker
from worker.services.availability.breaker import per_tick


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


@pytest.mark.parametrize(
    ("outcome", "outage", "answer"),
    [
        (None, False, True),
        (Transient("http_503"), True, False),
        (OutcomeUnknown("timeout"), True, False),
        (InstitutionDown("maintenance", scope=Scope.APP), True, False),
        (InstitutionDown("one bank"), False, False),
        (Transient("one account", scope=Scope.ACCOUNT), False, False),
        (RateLimited("http_429"), False, False),
        (BadPayload("html"), False, False),
        (ReauthRequired("invalid_grant"), False, True),
        (AccessExpired("http_401"), False, True),
        (NotReady("PRODUCT_NOT_READY"), False, True),
        (BadRequest("http_400"), False, True),
    ],
)
def test_outages_and_answers_are_told_apart(outcome: ProviderError | None, outage: bool, answer: bool) -> None:
    assert breaker._is_outage(outcome) is outage
    assert breaker._is_answer(outcome) is answer

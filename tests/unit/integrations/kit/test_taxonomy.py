"""Rules that say what a provider's errors mean."""

from __future__ import annotations

from datetime import timedelta

import pytest

from worker.errors import BadRequest, Forbidden, InstitutionDown, ProviderError, RateLimited, Scope
from worker.integrations.kit.taxonomy import Rule, classify, of_accounts

HOUR = timedelta(hours=1)
RULES = (
    Rule(RateLimited, text="slowly", wait=HOUR, scope=Scope.PROVIDER),
    Rule(Forbidden, code="con.auth"),
    Rule(InstitutionDown, code="con."),
)


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("con.auth", Forbidden),
        ("con.else", InstitutionDown),
        ("con.auth.more", InstitutionDown),
        ("con.", InstitutionDown),
        ("con", InstitutionDown),
        ("connect", BadRequest),
        ("act.con.x", BadRequest),
        ("", BadRequest),
        (None, BadRequest),
    ],
)
def test_code_with_a_point_at_its_end_stands_for_its_group(code: str | None, error: type[ProviderError]) -> None:
    assert type(classify(RULES, status=400, code=code)) is error


def test_wait_of_a_rule_counts_if_the_provider_names_none() -> None:
    waits = [classify(RULES, status=429, text="Slowly!", retry_after=given).retry_after for given in (None, HOUR / 2)]

    assert waits == [HOUR, HOUR / 2]
    assert classify(RULES, status=429, text="slowly").scope is Scope.PROVIDER


def test_error_becomes_a_problem_of_each_account_or_stays_what_it_is() -> None:
    error = InstitutionDown("away", scope=Scope.INSTITUTION, retry_after=HOUR)

    assert of_accounts(error, ()) == [error]
    told = of_accounts(error, iter("AB"))
    assert [(type(one), one.reason, one.scope, one.account_key, one.retry_after) for one in told] == [
        (InstitutionDown, "away", Scope.ACCOUNT, "A", HOUR),
        (InstitutionDown, "away", Scope.ACCOUNT, "B", HOUR),
    ]

"""The error tree says what callers may rely on."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest

from worker import errors
from worker.errors import DashtamError, ProviderError, Scope

ALL = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, DashtamError)]
OF_PROVIDERS = [error for error in ALL if issubclass(error, ProviderError)]


@pytest.mark.deep
@pytest.mark.parametrize("error", ALL, ids=lambda error: error.__name__)
def test_error_is_drawn_in_the_tree(error: type[DashtamError]) -> None:
    drawn = re.findall(r"^[│├└─ ]*(\w+)", errors.__doc__ or "", flags=re.MULTILINE)

    assert error.__name__ in drawn


def test_kinds_are_distinct_because_they_are_stored() -> None:
    kinds = [error.kind for error in OF_PROVIDERS]

    assert len(kinds) == len(set(kinds))


def test_only_the_user_and_the_operator_errors_stop_calls() -> None:
    """What passes by itself must never look like what does not."""
    assert not issubclass(errors.Transient, errors.ReauthRequired)
    assert issubclass(errors.OutcomeUnknown, errors.Transient)
    assert errors.AppMisconfigured.default_scope is Scope.APP
    assert errors.ReauthRequired.default_scope is Scope.PROVIDER
    assert errors.AccountGone.default_scope is Scope.ACCOUNT


def test_provider_error_carries_what_the_provider_said() -> None:
    wait = timedelta(minutes=2)

    error = errors.RateLimited("too_many", scope=Scope.ACCOUNT, retry_after=wait, account_key="a1")

    assert (error.reason, error.scope, error.retry_after, error.account_key) == ("too_many", Scope.ACCOUNT, wait, "a1")
    assert str(error) == "rate_limited (too_many)"


def test_paging_restart_names_its_feed() -> None:
    assert errors.PagingRestart("mutation", feed="item").feed == "item"


def test_bad_record_counts_by_reason_and_explains_by_detail() -> None:
    error = errors.BadRecord("amount_not_finite", "NaN in amount")

    assert error.reason == "amount_not_finite"
    assert str(error) == "amount_not_finite: NaN in amount"
    assert str(errors.BadRecord("no_date")) == "no_date"

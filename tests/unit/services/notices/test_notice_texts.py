"""What notices say, and whether they still should."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.support.bare_integrations import bare_integration
from worker.crud.notices import DueNotice, grant_subject
from worker.models import Notice, Provider, new_id
from worker.runtime import Runtime
from worker.services.notices import queue

ENDS = datetime(2025, 3, 14, 15, 30, tzinfo=UTC)
USER_STAGES = ["expires_72h", "expires_24h", "expires_2h", "expired", "needs_reauth"]


def runtime() -> Runtime:
    settings = SimpleNamespace(operator_email="operator@example.com")
    return cast("Runtime", SimpleNamespace(settings=settings, integrations={"schwab": bare_integration()}))


def due(stage: str, *, subject_key: str | None = None, **provider: Any) -> DueNotice:
    defaults = {
        "id": new_id(),
        "user_id": new_id(),
        "provider_key": "schwab",
        "alias": "Rainy day",
        "status": "active" if stage.startswith("expires_") else "needs_reauth",
        "grant_expires_at": ENDS,
    }
    notice = Notice(id=new_id(), stage=stage, subject_key=subject_key or grant_subject(ENDS), channel="log", attempts=1)
    return DueNotice(notice, Provider(**defaults | provider), "ann@example.com")


@pytest.mark.deep
@pytest.mark.parametrize("stage", USER_STAGES)
def test_every_stage_names_the_login_the_institution_and_the_next_step(stage: str) -> None:
    message = queue.compose(runtime(), due(stage))

    assert message.to == "ann@example.com"
    assert "“Rainy day” (Made-up Bank)" in message.subject
    assert "Next step: " in message.text
    assert "sign in to Made-up Bank again" in message.text
    assert "kept" in message.text
    assert message.event["stage"] == stage


def test_warning_names_the_time_at_which_the_grant_ends() -> None:
    assert "14 March 2025, 15:30 UTC" in queue.compose(runtime(), due("expires_24h")).text


@pytest.mark.parametrize(
    ("alias", "shown"),
    [
        ("Savings 123456789", "Savings …6789"),
        ("Visa 4111 1111 1111 1111", "Visa …1111"),
        ("Plan 401k", "Plan 401k"),
        ("a\r\nBcc: x@example.com", "a Bcc: x@example.com"),
        ("x" * 300, "x" * 100),
    ],
)
def test_alias_is_shown_on_one_line_without_long_numbers(alias: str, shown: str) -> None:
    message = queue.compose(runtime(), due("needs_reauth", alias=alias))

    assert f"“{shown}”" in message.subject
    assert "\n" not in message.subject


def test_operator_is_told_what_is_kept_and_how_to_go_on() -> None:
    notice = Notice(id=new_id(), stage="app_misconfigured", subject_key="alarm", channel="log", provider_key="schwab")

    message = queue.compose(runtime(), DueNotice(notice, None, None))

    assert message.to == "operator@example.com"
    assert "dashtam integrations resume schwab" in message.text
    assert "kept" in message.text


def test_integration_that_is_no_longer_enabled_is_named_by_its_key() -> None:
    assert "(plaid)" in queue.compose(runtime(), due("expired", provider_key="plaid")).subject


@pytest.mark.parametrize(
    ("notice", "still"),
    [
        (due("expires_24h"), True),
        (due("expires_24h", status="needs_reauth"), False),
        (due("expires_24h", status="unlinked"), False),
        (due("expires_24h", grant_expires_at=ENDS + timedelta(days=7)), False),
        (due("expires_24h", grant_expires_at=None), False),
        (due("expired"), True),
        (due("expired", status="active"), False),
        (due("needs_reauth", subject_key="generation:4"), True),
        (due("needs_reauth", status="active"), False),
        (due("needs_reauth", status="unlinked"), False),
    ],
)
def test_notice_that_is_no_longer_true_is_not_sent(notice: DueNotice, still: bool) -> None:
    assert queue.still_true(notice) is still


@pytest.mark.parametrize(("attempts", "minutes"), [(1, 1), (2, 2), (5, 16), (9, 256), (10, 360), (1000, 360)])
def test_retries_wait_twice_as_long_each_time_up_to_six_hours(attempts: int, minutes: int) -> None:
    assert queue.retry_wait(attempts) == timedelta(minutes=minutes)


def test_notice_about_accounts_names_them_and_says_where_they_are_repaired() -> None:
    notice, provider, email, _ = due("accounts_need_user", status="active")
    told = DueNotice(notice, provider, email, ("Robinhood Individual …8443", "Questrade 1234567890"))
    message = queue.compose(runtime(), told)

    assert "Robinhood Individual …8443; Questrade …7890" in message.text
    assert "sign in at Made-up Bank and repair the connection" in message.text
    assert "Some accounts of “Rainy day”" in message.subject
    assert queue.still_true(told)
    assert not queue.still_true(told._replace(accounts=()))

"""What a token endpoint may answer, through the real integration, down to the tables."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text

from tests.factories import make_linked_provider
from tests.support.sandbox import SandboxAdmin
from worker.runtime import Runtime
from worker.services.refresh import protocol

pytestmark = pytest.mark.deep

OLD = "old-refresh-token"


class Linked:
    """A provider whose next refresh gets the answer that a test names."""

    def __init__(self, runtime: Runtime, engine: Engine, sandbox: SandboxAdmin) -> None:
        self._runtime, self._engine, self._sandbox = runtime, engine, sandbox
        with runtime.transaction() as session:
            issued_at = datetime.now(UTC) - timedelta(hours=1)
            self.id = make_linked_provider(session, runtime.encryption, refresh_token=OLD, issued_at=issued_at).id

    def answered(self, body: str, *, status: int = 200, do: str = "answer", **fault: Any) -> str:
        """The outcome of a refresh that is answered so."""
        self._sandbox.inject(do, kind="refresh", status=status, body=body, times=None, **fault)
        return self.refresh()

    def refresh(self) -> str:
        """The waits after failures before it have passed."""
        with self._engine.begin() as connection:
            connection.execute(text("UPDATE providers SET refresh_not_before = NULL"))
        summary = self._runtime.run(protocol.refresh_providers(self._runtime, [self.id]))
        return str(summary.results[self.id].outcome)

    def row(self, table: str = "providers", key: str = "id") -> dict[str, Any]:
        with self._engine.begin() as connection:
            return dict(
                connection.execute(text(f"SELECT * FROM {table} WHERE {key} = :id"), {"id": self.id})  # noqa: S608
                .mappings()
                .one()
            )

    def stored(self) -> str:
        row = self.row("provider_tokens", "provider_id")
        return self._runtime.encryption.unseal(
            row["refresh_token"], provider_id=self.id, kind="refresh", generation=row["generation"]
        )

    def presented(self) -> int:
        return len(self._sandbox.refreshes())


@pytest.fixture
def linked(runtime: Runtime, engine: Engine, sandbox: SandboxAdmin) -> Linked:
    return Linked(runtime, engine, sandbox)


def _tokens(**fields: Any) -> str:
    body = {"access_token": "new-access", "refresh_token": "new-refresh", "token_type": "Bearer", "expires_in": 1800}
    return json.dumps({name: value for name, value in (body | fields).items() if value is not None})


@pytest.mark.parametrize(
    ("expires_in", "minutes", "flag"),
    [
        ("3600", 60, "expires_in_coerced"),
        (-5, 30, "expires_in_not_positive"),
        (0, 30, "expires_in_not_positive"),
        (1e18, 1440, "expires_in_clamped"),
        (None, 30, "expires_in_missing"),
        ("soon", 30, "expires_in_unreadable"),
        (10**400, 1440, "expires_in_clamped"),
    ],
)
def test_absurd_lifetime_is_mended_and_flagged(
    linked: Linked, engine: Engine, expires_in: object, minutes: int, flag: str
) -> None:
    assert linked.answered(_tokens(expires_in=expires_in)) == "refreshed"

    left = linked.row()["access_expires_at"] - datetime.now(UTC)
    assert timedelta(minutes=minutes - 1) < left <= timedelta(minutes=minutes)
    assert linked.row("provider_audit_logs", "provider_id")["detail"]["flags"] == [flag]


def test_missing_refresh_token_keeps_the_old_one(linked: Linked) -> None:
    assert linked.answered(_tokens(refresh_token=None)) == "refreshed"
    assert linked.stored() == OLD


@pytest.mark.parametrize(
    ("body", "flag"),
    [
        (_tokens()[:-20], "answer_cut"),
        (_tokens() + "<!-- 1 ms -->", "text_after_answer"),
        (_tokens(scope="api")[:-1] + ',"x":' + "[" * 100_000 + "]" * 100_000 + "}", "answer_mended"),
    ],
    ids=["truncated", "text after it", "depth without end"],
)
def test_token_that_came_in_full_is_stored_and_what_was_wrong_around_it_is_in_the_audit_log(
    linked: Linked, body: str, flag: str
) -> None:
    assert linked.answered(body) == "refreshed"
    assert linked.stored() == "new-refresh"
    assert flag in linked.row("provider_audit_logs", "provider_id")["detail"]["flags"]


@pytest.mark.parametrize(
    "body",
    [
        _tokens(access_token=""),
        "<html><body>Maintenance</body></html>",
        _tokens()[:60],
        "[]",
        "null",
        "",
        _tokens(token_type="mac"),
        _tokens(access_token="a" * 100_000),
        _tokens(refresh_token="a" * 100_000),
        _tokens(access_token="line\r\nbreak"),
        _tokens(refresh_token="nul\x00"),
    ],
    ids=["empty", "html", "truncated", "array", "null", "nothing", "mac", "long_access", "long_refresh", "crlf", "nul"],
)
def test_success_without_a_usable_token_is_an_unknown_outcome_and_overwrites_nothing(linked: Linked, body: str) -> None:
    outcomes = [linked.answered(body), linked.refresh(), linked.refresh()]

    assert outcomes == ["unknown", "needs_reauth", "inactive"]
    assert linked.stored() == OLD
    assert linked.row()["status_reason"] == "lost_rotation"
    assert linked.presented() == 2


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, {"error": "invalid_grant"}),
        (200, {"error": "invalid_grant", "access_token": "x"}),
        (400, {"error": "unsupported_token_type", "error_description": "refresh_token_authentication_error"}),
        (401, {"error": "invalid_client", "error_description": "The refresh token is invalid"}),
    ],
    ids=["invalid_grant", "error_with_200", "unsupported_token_type", "invalid_client_of_a_dead_grant"],
)
def test_dead_grant_needs_reauth_in_whatever_words(linked: Linked, status: int, body: dict[str, str]) -> None:
    assert linked.answered(json.dumps(body), status=status) == "needs_reauth"
    assert linked.row()["status"] == "needs_reauth"
    assert linked.refresh() == "inactive"
    assert linked.presented() == 1


def test_refused_client_is_the_operators_alarm_and_not_the_users_fault(linked: Linked, engine: Engine) -> None:
    body = json.dumps({"error": "invalid_client", "error_description": "Unauthorized"})

    assert linked.answered(body, status=401) == "failed"

    row = linked.row()
    assert (row["status"], row["refresh_failures"]) == ("active", 0)
    with engine.begin() as connection:
        alarm = connection.execute(text("SELECT alarm FROM integration_states WHERE provider_key = 'schwab'"))
        assert alarm.scalar_one() == "invalid_client"


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (503, "<html>busy</html>"),
        (500, json.dumps({"error": "server_error"})),
        (501, ""),
        (400, json.dumps({"error": "temporarily_unavailable"})),
    ],
)
def test_trouble_at_the_provider_is_waited_out(linked: Linked, status: int, body: str) -> None:
    outcomes = [linked.answered(body, status=status), linked.refresh(), linked.refresh()]

    assert outcomes == ["failed", "failed", "failed"]
    assert linked.row()["status"] == "active"
    assert linked.row()["refresh_due_at"] > datetime.now(UTC)
    assert linked.stored() == OLD


@pytest.mark.parametrize(("retry_after", "seconds"), [("120", 120), ("+600", 600), ("1e9", 86_400)])
def test_retry_after_is_honoured_up_to_a_day(linked: Linked, retry_after: str, seconds: int) -> None:
    assert linked.answered("", do="rate_limit", retry_after=retry_after) == "deferred"

    row = linked.row()
    wait = (row["refresh_due_at"] - datetime.now(UTC)).total_seconds()
    assert seconds - 10 < wait < seconds + 10
    assert (row["status"], row["refresh_failures"]) == ("active", 0)


def test_redirect_is_refused_and_nothing_is_sent_there(linked: Linked, sandbox: SandboxAdmin) -> None:
    assert linked.answered("", do="redirect", location="http://127.0.0.1:1/steal") == "failed"

    assert linked.presented() == 1
    assert linked.row()["status"] == "active"


@pytest.mark.parametrize("do", ["reset", "cut"])
def test_connection_lost_after_the_request_is_an_unknown_outcome(linked: Linked, do: str) -> None:
    assert linked.answered(_tokens(), do=do) == "unknown"
    assert linked.row()["status"] == "active"
    assert linked.stored() == OLD

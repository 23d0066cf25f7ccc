from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from tests.support.environment import new_keys
from tests.support.scripted import ScriptedIntegration, answer
from worker.crud.refresh.tokens import LeasedToken
from worker.errors import EncryptionError
from worker.services.encryption import EncryptionService
from worker.services.refresh.plan import Call, NotSent, plan, seal_answer
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
        "lifetime_s": 1800,
        "issued_at": NOW - timedelta(minutes=29),
        "refresh_failures": 0,
        "unknowns": 0,
        "leased_at": NOW,
    }
    return LeasedToken(**defaults | values)


def _plan(
    leased: LeasedToken, *, force: bool = False, stale: int | None = None, integration: object = ...
) -> Call | NotSent:
    known: Any = {"schwab": ScriptedIntegration() if integration is ... else integration} if integration else {}
    return plan(leased, integrations=known, encryption=ENCRYPTION, force=force, stale_generation=stale)


def test_due_token_is_presented() -> None:
    planned = _plan(_leased())

    assert isinstance(planned, Call)
    assert planned.refresh_token == "refresh-4"
    assert "refresh-4" not in repr(planned)


@pytest.mark.parametrize("wanted", [{"force": True}, {"stale": 4}], ids=["forced", "stale"])
def test_fresh_token_is_presented_when_wanted_anew(wanted: dict[str, Any]) -> None:
    assert isinstance(_plan(_leased(issued_at=NOW), **wanted), Call)


def test_fresh_token_with_an_open_attempt_is_presented() -> None:
    assert isinstance(_plan(_leased(issued_at=NOW, unknowns=1)), Call)


@pytest.mark.parametrize("stale", [None, 3])
def test_fresh_token_is_not_sent_and_due_at_its_time(stale: int | None) -> None:
    planned = _plan(_leased(issued_at=NOW), stale=stale)

    assert isinstance(planned, NotSent)
    assert planned.result.outcome is Outcome.FRESH
    assert planned.settlement.refresh_due_at is not None
    assert planned.settlement.refresh_due_at >= NOW + timedelta(minutes=12)


def test_token_that_never_expires_is_not_sent() -> None:
    planned = _plan(_leased(lifetime_s=None))

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


def _seal(given: Any, **values: Any) -> Any:
    policy = ScriptedIntegration().refresh_policy
    return seal_answer(ENCRYPTION, policy, given, provider_id=ID, generation=4, issued_at=NOW, **values)


def test_answer_is_bound_to_the_next_generation() -> None:
    token = _seal(answer(5))

    opened = ENCRYPTION.unseal(token.refresh_token, provider_id=ID, kind="refresh", generation=5)
    assert (token.generation, opened) == (4, "refresh-5")
    assert token.access_expires_at == NOW + timedelta(minutes=30)
    assert "gAAAA" not in repr(token)


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

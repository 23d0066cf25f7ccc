"""Hooks of a provider: what is due after a genuine one, and that nothing is after any other."""

from __future__ import annotations

import base64
import hmac
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any
from uuid import uuid4

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text
from sqlalchemy.orm import Session

from tests.factories import make_linked_provider
from tests.integration.web.conftest import Sent
from tests.support.hook_vectors import NAME, Signer, forged
from tests.support.waiting import wait_for
from worker.errors import Transient, Unavailable
from worker.integrations.plaid.hooks import PlaidHooks
from worker.integrations.snaptrade.stand_in import CONSUMER_KEY, StandIn
from worker.models import Provider
from worker.runtime import Runtime
from worker.services.hooks import bell
from worker.telemetry import metrics

LATER = timedelta(hours=3)
PATH = "/webhooks/plaid"
SYNC = "TRANSACTIONS/SYNC_UPDATES_AVAILABLE"


class Door:
    """Sends hooks as the provider does, and reads what they have changed."""

    def __init__(self, client: TestClient, rows: Session, login: Provider, signer: Signer) -> None:
        self.client, self.rows, self.login, self.signer = client, rows, login, signer

    def body(self, kind: str = SYNC, **changes: Any) -> bytes:
        type_, _, code = kind.partition("/")
        members = {"webhook_type": type_, "webhook_code": code, "item_id": self.login.external_id}
        return json.dumps(members | {"environment": "sandbox", "n": uuid4().hex} | changes, indent=2).encode()

    def send(self, body: bytes, headers: list[tuple[str, str]] | None = None, path: str = PATH) -> Any:
        signed = [(NAME, self.signer.token(body, now=time.time()))]
        return self.client.post(path, content=body, headers=signed if headers is None else headers)

    def hook(self, kind: str = SYNC, **changes: Any) -> None:
        answer = self.send(self.body(kind, **changes))
        assert (answer.status_code, answer.content) == (200, b"")

    def state(self) -> dict[str, Any]:
        """The login's columns, and in how many seconds the sync is due."""
        query = "SELECT *, extract(epoch FROM sync_due_at - now())::float AS due_in FROM providers WHERE id = :id"
        found = self._one(query)
        return dict(found._mapping)

    def deliveries(self) -> int:
        return int(self._one("SELECT count(*) FROM hook_deliveries WHERE provider_id = :id")[0])

    def check_is_due(self) -> bool:
        return bool(self._one("SELECT count(*) FROM login_checks WHERE provider_id = :id AND due_at <= now()")[0])

    def execute(self, statement: str, **values: Any) -> None:
        self.rows.execute(text(statement), {"id": self.login.id} | values)
        self.rows.commit()

    def _one(self, query: str) -> Any:
        found = self.rows.execute(text(query), {"id": self.login.id}).one()
        self.rows.commit()
        return found


@pytest.fixture(scope="module")
def signer(web_runtime: Runtime) -> Iterator[Signer]:
    """The provider's key; the integration asks this module for it."""
    signer, integration = Signer(), web_runtime.integrations["plaid"]

    async def ask_key(kid: str) -> bytes:
        if kid != signer.kid:
            from worker.errors import BadRequest

            raise BadRequest("INVALID_WEBHOOK_VERIFICATION_KEY_ID")
        return json.dumps({"key": signer.jwk()}).encode()

    before, integration.hooks = integration.hooks, PlaidHooks(ask_key, environment="sandbox")
    yield signer
    integration.hooks = before


@pytest.fixture
def door(client: TestClient, web_runtime: Runtime, rows: Session, signer: Signer) -> Iterator[Door]:
    """A linked login of which nothing is due, and the way in for its hooks."""
    made = make_linked_provider(
        rows,
        web_runtime.encryption,
        provider_key="plaid",
        external_id=f"item-{uuid4().hex}",
        refresh_token=None,
        sync_due_at=datetime.now(UTC) + LATER,
    )
    rows.commit()
    yield Door(client, rows, made, signer)
    rows.delete(made)
    rows.commit()


def _counted(outcome: str) -> float:
    labels = {"integration": "plaid", "outcome": outcome}
    return sum(
        one.value
        for one in metrics.counted()
        if one.name == "dashtam_hooks_total" and labels.items() <= one.labels.items()
    )


def test_hook_makes_the_sync_of_its_login_due_within_seconds(door: Door) -> None:
    door.hook()

    state = door.state()
    assert 0 < state["due_in"] <= 6
    assert state["hooked_at"] is not None
    assert state["hook_sync_at"] == state["sync_due_at"]
    assert door.deliveries() == 1
    assert not door.check_is_due()


def test_hook_about_terms_of_loans_makes_the_next_sync_read_them_although_it_is_the_same_day(door: Door) -> None:
    door.execute(
        "INSERT INTO sync_cursors (provider_id, feed, cursor, updated_at)"
        " VALUES (:id, 'liabilities', '2026-01-05', now()), (:id, 'transactions', 'kept', now())"
    )

    door.hook("LIABILITIES/DEFAULT_UPDATE")

    assert door.state()["due_in"] <= 7
    query = text("SELECT feed FROM sync_cursors WHERE provider_id = :id")
    assert door.rows.scalars(query, {"id": door.login.id}).all() == ["transactions"]
    door.rows.commit()


def test_sync_that_is_due_already_is_not_put_off(door: Door) -> None:
    door.execute("UPDATE providers SET sync_due_at = now() - interval '1 s' WHERE id = :id")

    door.hook()

    assert door.state()["due_in"] < 0


def test_second_delivery_of_a_hook_changes_nothing(door: Door) -> None:
    body = door.body()
    headers = [(NAME, door.signer.token(body, now=time.time()))]
    assert door.send(body, headers).status_code == 200
    door.execute("UPDATE providers SET sync_due_at = now() + interval '1 h' WHERE id = :id")

    assert door.send(body, headers).status_code == 200

    assert door.state()["due_in"] > 3000
    assert door.deliveries() == 1


@pytest.mark.deep
def test_storm_puts_nothing_off_and_makes_one_sync_due(door: Door) -> None:
    door.hook()
    first = door.state()

    for _ in range(5):
        door.hook()

    state = door.state()
    assert state["sync_due_at"] == first["sync_due_at"]
    assert state["hook_sync_at"] == first["hook_sync_at"]
    assert state["hook_gap"] is None


def test_hook_in_a_storm_after_a_run_waits_for_the_shortest_interval(door: Door) -> None:
    door.execute(
        "UPDATE providers SET hooked_at = now() - interval '2 s', hook_sync_at = now() - interval '1 s' WHERE id = :id"
    )

    door.hook()

    assert 50 < door.state()["due_in"] <= 60


def test_usual_gap_between_hooks_is_learnt(door: Door) -> None:
    door.execute("UPDATE providers SET hooked_at = now() - interval '1000 s' WHERE id = :id")
    door.hook()
    assert door.state()["hook_gap"] == pytest.approx(1000, abs=5)

    door.execute("UPDATE providers SET hooked_at = now() - interval '3000 s' WHERE id = :id")
    door.hook()
    assert door.state()["hook_gap"] == pytest.approx(1500, abs=5)


@pytest.mark.parametrize("status", ["needs_reauth", "paused", "unlinked", "pending"])
def test_hook_for_a_login_that_is_not_active_makes_no_sync_due(door: Door, status: str) -> None:
    door.execute("UPDATE providers SET status = :status, sync_due_at = NULL WHERE id = :id", status=status)

    door.hook()

    assert door.state()["sync_due_at"] is None


@pytest.mark.parametrize(("status", "due"), [("active", True), ("needs_reauth", True), ("unlinked", False)])
def test_hook_about_the_state_of_a_login_makes_a_check_due(door: Door, status: str, due: bool) -> None:
    door.execute("UPDATE providers SET status = :status WHERE id = :id", status=status)

    door.hook("ITEM/ERROR", error={"error_code": "ITEM_LOGIN_REQUIRED"})

    assert door.check_is_due() is due
    assert door.state()["status"] == status  # the provider's API decides, not the hook


@pytest.mark.deep
@pytest.mark.parametrize("kind", ["ITEM/PENDING_DISCONNECT", "ITEM/NEW_ACCOUNTS_AVAILABLE"])
def test_hook_opens_one_notice_and_writes_no_date(door: Door, kind: str) -> None:
    ends = door.state()["grant_expires_at"]

    for _ in range(3):
        door.hook(kind, disconnect_time="2026-01-01T00:00:00Z")

    (count,) = door._one("SELECT count(*) FROM notices WHERE provider_id = :id")
    assert count == 1
    assert door.state()["grant_expires_at"] == ends


@pytest.mark.parametrize(
    ("changes", "outcome"),
    [
        ({"webhook_code": "SOMETHING_NEW"}, "unknown_kind"),
        ({"item_id": "nobody"}, "unknown_login"),
        ({"webhook_type": "\0", "item_id": "\0"}, "unknown_kind"),
        ({"webhook_type": "\ud800", "item_id": "\ud800"}, "unknown_kind"),
        ({"environment": "production"}, "other_environment"),
    ],
)
def test_genuine_hook_without_effect_is_answered_with_200_and_counted(
    door: Door, changes: dict[str, Any], outcome: str
) -> None:
    before = _counted(outcome)

    door.hook(**changes)

    assert _counted(outcome) == before + 1
    assert door.state()["due_in"] > 3000


@pytest.mark.parametrize(
    "body", [b"", b"\xff\xfe", b"[]", b'{"a":' + b"[" * 10_000 + b"]" * 10_000 + b"}", b'{"item_id":1,"item_id":2}']
)
def test_genuine_body_that_cannot_be_read_is_answered_with_200(door: Door, body: bytes) -> None:
    answer = door.send(body)

    assert (answer.status_code, answer.content) == (200, b"")


def _assert_refused(door: Door, name: str, times: int = 1) -> None:
    body = door.body()
    vector = forged(door.signer, body=body, now=time.time())[name]
    before = _counted(vector.reason) + _counted("too_many_unknown_keys")
    for _ in range(times):
        answer = door.send(vector.body, vector.headers)
        assert (answer.status_code, answer.content) == (401, b""), name
    assert _counted(vector.reason) + _counted("too_many_unknown_keys") == before + times, name
    assert door.state()["due_in"] > 3000, name
    assert door.state()["hooked_at"] is None, name
    assert (door.deliveries(), door.check_is_due()) == (0, False), name


VECTORS = sorted(forged(Signer(), body=b"{}", now=0))


@pytest.mark.deep
def test_forged_hook_of_each_vector_is_refused_with_an_empty_answer(door: Door) -> None:
    for name in VECTORS:
        _assert_refused(door, name)


@pytest.mark.deep
@pytest.mark.parametrize("name", VECTORS)
def test_hundred_forged_hooks_of_each_vector_have_no_effect(door: Door, name: str) -> None:
    _assert_refused(door, name, times=100)
    door.hook()
    assert door.state()["due_in"] <= 6


def test_hook_is_sent_again_while_the_key_cannot_be_asked_for(door: Door, web_runtime: Runtime) -> None:
    async def away(kid: str) -> bytes:
        raise Transient("503")

    integration = web_runtime.integrations["plaid"]
    before, integration.hooks = integration.hooks, PlaidHooks(away, environment="sandbox")
    try:
        answer = door.send(door.body())
    finally:
        integration.hooks = before

    assert (answer.status_code, answer.content) == (503, b"")


def test_hook_is_sent_again_while_postgres_is_away(
    door: Door, web_runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: Any, **__: Any) -> Any:
        raise Unavailable("Postgres is away")

    with monkeypatch.context() as patched:
        patched.setattr(web_runtime, "db_within", away)
        answer = door.send(door.body())

    assert (answer.status_code, answer.content) == (503, b"")


@pytest.mark.parametrize("key", ["nobody", "schwab"])
def test_integration_without_hooks_has_no_door(door: Door, key: str) -> None:
    answer = door.send(door.body(), path=f"/webhooks/{key}")

    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.deep
def test_body_over_the_limit_is_refused(door: Door) -> None:
    assert door.send(b" " * (256 * 1024 + 1)).status_code == 413
    assert door.client.get(PATH).status_code == 405


@pytest.mark.deep
def test_bell_rings_for_what_hooks_have_made_due(door: Door, sent: Sent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.services.hooks.receiving.PAUSE_SECONDS", 0.05)
    sent.tasks.clear()

    door.hook("ITEM/LOGIN_REPAIRED")

    wait_for(lambda: len(sent.tasks) >= 2, what="both messages")
    assert {task for task, _, _ in sent.tasks} == set(bell.TASKS.values())


@pytest.mark.deep
def test_signed_event_of_a_brokerage_makes_the_sync_due_and_a_changed_one_does_not(
    door: Door, web_runtime: Runtime
) -> None:
    with web_runtime.transaction() as session:
        login = make_linked_provider(session, web_runtime.encryption, provider_key="snaptrade", external_id="user-1")
        door.login = session.get_one(Provider, login.id)
        session.expunge(door.login)
    door.execute("UPDATE providers SET sync_due_at = now() + interval '3 hours' WHERE id = :id")
    event = {
        "schemaVersion": "oauth_v1",
        "webhookId": str(uuid4()),
        "oauthClientId": StandIn.client[0],
        "eventTimestamp": datetime.now(UTC).isoformat(),
        "userId": "user-1",
        "eventType": "CONNECTION_FIXED",
    }
    body = json.dumps(event, indent=1).encode()
    canonical = json.dumps(event, separators=(",", ":"), sort_keys=True).encode()
    mac = hmac.new(CONSUMER_KEY.encode(), canonical, sha256).digest()
    headers = [("Signature", base64.b64encode(mac).decode())]

    forged_one = door.send(body.replace(b"FIXED", b"ADDED"), headers, path="/webhooks/snaptrade")
    assert (forged_one.status_code, door.state()["due_in"] > 3600) == (401, True)

    assert door.send(body, headers, path="/webhooks/snaptrade").status_code == 200
    assert door.state()["due_in"] < 60
    assert door.send(body, headers, path="/webhooks/snaptrade").status_code == 200
    assert door.deliveries() == 1
    door.execute("DELETE FROM providers WHERE id = :id")

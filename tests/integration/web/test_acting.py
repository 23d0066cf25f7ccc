"""Asking for work on a login by the HTTP API, and what came of it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
import redis as redis_client
from fastapi.testclient import TestClient
from sqlalchemy.orm import Session

from tests.factories import make_linked_provider
from tests.integration.web.conftest import Person, Sent, make_person
from tests.support.celery_fixtures import reconnect
from worker.errors import Unavailable
from worker.models import Provider, SyncRun, User
from worker.runtime import Runtime
from worker.tasks import send as broker

LATER = datetime.now(UTC) + timedelta(hours=3)


@pytest.fixture(scope="module")
def ada(web_runtime: Runtime) -> Person:
    """A user of their own."""
    return make_person(web_runtime)


@pytest.fixture
def login(web_runtime: Runtime, rows: Session, ada: Person) -> Iterator[Provider]:
    """An active login of hers of which nothing is due."""
    user = rows.get_one(User, ada.user_id)
    made = make_linked_provider(
        rows, web_runtime.encryption, user=user, alias="Home", refresh_due_at=LATER, sync_due_at=LATER
    )
    rows.commit()
    yield made
    rows.delete(made)
    rows.commit()


def _url(login: Provider, what: str) -> str:
    return f"/api/v1/providers/{login.id}/{what}"


def _add_run(rows: Session, login: Provider, status: str, at: datetime) -> None:
    rows.add(
        SyncRun(provider_id=login.id, status=status, trigger="schedule", owner=uuid4(), started_at=at, heartbeat_at=at)
    )
    rows.commit()


@pytest.mark.deep
def test_sync_is_sent_as_the_schedule_sends_it_and_is_due_should_that_be_lost(
    client: TestClient, ada: Person, login: Provider, sent: Sent, rows: Session
) -> None:
    answer = client.post(_url(login, "syncs"), headers=ada.headers)
    task, arguments, options = sent.tasks[-1]
    rows.refresh(login)

    assert answer.status_code == 202, answer.text
    assert answer.json()["provider_id"] == str(login.id)
    assert answer.json()["task_ids"] == [f"message-{len(sent.tasks)}"]
    assert (task, arguments, options) == (
        "worker.tasks.accounts.sync_providers",
        ([str(login.id)],),
        {"trigger": "manual"},
    )
    assert login.sync_due_at is not None
    assert login.sync_due_at < LATER


@pytest.mark.deep
def test_sync_from_the_beginning_and_from_a_day(client: TestClient, ada: Person, login: Provider, sent: Sent) -> None:
    for body, options in (
        ({"full": True, "force": True}, {"mode": "full", "force": True}),
        ({"since": "2026-01-05"}, {"since": "2026-01-05"}),
    ):
        assert client.post(_url(login, "syncs"), headers=ada.headers, json=body).status_code == 202
        assert sent.tasks[-1][2] == {"trigger": "manual"} | options


@pytest.mark.deep
def test_refresh_is_sent_as_the_schedule_sends_it(client: TestClient, ada: Person, login: Provider, sent: Sent) -> None:
    answer = client.post(_url(login, "refreshes"), headers=ada.headers)

    assert answer.status_code == 202
    assert sent.tasks[-1] == (
        "worker.tasks.tokens.refresh_providers",
        ([str(login.id)],),
        {"trigger": "manual", "force": True},
    )


@pytest.mark.deep
@pytest.mark.parametrize("what", ["syncs", "refreshes"])
def test_login_that_is_not_active_is_refused_and_nothing_is_sent(
    client: TestClient, ada: Person, login: Provider, sent: Sent, rows: Session, what: str
) -> None:
    login.status = "paused"
    rows.commit()
    before = len(sent.tasks)

    answer = client.post(_url(login, what), headers=ada.headers)

    assert answer.status_code == 409
    assert answer.json()["detail"].endswith(" is paused; nothing was sent; an operator has to resume it")
    assert len(sent.tasks) == before


@pytest.mark.deep
def test_sync_a_moment_after_the_last_is_refused(
    client: TestClient, ada: Person, login: Provider, rows: Session
) -> None:
    _add_run(rows, login, "completed", datetime.now(UTC))

    refused = client.post(_url(login, "syncs"), headers=ada.headers)
    assert refused.status_code == 409
    assert 'or send {"force": true}' in refused.json()["detail"]
    assert "dashtam " not in refused.json()["detail"]
    assert client.post(_url(login, "syncs"), headers=ada.headers, json={"force": True}).status_code == 202


@pytest.mark.parametrize("what", ["syncs", "refreshes"])
def test_without_the_broker_the_work_is_due_and_the_answer_says_so(
    client: TestClient, ada: Person, login: Provider, rows: Session, what: str
) -> None:
    def refuse(*_: object, **__: object) -> str:
        raise Unavailable("Redis: ConnectionError; pending work is kept")

    state: Any = client.app.state  # type: ignore[attr-defined]
    before, state.send = state.send, refuse
    try:
        answer = client.post(_url(login, what), headers=ada.headers)
    finally:
        state.send = before
    rows.refresh(login)

    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "5"
    due = login.sync_due_at if what == "syncs" else login.refresh_due_at
    assert due is not None
    assert due <= datetime.now(UTC)


@pytest.mark.deep
@pytest.mark.parametrize("body", [{"full": "maybe"}, {"since": "yesterday"}, {"all": True}, []])
def test_sync_that_cannot_be_is_refused(
    client: TestClient, ada: Person, login: Provider, sent: Sent, body: Any
) -> None:
    before = len(sent.tasks)

    assert client.post(_url(login, "syncs"), headers=ada.headers, json=body).status_code == 422
    assert len(sent.tasks) == before


@pytest.mark.deep
def test_runs_are_listed_newest_first(client: TestClient, ada: Person, login: Provider, rows: Session) -> None:
    began = datetime(2026, 1, 5, tzinfo=UTC)
    for hours, status in enumerate(("completed", "failed")):
        _add_run(rows, login, status, began + timedelta(hours=hours))

    runs = client.get(_url(login, "runs"), headers=ada.headers).json()["items"]
    failed = client.get(_url(login, "runs?status=failed&limit=5"), headers=ada.headers).json()["items"]

    assert [run["status"] for run in runs] == ["failed", "completed"]
    assert failed == runs[:1]
    assert runs[0]["started_at"] == "2026-01-05T01:00:00Z"
    assert not {"owner", "cursor_before", "user"} & runs[0].keys()


def test_explanation_says_what_is_next_and_who_must_act(client: TestClient, ada: Person, login: Provider) -> None:
    told = client.get(_url(login, "explain"), headers=ada.headers).json()

    assert told["provider_id"] == str(login.id)
    assert told["status"][0] == "Home is active: the schedule refreshes and syncs it."
    assert told["must_act"] == "nobody"  # that no beat has ever ticked here is for operators to know
    assert told["next_sync_at"] is not None


@pytest.mark.deep
def test_what_is_sent_reaches_the_queue(client: TestClient, ada: Person, login: Provider, web_runtime: Runtime) -> None:
    state: Any = client.app.state  # type: ignore[attr-defined]
    url = web_runtime.settings.redis_url.get_secret_value()
    broker_before = broker.sender.conf["broker_url"]
    before, state.send = state.send, broker.send
    try:
        reconnect(broker.sender, broker_url=url)
        answer = client.post(_url(login, "syncs"), headers=ada.headers)
    finally:
        state.send = before
        reconnect(broker.sender, broker_url=broker_before)
    with redis_client.Redis.from_url(url, decode_responses=True) as client_:
        waiting = client_.lrange("sync", 0, -1)
        client_.delete("sync")

    assert answer.status_code == 202
    assert [UUID(answer.json()["task_ids"][0])]
    assert any(answer.json()["task_ids"][0] in message for message in waiting)

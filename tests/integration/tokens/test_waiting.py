"""The view `work_waiting` counts what waits for a worker, also when a claim has moved its due time ahead."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from tests.factories import make_provider
from worker.crud import providers
from worker.crud.fleet import gauges
from worker.crud.fleet.gauges import Waiting

CLAIM = timedelta(seconds=120)
NOTHING = Waiting(0, 0, 0.0)

Claim = Callable[..., object]


@pytest.fixture(params=["refresh", "sync"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def claim(kind: str) -> Claim:
    return {"refresh": providers.claim_refresh_due, "sync": providers.claim_sync_due}[kind]


def waiting(engine: Engine, kind: str) -> Waiting:
    with Session(engine) as session:
        return gauges.work_waiting(session)[kind]


def change(engine: Engine, sql: str) -> None:
    with Session(engine) as session, session.begin():
        session.execute(text(sql))


def test_claimed_work_waits_since_it_was_due(engine: Engine, kind: str, claim: Claim) -> None:
    now = datetime.now(UTC)
    with Session(engine) as session, session.begin():
        for minutes in (10, 5, -30):
            make_provider(session, status="active", **{f"{kind}_due_at": now - timedelta(minutes=minutes)})
    assert (waiting(engine, kind).due, waiting(engine, kind).claimed) == (2, 0)

    for moment in (now, now + CLAIM):  # the message was lost, and the work is claimed again
        with Session(engine) as session, session.begin():
            claim(session, provider_key="schwab", now=moment, limit=10, claim=CLAIM)
        found = waiting(engine, kind)

        assert (found.due, found.claimed) == (0, 2)
        assert 600 <= found.oldest_s < 700


def test_work_that_is_done_or_put_off_does_not_wait(engine: Engine, kind: str, claim: Claim) -> None:
    now = datetime.now(UTC)
    with Session(engine) as session, session.begin():
        make_provider(session, status="active", **{f"{kind}_due_at": now - timedelta(minutes=10)})
        claim(session, provider_key="schwab", now=now, limit=10, claim=CLAIM)

    change(engine, f"UPDATE providers SET {kind}_due_at = now() + interval '1 minute'")  # noqa: S608 - of this test

    assert waiting(engine, kind) == NOTHING


def test_login_that_is_not_active_does_not_wait(engine: Engine, kind: str, claim: Claim) -> None:
    now = datetime.now(UTC)
    with Session(engine) as session, session.begin():
        make_provider(session, status="active", **{f"{kind}_due_at": now})
        claim(session, provider_key="schwab", now=now, limit=10, claim=CLAIM)

    change(engine, "UPDATE providers SET status = 'needs_reauth'")

    assert waiting(engine, kind) == NOTHING


def test_running_sync_does_not_wait(engine: Engine) -> None:
    now = datetime.now(UTC)
    with Session(engine) as session, session.begin():
        make_provider(session, status="active", sync_due_at=now)
        providers.claim_sync_due(session, provider_key="schwab", now=now, limit=10, claim=CLAIM)
    change(
        engine,
        "INSERT INTO sync_runs (id, provider_id, status, mode, trigger, owner, started_at, heartbeat_at)"
        " SELECT gen_random_uuid(), id, 'running', 'incremental', 'schedule', gen_random_uuid(), now(), now()"
        " FROM providers",
    )

    assert waiting(engine, "sync") == NOTHING

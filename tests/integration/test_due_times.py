"""The table by which claims find what is due: it says what `providers` says, also after Postgres has emptied it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from tests.factories import make_linked_provider
from tests.support.waiting import wait_for
from worker.crud import due_times, providers
from worker.crud.fleet import overview
from worker.models import Provider
from worker.runtime import Runtime
from worker.services.refresh.claims import claim_refresh_due
from worker.services.sync.batch import claim_sync_due

pytestmark = pytest.mark.deep
_SAYS = """
    SELECT provider_id, kind, provider_key, due_at, access_expires_at FROM due_times WHERE kind IN ('refresh', 'sync')
"""
_SHOULD = """
    SELECT id, kind, provider_key, at, expires_at FROM providers CROSS JOIN LATERAL (
        VALUES ('refresh', refresh_due_at, access_expires_at), ('sync', sync_due_at, NULL)
    ) AS due (kind, at, expires_at)
    WHERE status = 'active' AND at IS NOT NULL
"""
_PAST = datetime.now(UTC) - timedelta(hours=1)  # only differences matter, so the time of collection will do


@pytest.fixture
def logins(runtime: Runtime) -> Sequence[Provider]:
    """Five logins that are due."""
    with runtime.transaction() as session:
        return [
            make_linked_provider(session, runtime.encryption, sync_due_at=_PAST, refresh_due_at=_PAST) for _ in range(5)
        ]


def differences(session: Session) -> list[tuple[object, ...]]:
    """Rows that the table has too many or too few."""
    return [
        tuple(row)
        for query in (f"{_SAYS} EXCEPT ALL {_SHOULD}", f"{_SHOULD} EXCEPT ALL {_SAYS}")
        for row in session.execute(text(query))
    ]


def empty(runtime: Runtime) -> None:
    """What Postgres does with the table after a crash."""
    with runtime.transaction() as session:
        session.execute(text("TRUNCATE due_times"))


def fill(runtime: Runtime) -> None:
    with runtime.transaction() as session:
        assert due_times.fill(session, at_most=99)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE providers SET sync_due_at = sync_due_at + interval '1 hour'",
        "UPDATE providers SET refresh_due_at = NULL, sync_due_at = now()",
        "UPDATE providers SET status = 'needs_reauth', status_reason = 'revoked'",
        "UPDATE providers SET status = 'paused'; UPDATE providers SET status = 'active', sync_due_at = now()",
        "UPDATE providers SET provider_key = 'plaid'",
        "UPDATE providers SET access_expires_at = now() + interval '1 hour'",
        "UPDATE providers SET access_expires_at = NULL",
        "UPDATE providers SET refresh_due_at = now(), access_expires_at = now() + interval '30 minutes'",
        "DELETE FROM providers",
        "DELETE FROM users",
        "UPDATE providers SET sync_due_at = NULL; UPDATE providers SET sync_due_at = now(), synced_at = now()",
    ],
)
def test_says_what_the_logins_say_after_each_change(runtime: Runtime, logins: Sequence[Provider], change: str) -> None:
    with runtime.transaction() as session:
        assert len(session.execute(text(_SAYS)).all()) == 2 * len(logins)
        for statement in change.split(";"):
            session.execute(text(statement))

        assert differences(session) == []


def test_claims_find_everything_after_postgres_has_emptied_it(
    runtime: Runtime, logins: Sequence[Provider], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(providers, "_FILLED_AT_ONCE", 2)
    empty(runtime)
    syncs: list[UUID] = []
    refreshes: list[UUID] = []

    for _ in range(3):
        syncs += [id_ for batch in runtime.run(claim_sync_due(runtime, datetime.now(UTC))) for id_ in batch]
        due = runtime.run(claim_refresh_due(runtime, datetime.now(UTC), tick_s=15))
        refreshes += [id_ for batch in due for id_ in batch.ids]

    ids = sorted(login.id for login in logins)
    assert sorted(syncs) == ids
    assert sorted(refreshes) == ids
    with runtime.transaction() as session:
        assert differences(session) == []
        assert due_times.is_filled(session)


def test_status_counts_the_logins_themselves_while_it_is_empty(runtime: Runtime, logins: Sequence[Provider]) -> None:
    empty(runtime)

    def due() -> tuple[int, int, int, datetime | None]:
        with runtime.transaction() as session:
            session.execute(text("UPDATE providers SET access_expires_at = :past"), {"past": _PAST})
            fleet = overview.fleet(session, now=datetime.now(UTC))
            return fleet.sync_due, fleet.refresh_late, fleet.tokens_expired, fleet.oldest_token_expires_at

    before = due()
    fill(runtime)

    assert before == due() == (*[len(logins)] * 3, _PAST)


@pytest.mark.parametrize("due", ["'2030-01-01'", "NULL"])
def test_change_that_is_not_committed_yet_while_it_is_filled_counts(
    runtime: Runtime, logins: Sequence[Provider], engine: Engine, due: str
) -> None:
    empty(runtime)
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%INTO due_times%'"

    with engine.connect() as connection, connection.begin() as transaction:
        connection.execute(text(f"UPDATE providers SET sync_due_at = {due}"))  # noqa: S608 - a constant of this test
        thread = threading.Thread(target=fill, args=(runtime,))
        thread.start()
        if due != "NULL":
            with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as other:
                wait_for(lambda: other.execute(text(waiting)).scalar(), what="the filling to wait for the change")
        transaction.commit()
    thread.join()

    claimed = runtime.run(claim_sync_due(runtime, datetime.now(UTC)))

    assert claimed == []


def test_row_that_a_worker_of_the_release_before_has_filled_is_complete_after_the_next_claim(
    runtime: Runtime, logins: Sequence[Provider]
) -> None:
    with runtime.transaction() as session:
        session.execute(text("UPDATE due_times SET access_expires_at = NULL"))  # it does not know this column

    runtime.run(claim_refresh_due(runtime, datetime.now(UTC), tick_s=15))

    with runtime.transaction() as session:
        assert differences(session) == []


def test_row_that_is_too_many_is_not_claimed(runtime: Runtime, logins: Sequence[Provider]) -> None:
    with runtime.transaction() as session:
        session.execute(text("UPDATE providers SET sync_due_at = NULL, status = 'paused'"))
        session.execute(
            text("INSERT INTO due_times SELECT id, 'sync', provider_key, :past FROM providers"), {"past": _PAST}
        )

        key = logins[0].provider_key
        assert not providers.claim_sync_due(
            session, provider_key=key, now=datetime.now(UTC), limit=9, claim=timedelta(minutes=9)
        )


def test_claim_changes_no_index_of_the_logins(runtime: Runtime, logins: Sequence[Provider]) -> None:
    def updated(session: Session) -> tuple[int, int]:
        """Updates of logins by this connection so far, and those of them that changed no index."""
        counted = "SELECT pg_stat_get_xact_tuples_updated(t), pg_stat_get_xact_tuples_hot_updated(t)"
        row = session.execute(text(f"{counted} FROM (SELECT 'providers'::regclass::oid) AS x (t)")).one()
        return row[0], row[1]

    with runtime.transaction() as session:
        before = updated(session)
        providers.claim_sync_due(
            session,
            provider_key=logins[0].provider_key,
            now=datetime.now(UTC),
            limit=9,
            claim=timedelta(minutes=9),
        )

        after = updated(session)

    assert [now - then for now, then in zip(after, before, strict=True)] == [len(logins), len(logins)]

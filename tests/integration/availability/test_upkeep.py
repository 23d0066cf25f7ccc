"""Reaping, retention and the upkeep tasks on a real Postgres."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import event, select, text, update
from sqlalchemy.orm import Session

from tests.factories import make_account, make_linked_provider
from worker.crud import heartbeats, notices
from worker.crud import upkeep as upkeep_crud
from worker.crud.sync import runs as sync_runs
from worker.models import (
    Balance,
    LinkState,
    Notice,
    Provider,
    ProviderToken,
    Quarantine,
    QuotaDay,
    SyncRun,
    TaskDelivery,
    TaskFailure,
    TokenRefresh,
    new_id,
)
from worker.runtime import Runtime, use_runtime
from worker.services import upkeep
from worker.tasks import upkeep as tasks

NOW = datetime(2025, 3, 14, 15, 0, tzinfo=UTC)
OLD = NOW - timedelta(days=1000)


def add(runtime: Runtime, *rows: Any) -> None:
    with runtime.transaction() as session:
        session.add_all(rows)


def linked(runtime: Runtime, **values: Any) -> Provider:
    with runtime.transaction() as session:
        defaults = {"refresh_due_at": NOW + timedelta(hours=1), "sync_due_at": NOW + timedelta(hours=1)}
        return make_linked_provider(session, runtime.encryption, **defaults | values)


def run_of(provider: Provider, **values: Any) -> SyncRun:
    defaults = {
        "provider_id": provider.id,
        "trigger": "schedule",
        "owner": new_id(),
        "started_at": NOW - timedelta(minutes=10),
        "heartbeat_at": NOW,
    }
    return SyncRun(**defaults | values)


def attempt_of(provider: Provider, **values: Any) -> TokenRefresh:
    defaults = {"provider_id": provider.id, "generation": 1, "lease_owner": new_id(), "started_at": NOW}
    return TokenRefresh(**defaults | values)


def reap(runtime: Runtime) -> dict[str, int]:
    return {kind: count for kind, count in runtime.run(upkeep.reap(runtime, NOW)).items() if count}


def retain(runtime: Runtime, **values: Any) -> dict[str, int]:
    return {table: count for table, count in runtime.run(upkeep.retain(runtime, NOW, **values)).items() if count}


def stored(runtime: Runtime, provider: Provider) -> Provider:
    with Session(runtime.engine) as session:
        return session.get_one(Provider, provider.id)


# Reaping -------------------------------------------------------------------------------------------------------------


@pytest.mark.deep
def test_run_whose_heartbeat_has_stopped_fails_and_its_login_is_due(quiet: Runtime) -> None:
    dead, living = linked(quiet), linked(quiet)
    add(quiet, run_of(dead, heartbeat_at=NOW - timedelta(seconds=181)), run_of(living))

    assert reap(quiet) == {"dead_runs": 1}

    with Session(quiet.engine) as session:
        runs = {run.provider_id: run for run in session.scalars(select(SyncRun))}
    assert (runs[dead.id].status, runs[dead.id].error_reason) == (
        "failed",
        sync_runs.WORKER_STOPPED,
    )
    assert runs[dead.id].finished_at == NOW
    assert runs[living.id].status == "running"
    assert stored(quiet, dead).sync_due_at == NOW
    assert stored(quiet, living).sync_due_at == NOW + timedelta(hours=1)


@pytest.mark.deep
def test_dead_run_of_a_login_that_is_not_active_makes_nothing_due(quiet: Runtime) -> None:
    provider = linked(quiet, status="needs_reauth", sync_due_at=None)
    add(quiet, run_of(provider, heartbeat_at=OLD))

    assert reap(quiet) == {"dead_runs": 1}

    assert stored(quiet, provider).sync_due_at is None


@pytest.mark.deep
def test_attempt_left_by_a_dead_worker_is_handed_to_the_next_refresh_as_it_is(quiet: Runtime) -> None:
    provider = linked(quiet)
    add(quiet, attempt_of(provider, started_at=NOW - timedelta(minutes=5)))

    assert reap(quiet) == {"left_attempts": 1}
    assert reap(quiet) == {}

    assert stored(quiet, provider).refresh_due_at == NOW
    with Session(quiet.engine) as session:
        assert session.scalars(select(TokenRefresh.status)).all() == ["sent"]


@pytest.mark.deep
@pytest.mark.parametrize("why", ["leased", "young", "newer generation", "ended", "paused"])
def test_attempt_that_is_nobodys_business_is_left_alone(quiet: Runtime, why: str) -> None:
    provider = linked(quiet, **({"status": "paused"} if why == "paused" else {}))
    add(
        quiet,
        attempt_of(
            provider,
            started_at=NOW - timedelta(seconds=10 if why == "young" else 300),
            status="failed" if why == "ended" else "sent",
        ),
    )
    with quiet.transaction() as session:
        if why == "leased":
            session.execute(update(ProviderToken).values(lease_until=NOW + timedelta(seconds=1)))
        if why == "newer generation":
            session.execute(update(ProviderToken).values(generation=2))

    assert reap(quiet) == {}


def test_expired_lease_stays_so_that_a_late_answer_can_still_be_stored(quiet: Runtime) -> None:
    owner = new_id()
    provider = linked(quiet, token={"lease_owner": owner, "lease_until": NOW - timedelta(minutes=1)})
    add(quiet, attempt_of(provider, started_at=NOW - timedelta(minutes=5), lease_owner=owner))

    reap(quiet)

    with Session(quiet.engine) as session:
        assert session.scalars(select(ProviderToken.lease_owner)).all() == [owner]


@pytest.mark.deep
def test_expired_link_states_and_old_deliveries_go(quiet: Runtime) -> None:
    user_id = linked(quiet).user_id
    for seconds in (-1, 1):
        add(
            quiet,
            LinkState(
                state_hash=hashlib.sha256(str(seconds).encode()).digest(),
                user_id=user_id,
                provider_key="schwab",
                alias="x",
                expires_at=NOW + timedelta(seconds=seconds),
            ),
            TaskDelivery(task_id=str(seconds), first_at=NOW - timedelta(days=1) + timedelta(seconds=seconds)),
        )

    assert reap(quiet) == {"expired_links": 1, "old_deliveries": 1}

    with Session(quiet.engine) as session:
        assert session.scalars(select(TaskDelivery.task_id)).all() == ["1"]


@pytest.mark.deep
def test_two_reapers_do_no_harm_to_each_other(quiet: Runtime) -> None:
    provider = linked(quiet)
    add(quiet, run_of(provider, heartbeat_at=OLD))

    with quiet.transaction() as session:
        first = upkeep_crud.end_dead_runs(session, now=NOW, heartbeat_before=NOW, limit=10)
        second = reap(quiet)

    assert (first, second) == (1, {})


# Retention -----------------------------------------------------------------------------------------------------------


@pytest.mark.deep
def test_rows_older_than_their_retention_go_and_the_others_stay(quiet: Runtime) -> None:
    provider = linked(quiet)
    for age in (OLD, NOW):
        add(
            quiet,
            attempt_of(provider, status="done", started_at=age),
            run_of(provider, status="completed", started_at=age),
            Notice(provider_id=provider.id, subject_key=f"{age}", stage="expired", channel="log", created_at=age),
            _quarantined(provider, created_at=age, resolved_at=age),
            TaskFailure(
                task_id="1", task_name="t", arguments={}, reason="r", deliveries=3, created_at=age, resolved_at=age
            ),
            QuotaDay(provider_key="schwab", bucket="app", day=age.date(), used=1),
        )

    assert retain(quiet) == dict.fromkeys(
        ("token_refreshes", "sync_runs", "notices", "quarantine", "task_failures", "quota_days"), 1
    )
    assert retain(quiet) == {}


@pytest.mark.deep
def test_what_is_open_or_the_last_of_its_kind_is_kept_however_old(quiet: Runtime) -> None:
    provider, other = linked(quiet), linked(quiet)
    with quiet.transaction() as session:
        account = make_account(session, provider=provider)
    add(
        quiet,
        attempt_of(provider, started_at=OLD),
        run_of(provider, status="completed", started_at=OLD),
        run_of(other, started_at=OLD),
        Notice(provider_id=provider.id, subject_key="1", stage="expired", channel="log", created_at=OLD, due_at=NOW),
        _quarantined(provider, created_at=OLD),
        TaskFailure(task_id="1", task_name="t", arguments={}, reason="r", deliveries=3, created_at=OLD),
        _balance(account.id, OLD),
    )

    assert retain(quiet) == {}


@pytest.mark.deep
def test_open_attempts_of_earlier_generations_go_and_those_of_the_present_one_stay(quiet: Runtime) -> None:
    provider = linked(quiet)
    with quiet.transaction() as session:
        present = session.scalars(select(ProviderToken.generation)).one()
    for generation in (present - 1, present):
        for status in ("sent", "unknown"):
            add(quiet, attempt_of(provider, status=status, generation=generation, started_at=OLD))

    assert retain(quiet) == {"token_refreshes": 2}

    with Session(quiet.engine) as session:
        assert set(session.scalars(select(TokenRefresh.generation))) == {present}


def test_snapshots_go_but_for_the_newest_of_each_account(quiet: Runtime) -> None:
    provider = linked(quiet)
    with quiet.transaction() as session:
        account = make_account(session, provider=provider)
    add(quiet, *(_balance(account.id, OLD + timedelta(days=day)) for day in range(3)))

    assert retain(quiet) == {"balances": 2}

    with Session(quiet.engine) as session:
        assert session.scalars(select(Balance.taken_at)).all() == [OLD + timedelta(days=2)]


@pytest.mark.deep
def test_retention_works_in_small_batches_and_within_its_time(quiet: Runtime) -> None:
    provider = linked(quiet)
    add(quiet, *(attempt_of(provider, status="done", started_at=OLD) for _ in range(25)))
    ticks = iter(range(100))

    # The clock is asked once for the deadline and then before each batch.
    assert retain(quiet, batch=10, seconds=3, clock=lambda: float(next(ticks))) == {"token_refreshes": 20}
    assert retain(quiet, batch=10) == {"token_refreshes": 5}


def test_every_retained_table_has_its_days(quiet: Runtime) -> None:
    assert set(upkeep.retention_days(quiet)) == set(upkeep_crud.RETAINED)


def _quarantined(provider: Provider, **values: Any) -> Quarantine:
    return Quarantine(
        provider_id=provider.id,
        kind="transaction",
        reason="amount_not_finite",
        fingerprint=new_id().bytes,
        **values,
    )


def _balance(account_id: UUID, taken_at: datetime) -> Balance:
    return Balance(
        account_id=account_id, currency="USD", source="provider", content_hash=new_id().bytes, taken_at=taken_at
    )


# Scans and ticks -----------------------------------------------------------------------------------------------------


def test_scan_for_ending_grants_reads_its_partial_index(quiet: Runtime) -> None:
    user_id = linked(quiet).user_id
    statements: list[tuple[str, Any]] = []

    def note(_: object, __: object, statement: str, parameters: Any, *___: object) -> None:
        statements.append((statement, parameters))

    with quiet.transaction() as session:
        session.execute(
            text(
                "INSERT INTO providers (id, user_id, provider_key, alias, status, grant_expires_at)"
                " SELECT gen_random_uuid(), :user_id, 'schwab', 'login ' || n, 'active', now() + n * interval '1 min'"
                " FROM generate_series(1, 2000) n"
            ),
            {"user_id": user_id},
        )
        session.execute(text("ANALYZE providers"))  # or the plan is made for whatever the table was before
        event.listen(session.connection(), "before_cursor_execute", note)
        notices.expire_grants(session, now=OLD, limit=100, channels=())
        scan, parameters = statements[0]
        plan = session.connection().exec_driver_sql(f"EXPLAIN {scan}", parameters).scalars().all()
        session.rollback()

    assert "Index Scan using ix_providers_grant_expires" in "\n".join(plan)


@pytest.mark.deep
@pytest.mark.parametrize(
    ("task", "name"),
    [
        (tasks.warn_of_expiring_grants, "warn-of-expiring-grants"),
        (tasks.send_notices, "send-notices"),
        (tasks.reap, "reap"),
        (tasks.retain, "retain"),
    ],
)
def test_each_tick_leaves_its_heartbeat(quiet: Runtime, task: Any, name: str) -> None:
    before = datetime.now(UTC)

    with use_runtime(quiet):
        task.run()

    with quiet.transaction() as session:
        assert heartbeats.read_heartbeats(session)[name] >= before


def test_older_heartbeat_does_not_overwrite_a_newer_one(quiet: Runtime) -> None:
    with quiet.transaction() as session:
        heartbeats.beat(session, name="reap", at=NOW)
        heartbeats.beat(session, name="reap", at=NOW - timedelta(hours=1))

    with quiet.transaction() as session:
        assert heartbeats.read_heartbeats(session) == {"reap": NOW}


def test_ticks_end_a_grant_and_tell_its_user(quiet: Runtime) -> None:
    provider = linked(quiet, grant_expires_at=datetime.now(UTC) - timedelta(minutes=1))

    with use_runtime(quiet):
        tasks.warn_of_expiring_grants.run()
        tasks.send_notices.run()

    assert stored(quiet, provider).status == "needs_reauth"
    with Session(quiet.engine) as session:
        notice = session.scalars(select(Notice)).one()
    assert (notice.stage, notice.sent_at is not None) == ("expired", True)

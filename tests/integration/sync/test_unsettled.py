"""Runs of which it is not known yet whether they repeat the last one: who sees them, and what ends them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from tests.integration.sync.conftest import Linked
from tests.integration.sync.feeds import Movement, Plan
from worker.crud import upkeep
from worker.crud.fleet import changes, gauges, history, overview
from worker.crud.sync import beginning, runs
from worker.errors import Fenced, Refused
from worker.models import UnsettledRun, new_id
from worker.models.vocabulary import RunStatus
from worker.services.sync import batch

pytestmark = pytest.mark.deep
_REACH = changes.Reach(run=timedelta(hours=1), refresh=timedelta(hours=1), transaction=timedelta(hours=1))


@pytest.fixture
def quiet(linked: Linked) -> Linked:
    """A login whose next sync begins unsettled."""
    linked.integration.books.put(Movement("t1", "A", "5.00"))
    linked.sync()
    assert linked.sync().answers is not None
    return linked


def while_it_looks(linked: Linked, act: Callable[[], object]) -> Any:
    """One sync, with `act` before the first page that can differ; what `act` has returned."""
    done: list[object] = []
    linked.integration.plan = Plan(mutate_before={linked.integration.asked: lambda: done.append(act())})
    linked.sync()
    return done[0]


def silent(linked: Linked) -> UnsettledRun:
    """An unsettled run whose worker has died long ago."""
    long_ago = datetime.now(UTC) - timedelta(hours=1)
    left = UnsettledRun(
        id=new_id(), provider_id=linked.provider_id, owner=new_id(), started_at=long_ago, heartbeat_at=long_ago
    )
    with linked.runtime.transaction() as session:
        session.add(left)
    return left


def last_runs(linked: Linked, limit: int = 1) -> list[Any]:
    with linked.runtime.transaction() as session:
        return list(history.runs(session, provider_ids=[linked.provider_id], limit=limit))


def test_is_listed_counted_and_told_like_every_running_run(quiet: Linked) -> None:
    with quiet.runtime.transaction() as session:
        position = changes.here(session)

    def look() -> dict[str, Any]:
        with quiet.runtime.transaction() as session:
            listed = history.runs(session, provider_ids=[quiet.provider_id], limit=1)
            return {
                "listed": listed[0],
                "by_status": history.runs(session, status="running"),
                "by_id": history.runs_between(session, first=listed[0].id, last=listed[0].id),
                "live": history.is_running(session, provider_id=quiet.provider_id, dead_after=timedelta(minutes=3)),
                "gauge": gauges.backlogs(session).runs_running,
                "status": overview.fleet(session, now=datetime.now(UTC)).runs_running,
                "told": [c.data["status"] for c in changes.since(session, position=position, reach=_REACH, most=9)[0]],
                "view": session.execute(
                    text("SELECT status FROM dashtam_v1.sync_runs WHERE finished_at IS NULL")
                ).all(),
            }

    seen = while_it_looks(quiet, look)

    listed = seen["listed"]
    assert (listed.status, listed.trigger, listed.mode, listed.finished_at) == (
        "running",
        "schedule",
        "incremental",
        None,
    )
    assert seen["by_status"] == seen["by_id"] == [listed]
    assert (seen["live"], seen["gauge"], seen["status"]) == (True, 1, 1)
    assert seen["told"] == ["running"]
    assert seen["view"] == [("running",)]
    (ended,) = last_runs(quiet)
    assert (ended.id, ended.status, ended.cursor_before) == (listed.id, "completed", listed.cursor_before)


def test_does_not_wait_for_a_worker(quiet: Linked) -> None:
    quiet.execute("UPDATE providers SET sync_due_at = now() - interval '1 minute' WHERE id = :id")
    quiet.sync()
    quiet.sync()
    with quiet.runtime.transaction() as session:
        claim = "UPDATE providers SET sync_due_at = t, sync_claimed_until = t, sync_wanted_at = now()"
        session.execute(text(f"{claim} FROM (SELECT now() + interval '9 minutes' AS t) AS x"))

    def waiting() -> tuple[int, int]:
        with quiet.runtime.transaction() as session:
            sync = gauges.work_waiting(session)["sync"]
            return sync.due, sync.claimed

    before = waiting()

    assert before == (0, 1)
    assert while_it_looks(quiet, waiting) == (0, 0)


def test_other_sync_is_refused_meanwhile(quiet: Linked) -> None:
    def sync() -> None:
        with quiet.runtime.transaction() as session, pytest.raises(Refused, match="being synced already"):
            beginning.begin_run(
                session,
                provider_id=quiet.provider_id,
                owner=new_id(),
                trigger="manual",  # type: ignore[arg-type]
                mode="incremental",
                now=datetime.now(UTC),
                dead_after=timedelta(minutes=3),
                min_interval=None,
                memory_feeds={"model": frozenset()},
            )

    while_it_looks(quiet, sync)


@pytest.mark.parametrize("differs", [False, True])
def test_goes_on_when_postgres_has_emptied_its_table_after_a_crash(quiet: Linked, differs: bool) -> None:
    if differs:
        quiet.integration.books.windowed["w"] = Movement("w", "W", "2.00")

    def lose() -> None:
        with quiet.runtime.transaction() as session:
            session.execute(text("TRUNCATE unsettled_runs"))

    while_it_looks(quiet, lose)

    (run,) = last_runs(quiet)
    assert (run.status, run.added > 0) == (RunStatus.COMPLETED, differs)
    assert set(quiet.live()) == ({"t1", "w"} if differs else {"t1"})


@pytest.mark.parametrize("differs", [False, True])
@pytest.mark.parametrize("emptied", [False, True])
def test_writes_nothing_when_another_run_has_begun_meanwhile(quiet: Linked, differs: bool, emptied: bool) -> None:
    """A worker of an older release does not look into the table of unsettled runs."""
    if differs:
        quiet.integration.books.windowed["w"] = Movement("w", "W", "2.00")

    def begin_another() -> None:
        with quiet.runtime.transaction() as session:
            session.execute(
                text(
                    "INSERT INTO sync_runs (id, provider_id, status, trigger, owner, started_at, heartbeat_at)"
                    " VALUES (gen_random_uuid(), :id, 'running', 'manual', :id, :began, :began)"
                ),
                # On a busy machine the time that the first run has read may be some milliseconds ahead.
                {"id": quiet.provider_id, "began": datetime.now(UTC) + timedelta(seconds=1)},
            )
            if emptied:
                session.execute(text("TRUNCATE unsettled_runs"))

    before = quiet.versions()

    with pytest.raises(Fenced):
        while_it_looks(quiet, begin_another)

    assert quiet.versions() == before
    (run,) = last_runs(quiet)
    assert (run.status, run.trigger) == ("running", "manual")


def test_one_whose_worker_died_is_ended_by_the_tick_and_its_login_is_due(quiet: Linked) -> None:
    left, now = silent(quiet), datetime.now(UTC)

    with quiet.runtime.transaction() as session:
        ended = upkeep.end_dead_runs(session, now=now, heartbeat_before=now - timedelta(minutes=3), limit=9)

    assert ended == 1
    with quiet.runtime.transaction() as session:
        (run,) = history.runs_between(session, first=left.id, last=left.id)
    assert (run.status, run.error, run.error_reason) == ("failed", runs.DEAD, runs.WORKER_STOPPED)
    assert quiet.rows("SELECT sync_due_at FROM providers WHERE id = :id") == [(now,)]
    assert quiet.rows("SELECT count(*) FROM unsettled_runs") == [(0,)]


def test_one_whose_worker_died_is_ended_by_the_next_run(quiet: Linked) -> None:
    left = silent(quiet)

    run = quiet.sync()

    assert run.status == RunStatus.COMPLETED
    with quiet.runtime.transaction() as session:
        (dead,) = history.runs_between(session, first=left.id, last=left.id)
    assert (dead.status, dead.error) == ("failed", runs.DEAD)


def test_one_of_a_deleted_login_goes_without_a_trace(quiet: Linked) -> None:
    silent(quiet)
    with quiet.runtime.transaction() as session:
        session.execute(text("DELETE FROM providers WHERE id = :id"), {"id": quiet.provider_id})
        now = datetime.now(UTC)
        upkeep.end_dead_runs(session, now=now, heartbeat_before=now, limit=9)

        assert session.scalar(text("SELECT count(*) FROM unsettled_runs")) == 0


def test_run_is_kept_as_long_as_one_that_repeats_it(quiet: Linked) -> None:
    repeat = quiet.sync()
    old = datetime.now(UTC) + timedelta(minutes=1)

    def remove() -> None:
        with quiet.runtime.transaction() as session:
            upkeep.remove_old(session, table="sync_runs", before=old, limit=9)

    remove()

    heard, told = quiet.rows("SELECT id, counts::text FROM sync_runs WHERE provider_id = :id ORDER BY started_at")
    assert (heard[0], told[0]) == (repeat.repeats, repeat.id)
    assert last_runs(quiet)[0].counts["accounts"] == {"unchanged": 4}
    quiet.sync()
    remove()
    remove()
    assert len(quiet.rows("SELECT id FROM sync_runs WHERE provider_id = :id")) == 2


def test_many_begin_and_end_without_writing_what_they_repeat(quiet: Linked) -> None:
    quiet.runtime.run(batch.sync_providers(quiet.runtime, [quiet.provider_id]))

    (row,) = quiet.rows(
        "SELECT repeats IS NOT NULL, answers, cursor_before, cursor_after, counts, unchanged > 0 FROM sync_runs"
        " WHERE provider_id = :id ORDER BY started_at DESC LIMIT 1"
    )
    assert row == (True, None, None, None, {}, True)

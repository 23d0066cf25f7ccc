"""Runs of which it is not known yet whether they repeat the last one; they have stored nothing so far.

While a run is unsettled, its row is in `unsettled_runs`. Nothing of that table is written to WAL, and Postgres empties
it after a crash. So the row is not what a run goes on with. It goes on if the login's last run is still the one that it
may repeat, and if the answers of that run are still known: every other run, link and unlink changes one or the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import func, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from worker.crud.providers import take_turns_in_linking
from worker.crud.sync.work import RunKey
from worker.errors import Fenced
from worker.models import SyncRun, UnsettledRun
from worker.models.vocabulary import RunStatus, Trigger

GOES_ON = """
    (SELECT id FROM sync_runs WHERE provider_id = {given}.provider_id ORDER BY started_at DESC LIMIT 1) = {given}.last
    AND EXISTS (SELECT FROM sync_runs WHERE id = {given}.heard AND answers IS NOT NULL)
"""
"""Condition under which a run goes on. The row `given` has its `provider_id`, the last run's id, and the id of the run
that has the answers."""

_GOES_ON = text(
    f"""
    SELECT true FROM (
        SELECT CAST(:provider_id AS uuid) AS provider_id, CAST(:last AS uuid) AS last, CAST(:heard AS uuid) AS heard
    ) AS run WHERE {GOES_ON.format(given="run")}
    """  # noqa: S608 - constants
)


BEING_SYNCED = "provider {} is being synced already; wait for it or cancel it"


def settle(
    session: Session, *, run: RunKey, last: UUID, heard: UUID, started_at: datetime, cursors: dict[str, str]
) -> bool:
    """Makes it a run that reads and stores. Returns whether a person has asked it to stop.

    Args:
        session: the transaction.
        run: the run.
        last: the run that was the login's last one when this run began.
        heard: the run that has the answers of that one.
        started_at: when the run began.
        cursors: the committed cursor of each feed at that time.

    Raises:
        Fenced: another run has begun meanwhile, or the login was linked anew or unlinked.
    """
    take_turns_in_linking(session, run.provider_id)
    # A statement of its own: if it waits for another transaction, the next statement sees what that one has done.
    row = session.execute(
        text("DELETE FROM unsettled_runs WHERE provider_id = :provider_id AND id = :id RETURNING cancel_requested"),
        {"provider_id": run.provider_id, "id": run.id},
    )
    cancelled = bool(row.scalar())
    begun = None
    if session.scalar(_GOES_ON, {"provider_id": run.provider_id, "last": last, "heard": heard}):
        values = {"started_at": started_at, "heartbeat_at": func.clock_timestamp(), "cursor_before": cursors}
        values |= {"status": RunStatus.RUNNING, "trigger": Trigger.SCHEDULE, "cancel_requested": cancelled}
        statement = insert(SyncRun).values(id=run.id, provider_id=run.provider_id, owner=run.owner, **values)
        begun = session.scalar(statement.on_conflict_do_nothing().returning(SyncRun.id))
    if begun is None:
        raise Fenced(f"run {run.id} was taken over or ended; nothing was written")
    return cancelled


def beat(session: Session, *, run: RunKey) -> bool | None:
    """Stores a heartbeat; returns whether a person asked the run to stop. None: this run is not unsettled."""
    mine = UnsettledRun.provider_id == run.provider_id, UnsettledRun.id == run.id
    beaten = update(UnsettledRun).where(*mine).values(heartbeat_at=func.clock_timestamp())
    return session.scalar(beaten.returning(UnsettledRun.cancel_requested))


def ask_to_stop(session: Session, *, provider_id: UUID) -> UUID | None:
    """Asks the provider's unsettled run to stop; returns its id, None when there is none."""
    asked = update(UnsettledRun).where(UnsettledRun.provider_id == provider_id).values(cancel_requested=True)
    return session.scalar(asked.returning(UnsettledRun.id))


# A provider that is deleted leaves its row here behind.
_AS_FAILED = """
    INSERT INTO sync_runs (id, provider_id, status, trigger, owner, started_at, heartbeat_at, finished_at,
        cancel_requested, error, error_reason)
    SELECT g.id, g.provider_id, 'failed', 'schedule', g.owner, g.started_at, g.heartbeat_at, clock_timestamp(),
        g.cancel_requested, :error, :reason
    FROM gone AS g JOIN providers AS p ON p.id = g.provider_id
    RETURNING id, provider_id
"""
_END_ONE = text(
    f"""
    WITH gone AS (
        DELETE FROM unsettled_runs
        WHERE provider_id = :provider_id AND heartbeat_at < clock_timestamp() - CAST(:silent_for AS interval)
        RETURNING *
    ) {_AS_FAILED}
    """  # noqa: S608 - constants
)
_END_SILENT = text(
    f"""
    WITH gone AS (
        DELETE FROM unsettled_runs WHERE provider_id = ANY (ARRAY(
            SELECT provider_id FROM unsettled_runs WHERE heartbeat_at < :heartbeat_before
            ORDER BY heartbeat_at LIMIT :limit FOR UPDATE SKIP LOCKED
        )) RETURNING *
    ) {_AS_FAILED}
    """  # noqa: S608 - constants
)


def end_one(
    session: Session, *, provider_id: UUID, error: str, reason: str, silent_for: timedelta = timedelta(0)
) -> None:
    """Ends the provider's unsettled run as failed, if its last heartbeat is older than `silent_for`."""
    values: dict[str, Any] = {"provider_id": provider_id, "silent_for": silent_for, "error": error, "reason": reason}
    session.execute(_END_ONE, values)


def end_silent(session: Session, *, heartbeat_before: datetime, limit: int, error: str, reason: str) -> Sequence[UUID]:
    """Ends unsettled runs with an old heartbeat as failed. Returns their providers."""
    values = {"heartbeat_before": heartbeat_before, "limit": limit, "error": error, "reason": reason}
    return [provider_id for _, provider_id in session.execute(_END_SILENT, values)]

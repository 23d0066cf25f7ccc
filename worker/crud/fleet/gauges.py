"""Read-only queries for the exporter: few statements for the whole fleet; none of them reads transactions."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta

from sqlalchemy import text
from sqlalchemy.orm import Session

TOKEN_SECONDS = (0, 60, 300, 900, 1800)
"""For each of these times, the tokens that expire within it are counted."""
FRESH_SECONDS = (3600, 6 * 3600, 24 * 3600)
"""For each of these times, the logins that were synced within it are counted."""
LATE_SECONDS = 60
COUNT_AT_MOST = 100_000
"""Backlogs are counted only up to this number: larger counts say nothing more and cost more."""


@dataclass(frozen=True, slots=True)
class FleetGauges:
    """The active logins of one integration.

    Attributes:
        expiring: number of access tokens that expire within each of `TOKEN_SECONDS`.
        fresh: number of logins that were synced within each of `FRESH_SECONDS`.
        refresh_overdue_s, sync_overdue_s: seconds for which the earliest due login has been due; 0 if none is due.
        token_age_s: age of the oldest token that is refreshed, in seconds; 0 if there is none.
        sync_age_s: seconds since the oldest last sync of a login; for a login never synced, since its creation.
        grants_ending: number of consents that end within 72 hours.
    """

    active: int
    expiring: dict[int, int]
    fresh: dict[int, int]
    refresh_due: int
    refresh_late: int
    refresh_overdue_s: float
    sync_due: int
    sync_late: int
    sync_overdue_s: float
    token_age_s: float
    sync_age_s: float
    grants_ending: int


# Times are parameters: an addition in SQL would be computed again for every row.
_EXPIRING = ", ".join(f"count(*) FILTER (WHERE access_expires_at <= :in_{s}) AS expiring_{s}" for s in TOKEN_SECONDS)
_FRESH = ", ".join(f"count(*) FILTER (WHERE synced_at > :ago_{s}) AS fresh_{s}" for s in FRESH_SECONDS)
_FLEET = text(
    f"""
    SELECT provider_key, count(*) AS active, {_EXPIRING}, {_FRESH},
        count(*) FILTER (WHERE refresh_due_at <= :now) AS refresh_due,
        count(*) FILTER (WHERE refresh_due_at <= :late) AS refresh_late,
        min(refresh_due_at) AS first_refresh,
        count(*) FILTER (WHERE sync_due_at <= :now) AS sync_due,
        count(*) FILTER (WHERE sync_due_at <= :late) AS sync_late,
        min(sync_due_at) AS first_sync,
        min(refreshed_at) FILTER (WHERE refresh_due_at IS NOT NULL) AS oldest_token,
        min(coalesce(synced_at, created_at)) AS oldest_sync,
        count(*) FILTER (WHERE grant_expires_at <= :soon) AS grants_ending
    FROM providers WHERE status = 'active' GROUP BY provider_key
    """  # noqa: S608 - numbers of this file
)
_OTHERS = text("SELECT provider_key, status, count(*) FROM providers WHERE status <> 'active' GROUP BY 1, 2")


def fleet(session: Session, *, now: datetime) -> dict[str, FleetGauges]:
    """Active logins by integration, in one pass over the providers."""
    times = {"now": now, "late": now - timedelta(seconds=LATE_SECONDS), "soon": now + timedelta(hours=72)}
    times |= {f"in_{seconds}": now + timedelta(seconds=seconds) for seconds in TOKEN_SECONDS}
    times |= {f"ago_{seconds}": now - timedelta(seconds=seconds) for seconds in FRESH_SECONDS}

    def since(then: datetime | None) -> float:
        return max(0.0, (now - then).total_seconds()) if then else 0.0

    return {
        row["provider_key"]: FleetGauges(
            active=row["active"],
            expiring={seconds: row[f"expiring_{seconds}"] for seconds in TOKEN_SECONDS},
            fresh={seconds: row[f"fresh_{seconds}"] for seconds in FRESH_SECONDS},
            refresh_due=row["refresh_due"],
            refresh_late=row["refresh_late"],
            refresh_overdue_s=since(row["first_refresh"]),
            sync_due=row["sync_due"],
            sync_late=row["sync_late"],
            sync_overdue_s=since(row["first_sync"]),
            token_age_s=since(row["oldest_token"]),
            sync_age_s=since(row["oldest_sync"]),
            grants_ending=row["grants_ending"],
        )
        for row in session.execute(_FLEET, times).mappings()
    }


@dataclass(frozen=True, slots=True)
class Waiting:
    """Logins that wait for a worker of one queue, or are with one.

    Attributes:
        due: number of logins that no tick has claimed yet.
        claimed: number of logins whose message waits, or that are worked on.
        oldest_s: for how many seconds the first of them has been due; 0 if there is none.
    """

    due: int
    claimed: int
    oldest_s: float


def work_waiting(session: Session) -> dict[str, Waiting]:
    """What the view `work_waiting` says, by queue."""
    rows = session.execute(text("SELECT queue, due, claimed, oldest_seconds FROM work_waiting"))
    return {queue: Waiting(due, claimed, oldest) for queue, due, claimed, oldest in rows}


def not_active(session: Session) -> dict[tuple[str, str], int]:
    """Number of logins that are not active, by integration and status; reads only an index."""
    return {(key, status): count for key, status, count in session.execute(_OTHERS)}


@dataclass(frozen=True, slots=True)
class Backlogs:
    """Counts of what waits to be handled, each up to `COUNT_AT_MOST`.

    Attributes:
        unknown_refreshes: active logins whose present token was presented without a known outcome.
    """

    quarantine: int
    failures: int
    notices: int
    runs_running: int
    unknown_refreshes: int
    drifts: int


def _up_to(table: str, condition: str) -> str:
    return f"(SELECT count(*) FROM (SELECT FROM {table} WHERE {condition} LIMIT {COUNT_AT_MOST}) AS x)"  # noqa: S608


# Only the present generation counts: a later one shows the outcome of earlier attempts. Only active logins count: the
# others wait for their user.
_IN_DOUBT = """status = 'active' AND id IN (
    SELECT r.provider_id FROM token_refreshes r JOIN provider_tokens t USING (provider_id, generation)
    WHERE r.status IN ('sent', 'unknown')
)"""

_BACKLOGS = text(
    f"""
    SELECT {_up_to("quarantine", "resolved_at IS NULL")} AS quarantine,
        {_up_to("task_failures", "resolved_at IS NULL")} AS failures,
        {_up_to("notices", "sent_at IS NULL AND due_at IS NOT NULL")} AS notices,
        {_up_to("sync_runs", "status = 'running'")} + {_up_to("unsettled_runs", "true")} AS runs_running,
        {_up_to("providers", _IN_DOUBT)} AS unknown_refreshes,
        {_up_to("book_drifts", "true")} AS drifts
    """
)


def backlogs(session: Session) -> Backlogs:
    """All backlogs, in one statement over partial indexes."""
    return Backlogs(**session.execute(_BACKLOGS).mappings().one())


def quota_days(session: Session, *, day: date) -> dict[str, int]:
    """For each integration, the use of the day's quota bucket that is used most."""
    rows = session.execute(
        text("SELECT provider_key, max(used) FROM quota_days WHERE day = :day GROUP BY provider_key"), {"day": day}
    )
    return {key: int(used) for key, used in rows}

"""Read-only queries on past events: refresh attempts, sync runs, dead letters."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Select, case, cast, func, literal, null, select, union_all
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session, aliased

from worker.models import Provider, SyncCursor, SyncRun, TaskFailure, TokenRefresh, UnsettledRun, User
from worker.models.fleet import Attempt, Failure, Run
from worker.models.vocabulary import ROW_OUTCOMES, RunStatus, Trigger

_ATTEMPT = [getattr(TokenRefresh, name) for name in Attempt.__slots__]


def attempts(
    session: Session, *, provider_ids: Sequence[UUID], since: datetime | None = None, limit: int = 10
) -> list[Attempt]:
    """Attempts of these providers, newest first."""
    query = select(*_ATTEMPT).where(TokenRefresh.provider_id.in_(provider_ids))
    if since is not None:
        query = query.where(TokenRefresh.started_at >= since)
    rows = session.execute(query.order_by(TokenRefresh.started_at.desc(), TokenRefresh.id.desc()).limit(limit))
    return [Attempt(*row) for row in rows]


# A run that repeats another one has moved no cursor. Its own row does not have what is the same as in that one's.
_HEARD = aliased(SyncRun)
_FOUND_BY = {
    "alias": Provider.alias,
    "user": User.email,
    "heartbeat_at": func.coalesce(SyncRun.heartbeat_at, SyncRun.finished_at),
    "counts": func.coalesce(_HEARD.counts, SyncRun.counts),
    "cursor_before": func.coalesce(SyncRun.cursor_before, _HEARD.cursor_after, _HEARD.cursor_before),
    "cursor_after": func.coalesce(
        SyncRun.cursor_after,
        _HEARD.cursor_after,
        _HEARD.cursor_before,
        case((SyncRun.status == RunStatus.COMPLETED, SyncRun.cursor_before)),  # of releases that wrote cursors once
    ),
}
_RUN: list[Any] = [_FOUND_BY[name] if name in _FOUND_BY else getattr(SyncRun, name) for name in Run.__slots__]
_RUNS = (
    select(*_RUN)
    .join(Provider, Provider.id == SyncRun.provider_id)
    .join(User, User.id == Provider.user_id)
    .outerjoin(_HEARD, _HEARD.id == SyncRun.repeats)
    .order_by(SyncRun.started_at.desc(), SyncRun.id.desc())
)
# An unsettled run has stored nothing, so it stands where its login's cursors stand.
_CURSORS = (
    select(func.jsonb_object_agg(SyncCursor.feed, SyncCursor.cursor))
    .where(SyncCursor.provider_id == UnsettledRun.provider_id, SyncCursor.cursor != "")
    .scalar_subquery()
)
_UNSETTLED_BY: dict[str, Any] = {
    "alias": Provider.alias,
    "user": User.email,
    "status": literal(str(RunStatus.RUNNING)),
    "trigger": literal(str(Trigger.SCHEDULE)),
    "mode": literal("incremental"),
    "counts": cast({}, JSONB),
    "cursor_before": _CURSORS,
    **dict.fromkeys(("pages", *ROW_OUTCOMES), literal(0)),
}
_UNSETTLED_RUN = [_UNSETTLED_BY.get(name, getattr(UnsettledRun, name, null())) for name in Run.__slots__]
_UNSETTLED = (
    select(*_UNSETTLED_RUN)
    .join(Provider, Provider.id == UnsettledRun.provider_id)
    .join(User, User.id == Provider.user_id)
    .order_by(UnsettledRun.started_at.desc(), UnsettledRun.id.desc())
)


def runs(
    session: Session,
    *,
    provider_ids: Sequence[UUID] | None = None,
    status: str | None = None,
    since: datetime | None = None,
    running_or_since: datetime | None = None,
    limit: int = 20,
) -> list[Run]:
    """Runs, newest first; `running_or_since` also includes runs that began earlier and still run."""
    query = _RUNS.limit(limit)
    if provider_ids is not None:
        query = query.where(SyncRun.provider_id.in_(provider_ids))
    if status is not None:
        query = query.where(SyncRun.status == status)
    if since is not None:
        query = query.where(SyncRun.started_at >= since)
    if running_or_since is not None:
        recent = (SyncRun.started_at >= running_or_since) | (SyncRun.finished_at >= running_or_since)
        query = query.where(recent | (SyncRun.status == RunStatus.RUNNING))
    looking = _UNSETTLED.limit(limit)
    if provider_ids is not None:
        looking = looking.where(UnsettledRun.provider_id.in_(provider_ids))
    if since is not None:
        looking = looking.where(UnsettledRun.started_at >= since)
    if status not in (None, RunStatus.RUNNING):
        return [Run(*row) for row in session.execute(query)]
    return _read(session, looking, query)[:limit]


def _read(session: Session, unsettled: Select[Any], stored: Select[Any]) -> list[Run]:
    """The runs of both queries, newest first. One that is settled between the two queries is told as it is stored."""
    found = {run.id: run for query in (unsettled, stored) for run in (Run(*row) for row in session.execute(query))}
    return sorted(found.values(), key=lambda run: (run.started_at, run.id), reverse=True)


def is_running(session: Session, *, provider_id: UUID, dead_after: timedelta) -> bool:
    """Whether the provider has a running run whose last heartbeat is younger than `dead_after`."""
    alive_at = func.clock_timestamp() - dead_after
    running = select(SyncRun.id).where(SyncRun.provider_id == provider_id, SyncRun.status == RunStatus.RUNNING)
    looking = select(UnsettledRun.id).where(UnsettledRun.provider_id == provider_id)
    live = running.where(SyncRun.heartbeat_at >= alive_at), looking.where(UnsettledRun.heartbeat_at >= alive_at)
    return session.scalar(union_all(*live).limit(1)) is not None


def runs_between(session: Session, *, first: UUID, last: UUID) -> list[Run]:
    """At most three runs whose id is between the two ids."""
    looking = _UNSETTLED.where(UnsettledRun.id >= first, UnsettledRun.id <= last).limit(3)
    return _read(session, looking, _RUNS.where(SyncRun.id >= first, SyncRun.id <= last).limit(3))[:3]


_FAILURE = [getattr(TaskFailure, name) for name in Failure.__slots__ if name != "aliases"]


def task_failures(session: Session, *, resolved: bool = False, limit: int = 20) -> list[Failure]:
    """Dead letters, newest first."""
    query = select(*_FAILURE).order_by(TaskFailure.created_at.desc()).limit(limit)
    if not resolved:
        query = query.where(TaskFailure.resolved_at.is_(None))
    return [Failure(*row) for row in session.execute(query)]


def failures_between(session: Session, *, first: UUID, last: UUID) -> list[Failure]:
    """At most three dead letters whose id is between the two ids."""
    query = select(*_FAILURE).where(TaskFailure.id >= first, TaskFailure.id <= last).limit(3)
    return [Failure(*row) for row in session.execute(query)]

"""Read-only queries on past events: refresh attempts, sync runs, dead letters."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import case, func, select
from sqlalchemy.orm import Session

from worker.models import Provider, SyncRun, TaskFailure, TokenRefresh, User
from worker.models.fleet import Attempt, Failure, Run
from worker.models.vocabulary import RunStatus

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


# A run that repeats the last one moves no cursor, so its row does not have them twice.
_CURSOR_AFTER = case(
    (SyncRun.status == RunStatus.COMPLETED, func.coalesce(SyncRun.cursor_after, SyncRun.cursor_before)),
    else_=SyncRun.cursor_after,
)
_FOUND_BY = {"alias": Provider.alias, "user": User.email, "cursor_after": _CURSOR_AFTER}
_RUN: list[Any] = [_FOUND_BY[name] if name in _FOUND_BY else getattr(SyncRun, name) for name in Run.__slots__]
_RUNS = (
    select(*_RUN)
    .join(Provider, Provider.id == SyncRun.provider_id)
    .join(User, User.id == Provider.user_id)
    .order_by(SyncRun.started_at.desc(), SyncRun.id.desc())
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
    return [Run(*row) for row in session.execute(query)]


def is_running(session: Session, *, provider_id: UUID, dead_after: timedelta) -> bool:
    """Whether the provider has a running run whose last heartbeat is younger than `dead_after`."""
    live = SyncRun.heartbeat_at >= func.clock_timestamp() - dead_after
    query = select(SyncRun.id).where(SyncRun.provider_id == provider_id, SyncRun.status == RunStatus.RUNNING, live)
    return session.scalar(query.limit(1)) is not None


def runs_between(session: Session, *, first: UUID, last: UUID) -> list[Run]:
    """At most three runs whose id is between the two ids."""
    return [Run(*row) for row in session.execute(_RUNS.where(SyncRun.id >= first, SyncRun.id <= last).limit(3))]


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

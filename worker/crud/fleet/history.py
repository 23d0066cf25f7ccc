"""Read-only queries on what has happened: refresh attempts, sync runs, dead letters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from worker.errors import NotFound
from worker.models import SyncRun, TaskFailure, TokenRefresh
from worker.models.vocabulary import RunStatus


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt to refresh a token."""

    id: UUID
    provider_id: UUID
    generation: int
    status: str
    trigger: str
    error: str | None
    reason: str | None
    started_at: datetime
    finished_at: datetime | None


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


@dataclass(frozen=True, slots=True)
class Run:
    """One sync run as lists show it."""

    id: UUID
    provider_id: UUID
    status: str
    trigger: str
    mode: str
    started_at: datetime
    heartbeat_at: datetime
    finished_at: datetime | None
    cancel_requested: bool
    pages: int
    added: int
    changed: int
    unchanged: int
    removed: int
    quarantined: int
    counts: dict[str, Any]
    cursor_before: dict[str, Any] | None
    cursor_after: dict[str, Any] | None
    error: str | None
    error_scope: str | None
    error_reason: str | None
    problems: dict[str, Any] | None


_RUN = [getattr(SyncRun, name) for name in Run.__slots__]


def runs(
    session: Session,
    *,
    provider_ids: Sequence[UUID] | None = None,
    status: str | None = None,
    since: datetime | None = None,
    running_or_since: datetime | None = None,
    limit: int = 20,
) -> list[Run]:
    """Runs, newest first; `running_or_since` also takes those that began earlier and still run."""
    query = select(*_RUN).order_by(SyncRun.started_at.desc(), SyncRun.id.desc()).limit(limit)
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
    """Whether a run of the provider is under way whose worker has not been silent for `dead_after`."""
    live = SyncRun.heartbeat_at >= func.clock_timestamp() - dead_after
    query = select(SyncRun.id).where(SyncRun.provider_id == provider_id, SyncRun.status == RunStatus.RUNNING, live)
    return session.scalar(query.limit(1)) is not None


def run_by_id(session: Session, *, run_id: UUID) -> Run:
    """One run.

    Raises:
        NotFound: there is none.
    """
    row = session.execute(select(*_RUN).where(SyncRun.id == run_id)).one_or_none()
    if row is None:
        raise NotFound(f"no run has the id {run_id}")
    return Run(*row)


@dataclass(frozen=True, slots=True)
class Failure:
    """A dead letter: a task that will not run again by itself."""

    id: UUID
    task_id: str
    task_name: str
    arguments: dict[str, Any]
    reason: str
    deliveries: int
    created_at: datetime
    resolved_at: datetime | None
    resolution: str | None


_FAILURE = [getattr(TaskFailure, name) for name in Failure.__slots__]


def task_failures(session: Session, *, resolved: bool = False, limit: int = 20) -> list[Failure]:
    """Dead letters, newest first."""
    query = select(*_FAILURE).order_by(TaskFailure.created_at.desc()).limit(limit)
    if not resolved:
        query = query.where(TaskFailure.resolved_at.is_(None))
    return [Failure(*row) for row in session.execute(query)]


def task_failure(session: Session, *, failure_id: UUID) -> Failure:
    """One dead letter.

    Raises:
        NotFound: there is none.
    """
    row = session.execute(select(*_FAILURE).where(TaskFailure.id == failure_id)).one_or_none()
    if row is None:
        raise NotFound(f"no failure has the id {failure_id}")
    return Failure(*row)

"""How often a login is synced, and whether a hook has asked for another sync."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import case, func, select
from sqlalchemy.orm import Session

from worker.crud.sync.work import RunKey
from worker.models import Provider, SyncRun


@dataclass(frozen=True, slots=True)
class Pace:
    """How often a login is synced.

    Attributes:
        own_interval: seconds between its syncs; None means the setting `SYNC_INTERVAL`.
        hooked_until: until when the next hook is waited for: twice the usual gap after the last one. None if no hooks
            arrive, or if the login has an interval of its own, which then counts.
    """

    own_interval: int | None = None
    hooked_until: datetime | None = None


_GAPS_WAITED = 2


def read_pace(session: Session, *, provider_id: UUID) -> Pace:
    """How often this provider is synced."""
    chosen = select(Provider.sync_interval, Provider.hooked_at, Provider.hook_gap).where(Provider.id == provider_id)
    found = session.execute(chosen).one_or_none()
    if found is None:
        return Pace()
    return pace_of(*found)


def pace_of(own: int | None, hooked_at: datetime | None, gap: int | None) -> Pace:
    """The pace that follows from a provider's own interval, its last hook and the usual gap between two hooks."""
    if own is not None or hooked_at is None or gap is None:
        return Pace(own)
    return Pace(None, hooked_at + timedelta(seconds=_GAPS_WAITED * gap))


def due_again(run: RunKey, due_at: datetime, now: datetime) -> Any:
    """When a provider is due after a run: earlier if a hook has asked for a sync after the run began."""
    began = select(SyncRun.started_at).where(SyncRun.id == run.id).scalar_subquery()
    asked = func.least(due_at, func.greatest(Provider.hook_sync_at, now))
    return case((Provider.hook_sync_at > began, asked), else_=due_at)

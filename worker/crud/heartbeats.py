"""Heartbeats: one row per tick, written by the worker that runs the tick."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from worker.models import Heartbeat


def beat(session: Session, *, name: str, at: datetime, detail: dict[str, Any] | None = None) -> None:
    """Stores that `name` was alive at `at`; a time older than the stored one changes nothing."""
    statement = insert(Heartbeat).values(name=name, at=at, detail=detail)
    session.execute(
        statement.on_conflict_do_update(
            index_elements=["name"],
            set_={"at": func.greatest(Heartbeat.at, statement.excluded.at), "detail": statement.excluded.detail},
        )
    )


def read_heartbeats(session: Session) -> dict[str, datetime]:
    """The last heartbeat of each name."""
    return {row.name: row.at for row in session.scalars(select(Heartbeat))}

"""The audit log: one row per state change, never altered."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import insert
from sqlalchemy.orm import Session

from worker.models import ProviderAuditLog


def record(
    session: Session,
    *,
    provider_id: UUID,
    action: str,
    actor: str = "system",
    reason: str | None = None,
    task_id: str | None = None,
    detail: dict[str, Any] | None = None,
) -> None:
    """Adds one row in the transaction of the change that it tells of."""
    session.execute(
        insert(ProviderAuditLog).values(
            provider_id=provider_id, action=action, actor=actor, reason=reason, task_id=task_id, detail=detail
        )
    )

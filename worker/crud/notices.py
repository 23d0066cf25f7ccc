"""Notices: queued in the transaction of what they tell of, claimed with SKIP LOCKED, each sent once."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import func
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from worker.models import Notice, new_id

CHANNELS = ("log", "email", "webhook")
"""Every channel there is. Rows of a channel that is not enabled are closed unsent by the sender."""


def enqueue(
    session: Session,
    *,
    provider_id: UUID,
    stage: str,
    subject_key: str,
    channels: Sequence[str] = CHANNELS,
    due_at: datetime | None = None,
) -> int:
    """Queues a notice to the provider's user, one row per channel; a repeat changes nothing.

    Call it in the transaction of the state change itself. `stage` is `expires_72h`, `expires_24h`, `expires_2h`,
    `expired` or `needs_reauth`; `subject_key` names the grant or event, and the same stage of the same subject is
    queued once; `due_at` is the earliest time of sending, None being now.

    Returns:
        How many rows are new.
    """
    return _insert(
        session,
        [_row(stage, subject_key, channel, due_at) | {"provider_id": provider_id} for channel in channels],
    )


def enqueue_operator(
    session: Session,
    *,
    provider_key: str,
    stage: str,
    subject_key: str,
    channels: Sequence[str] = CHANNELS,
    due_at: datetime | None = None,
) -> int:
    """Queues a notice to the operator about an integration; otherwise as `enqueue`."""
    return _insert(
        session,
        [_row(stage, subject_key, channel, due_at) | {"provider_key": provider_key} for channel in channels],
    )


def _row(stage: str, subject_key: str, channel: str, due_at: datetime | None) -> dict[str, Any]:
    return {
        "id": new_id(),
        "stage": stage,
        "subject_key": subject_key,
        "channel": channel,
        "due_at": func.now() if due_at is None else due_at,
    }


def _insert(session: Session, rows: list[dict[str, Any]]) -> int:
    if not rows:
        return 0
    return len(session.execute(insert(Notice).values(rows).on_conflict_do_nothing().returning(Notice.id)).all())

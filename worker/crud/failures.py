"""Counts of deliveries of task messages, and dead letters."""

from __future__ import annotations

from typing import Any

from sqlalchemy import delete
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from worker.models import TaskDelivery, TaskFailure


def count_delivery(session: Session, *, task_id: str) -> int:
    """Counts a redelivery of a message. The count begins with two, since the first delivery is not counted."""
    statement = (
        insert(TaskDelivery)
        .values(task_id=task_id, deliveries=2)
        .on_conflict_do_update(index_elements=["task_id"], set_={"deliveries": TaskDelivery.deliveries + 1})
        .returning(TaskDelivery.deliveries)
    )
    return session.execute(statement).scalar_one()


def forget_delivery(session: Session, *, task_id: str) -> None:
    """Deletes the count of a message whose task has ended."""
    session.execute(delete(TaskDelivery).where(TaskDelivery.task_id == task_id))


def record_task_failure(
    session: Session, *, task_id: str, task_name: str, arguments: dict[str, Any], reason: str, deliveries: int
) -> None:
    """Stores a task that will not run again by itself as a dead letter. The arguments must be ids only."""
    session.add(
        TaskFailure(task_id=task_id, task_name=task_name, arguments=arguments, reason=reason, deliveries=deliveries)
    )
    forget_delivery(session, task_id=task_id)

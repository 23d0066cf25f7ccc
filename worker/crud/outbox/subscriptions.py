"""Subscriptions: add, list, rotate the secret, switch on and off, remove. Each change adds a row to the audit log."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import delete, func, select, text
from sqlalchemy.orm import Session

from worker.crud import audit
from worker.errors import NotFound, Refused
from worker.models import Delivery, Subscription, User
from worker.models.outbox import SubscriptionRow

COUNT_AT_MOST = 100_000
PER_OWNER = 50
"""How many subscriptions a user, or the operators together, may have: each event is written once for each of them."""
_UNSYNCED = {"synchronize_session": False}


def _up_to(condition: str) -> str:
    found = f"SELECT FROM outbox WHERE subscription_id = s.id AND {condition} LIMIT {COUNT_AT_MOST}"
    return f"(SELECT count(*) FROM ({found}) AS x)"  # noqa: S608 - conditions of this file


_NAMES = SubscriptionRow.__slots__
_COMPUTED = {
    "user": "u.email",
    "waiting": _up_to("due_at IS NOT NULL"),
    "parked": _up_to("parked_at IS NOT NULL"),
    "oldest_waiting_at": "(SELECT min(created_at) FROM outbox WHERE subscription_id = s.id AND due_at IS NOT NULL)",
}
_ROWS = text(
    f"""
    SELECT {", ".join(f'{_COMPUTED.get(name, f"s.{name}")} AS "{name}"' for name in _NAMES)}
    FROM hook_subscriptions s LEFT JOIN users u ON u.id = s.user_id
    WHERE (CAST(:user_id AS uuid) IS NULL OR s.user_id = :user_id) AND (CAST(:id AS uuid) IS NULL OR s.id = :id)
    ORDER BY s.id LIMIT :limit
    """  # noqa: S608 - names of this file
)


def create(session: Session, *, subscription: Subscription) -> SubscriptionRow:
    """Stores a new subscription.

    Raises:
        NotFound: its user no longer exists.
        Refused: the owner has too many.
    """
    # The lock makes two requests wait for each other, so that both together do not go over the limit.
    owner = str(subscription.user_id or "operators")
    session.execute(text("SELECT pg_advisory_xact_lock(hashtextextended('hooks of ' || :owner, 0))"), {"owner": owner})
    if subscription.user_id is not None and session.get(User, subscription.user_id) is None:
        raise NotFound(f"no user has the id {subscription.user_id}")
    has = session.scalar(select(func.count()).where(Subscription.user_id.is_not_distinct_from(subscription.user_id)))
    if (has or 0) >= PER_OWNER:
        raise Refused(f"there are {has} hooks already, which is the most; remove one first: dashtam hooks list")
    session.add(subscription)
    session.flush()
    _record(session, subscription, "hook_added", subscription.created_by)
    return get(session, subscription_id=subscription.id)


def get(session: Session, *, subscription_id: UUID) -> SubscriptionRow:
    """One subscription.

    Raises:
        NotFound: there is none.
    """
    row = session.execute(_ROWS, {"user_id": None, "id": subscription_id, "limit": 1}).one_or_none()
    if row is None:
        raise NotFound(f"no hook has the id {subscription_id}; they are listed by: dashtam hooks list")
    return SubscriptionRow(*row)


def list_rows(session: Session, *, user_id: UUID | None, limit: int) -> list[SubscriptionRow]:
    """Subscriptions of one user, or all, oldest first."""
    return [SubscriptionRow(*row) for row in session.execute(_ROWS, {"user_id": user_id, "id": None, "limit": limit})]


def ids_with_beginning(session: Session, *, beginning: str) -> Sequence[UUID]:
    """At most two ids that begin with this text."""
    query = "SELECT id FROM hook_subscriptions WHERE starts_with(CAST(id AS text), :beginning) LIMIT 2"
    return session.execute(text(query), {"beginning": beginning}).scalars().all()


def lock(session: Session, *, subscription_id: UUID) -> Subscription:
    """The row, locked.

    Raises:
        NotFound: there is none.
    """
    found = session.scalars(
        select(Subscription).where(Subscription.id == subscription_id).with_for_update()
    ).one_or_none()
    if found is None:
        raise NotFound(f"no hook has the id {subscription_id}; they are listed by: dashtam hooks list")
    return found


def rotated(session: Session, subscription: Subscription, *, actor: str) -> None:
    """Records that the locked row has a new secret."""
    session.flush()
    _record(session, subscription, "hook_secret_rotated", actor)


def resume(session: Session, *, subscription_id: UUID, actor: str) -> bool:
    """Sends again to a subscription that was disabled or fails, from now on. False if it was neither."""
    row = lock(session, subscription_id=subscription_id)
    if row.disabled_at is None and not row.failures:
        return False
    row.disabled_at = row.disabled_by = row.failing_since = row.wait_until = row.last_error = None
    row.failures = 0
    _record(session, row, "hook_resumed", actor)
    return True


def remove(session: Session, *, subscription_id: UUID, actor: str) -> None:
    """Deletes a subscription and its deliveries.

    Raises:
        NotFound: there is none.
    """
    row = lock(session, subscription_id=subscription_id)
    _record(session, row, "hook_removed", actor)
    session.delete(row)
    session.flush()
    session.execute(delete(Delivery).where(Delivery.subscription_id == subscription_id), execution_options=_UNSYNCED)


def remove_of_user(session: Session, *, email: str) -> None:
    """Deletes a user's subscriptions and their deliveries."""
    user_id = select(User.id).where(User.email == email).scalar_subquery()
    theirs = delete(Subscription).where(Subscription.user_id == user_id).returning(Subscription.id)
    removed = session.scalars(theirs, execution_options=_UNSYNCED).all()
    session.execute(delete(Delivery).where(Delivery.subscription_id.in_(removed)), execution_options=_UNSYNCED)


def now(session: Session) -> datetime:
    """The time by the database's clock."""
    found: datetime = session.execute(select(func.clock_timestamp())).scalar_one()
    return found


def _record(session: Session, row: Subscription, action: str, actor: str) -> None:
    # Each subscription has its own chain in the audit log, under its own id. The address may have a secret in it.
    detail = {"events": row.events, "user_id": str(row.user_id) if row.user_id else None}
    audit.record(session, provider_id=row.id, action=action, actor=actor, detail=detail)

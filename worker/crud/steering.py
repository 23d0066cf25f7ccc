"""What an operator changes about one provider: pause, resume, make due, set the sync interval.

Every change locks the provider's row.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Literal
from uuid import UUID

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from worker.crud import audit
from worker.crud.outbox import events, subscriptions
from worker.crud.providers import get_provider
from worker.errors import Refused
from worker.models import Provider, ProviderToken, TaskFailure, User
from worker.models.fleet import ProviderRow
from worker.models.vocabulary import ProviderStatus


def pause_provider(session: Session, *, provider_id: UUID, actor: str, reason: str | None) -> bool:
    """Takes an active provider out of the schedule. False if it was already paused.

    Raises:
        Refused: it is not active.
    """
    provider = get_provider(session, provider_id, lock=True)
    if not _leaves(provider, ProviderStatus.ACTIVE, ProviderStatus.PAUSED, "only active providers can be paused"):
        return False
    provider.status_reason = reason
    audit.record(session, provider_id=provider_id, action="paused", actor=actor, reason=reason)
    return True


def resume_provider(session: Session, *, provider_id: UUID, actor: str, now: datetime) -> bool:
    """Makes a paused provider active again; what it missed is due at once. False if it was active.

    Raises:
        Refused: it is neither paused nor active.
    """
    provider = get_provider(session, provider_id, lock=True)
    if not _leaves(provider, ProviderStatus.PAUSED, ProviderStatus.ACTIVE, None):
        return False
    provider.status_reason = None
    if provider.refresh_due_at is not None:
        provider.refresh_due_at = min(provider.refresh_due_at, now)
    provider.sync_due_at = now
    audit.record(session, provider_id=provider_id, action="resumed", actor=actor)
    return True


def set_sync_interval(
    session: Session, *, provider_id: UUID, seconds: int | None, default: int, now: datetime, actor: str
) -> bool:
    """Sets how often a provider is synced; None means the usual interval, `default`. False if nothing changed.

    The next sync is then due after the new interval at the latest.
    """
    provider = get_provider(session, provider_id, lock=True)
    if provider.sync_interval == seconds:
        return False
    provider.sync_interval = seconds
    if provider.sync_due_at is not None:
        provider.sync_due_at = min(provider.sync_due_at, now + timedelta(seconds=seconds or default))
    audit.record(
        session, provider_id=provider_id, action="interval_set", actor=actor, detail={"sync_interval": seconds}
    )
    return True


def make_due(session: Session, *, provider_id: UUID, what: Literal["refresh", "sync"], at: datetime) -> None:
    """Makes a refresh or a sync due at `at`, unless it is due earlier.

    Raises:
        Refused: the provider is not active, or its tokens are not refreshed.
    """
    provider = get_provider(session, provider_id, lock=True)
    if provider.status != ProviderStatus.ACTIVE:
        raise not_active(provider)
    if what == "sync":
        provider.sync_due_at = min(provider.sync_due_at or at, at)
        return
    has_refresh = select(ProviderToken.refresh_token).where(ProviderToken.provider_id == provider_id)
    if session.scalar(has_refresh) is None:
        raise Refused(f"{provider.alias}: {provider.provider_key} tokens are not refreshed; there is nothing to do")
    provider.refresh_due_at = min(provider.refresh_due_at or at, at)


def not_active(provider: Provider | ProviderRow, *, kept: str = "nothing was sent") -> Refused:
    """The error for a login that is neither refreshed nor synced, because it is not active."""
    reason = f" ({provider.status_reason})" if provider.status_reason else ""
    status = ProviderStatus(provider.status)
    return Refused(
        f"{provider.alias} is {status}{reason}; {kept}",
        for_operators=status.what_to_do(provider.id),
        for_clients=status.what_a_client_does(provider.id),
    )


def make_all_syncs_due(session: Session, *, at: datetime) -> Sequence[UUID]:
    """Makes a sync of every active provider due at `at`, unless it is due earlier. Returns their ids."""
    due = func.least(func.coalesce(Provider.sync_due_at, at), at)
    statement = update(Provider).where(Provider.status == ProviderStatus.ACTIVE).values(sync_due_at=due)
    return session.scalars(statement.returning(Provider.id)).all()


def resolve_failure(session: Session, *, failure_id: UUID, resolution: str, now: datetime) -> None:
    """Resolves a dead letter."""
    session.execute(
        update(TaskFailure).where(TaskFailure.id == failure_id).values(resolved_at=now, resolution=resolution)
    )


def forget_user(session: Session, *, email: str) -> bool:
    """Deletes a user with all providers, hooks and rows; the audit log is kept. False if there is no such user."""
    subscriptions.remove_of_user(session, email=email)
    linked = select(Provider.id).join(User).join(ProviderToken).where(User.email == email)
    events.unlinked(session, provider_ids=session.scalars(linked).all())
    return session.execute(delete(User).where(User.email == email).returning(User.id)).first() is not None


def _leaves(provider: Provider, before: ProviderStatus, after: ProviderStatus, else_: str | None) -> bool:
    """Changes a provider's status from `before` to `after`. False if it is `after` already.

    Raises:
        Refused: it has another status; the message is `else_`, or says what to do about that status.
    """
    if provider.status == after:
        return False
    if provider.status != before:
        todo = else_ or ProviderStatus(provider.status).what_to_do(provider.id)
        raise Refused(f"{provider.alias} is {provider.status}: {todo}")
    provider.status = after
    return True

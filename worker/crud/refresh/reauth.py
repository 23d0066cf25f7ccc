"""Records that a data call found the grant ended, so that only the user can repair the login."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from worker.crud import audit, notices
from worker.crud.outbox import events
from worker.models import Provider, ProviderToken
from worker.models.vocabulary import ProviderStatus


def need_reauth(
    session: Session, *, provider_id: UUID, generation: int, reason: str, channels: Sequence[str], task_id: str | None
) -> bool:
    """Makes a provider `needs_reauth`, with audit row and notice, unless it has another token by now.

    Lock: the token's row. Fence: `generation`, the generation of the refused token.

    Returns:
        Whether the provider was active and is now `needs_reauth`.
    """
    current = session.scalar(
        select(ProviderToken.generation).where(ProviderToken.provider_id == provider_id).with_for_update()
    )
    if current != generation:
        return False
    stopped = session.execute(
        update(Provider)
        .where(Provider.id == provider_id, Provider.status == ProviderStatus.ACTIVE)
        .values(status=ProviderStatus.NEEDS_REAUTH, status_reason=reason, refresh_due_at=None, sync_due_at=None)
        .returning(Provider.id)
    ).scalar()
    if stopped is None:
        return False
    audit.record(session, provider_id=provider_id, action="needs_reauth", reason=reason, task_id=task_id)
    events.need_reauth(session, reasons=[(provider_id, reason)])
    notices.enqueue(
        session,
        provider_id=provider_id,
        stage="needs_reauth",
        subject_key=f"generation:{generation}",
        channels=channels,
    )
    return True

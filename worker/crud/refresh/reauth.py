"""What a data call learns about the grant: it is dead, and only the user can repair it."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from worker.crud import audit, notices
from worker.models import Provider, ProviderToken
from worker.models.vocabulary import ProviderStatus


def need_reauth(
    session: Session, *, provider_id: UUID, generation: int, reason: str, channels: Sequence[str], task_id: str | None
) -> bool:
    """Stops calls for a provider, with audit row and notice, unless its token is another by now.

    Lock: the token's row. Fence: `generation`, of the token that was refused.

    Returns:
        Whether the provider was active and is `needs_reauth` now.
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
    notices.enqueue(
        session,
        provider_id=provider_id,
        stage="needs_reauth",
        subject_key=f"generation:{generation}",
        channels=channels,
    )
    return True

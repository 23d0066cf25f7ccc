"""Grants that are to be revoked at their provider; each is kept until the provider has confirmed it.

Some wait for a day before that: whoever enters again what they came for gets them (`hold` and `take`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from uuid import UUID

from sqlalchemy import delete, func, text, update
from sqlalchemy.orm import Session

from worker.crud import audit
from worker.models import Revocation, new_id


@dataclass(frozen=True, slots=True)
class Waiting:
    """One grant that is to be revoked.

    Attributes:
        generation: its ciphertexts are bound to it, besides provider and kind.
        access_token, refresh_token: ciphertexts.
        attempts: how often revoking was tried, this time included.
    """

    id: UUID
    provider_id: UUID
    provider_key: str
    reason: str
    generation: int
    access_token: str = field(repr=False)
    refresh_token: str | None = field(repr=False)
    key_id: str
    attempts: int = 0


_KEEP_STORED = text(
    """
    INSERT INTO revocations (
        id, provider_id, provider_key, external_id, reason, generation, access_token, refresh_token, key_id
    )
    SELECT :id, t.provider_id, p.provider_key, p.external_id, :reason, t.generation, t.access_token, t.refresh_token,
        t.key_id
    FROM provider_tokens t JOIN providers p ON p.id = t.provider_id
    WHERE t.provider_id = :provider_id AND t.access_token <> ''
    """
)

# A claim moves the time of the next try ahead: by a minute, doubling, a day at most. Grants of a login that has been
# linked again are left out: revoking them could end the new link.
_CLAIM = text(
    """
    WITH due AS MATERIALIZED (
        SELECT id FROM revocations r
        WHERE due_at <= clock_timestamp() AND (CAST(:provider_id AS uuid) IS NULL OR provider_id = :provider_id)
            AND NOT EXISTS (
                SELECT FROM providers p WHERE p.provider_key = r.provider_key AND p.external_id = r.external_id
                    AND p.status <> 'unlinked'
            )
        ORDER BY due_at LIMIT :limit FOR UPDATE SKIP LOCKED
    )
    UPDATE revocations r SET attempts = r.attempts + 1,
        due_at = clock_timestamp() + least(interval '1 minute' * power(2, least(r.attempts, 20)), interval '1 day')
    FROM due WHERE r.id = due.id
    RETURNING r.id, r.provider_id, r.provider_key, r.reason, r.generation, r.access_token, r.refresh_token, r.key_id,
        r.attempts
    """
)

# Not one that somebody has begun to revoke: it may have ended at the provider.
_HOLD = text(
    """
    UPDATE revocations SET due_at = clock_timestamp() + :time WHERE id = (
        SELECT id FROM revocations
        WHERE provider_key = :provider_key AND external_id = :external_id AND attempts = 0
        ORDER BY due_at DESC LIMIT 1 FOR UPDATE
    )
    RETURNING id, provider_id, provider_key, reason, generation, access_token, refresh_token, key_id, attempts
    """
)


def keep_stored(session: Session, *, provider_id: UUID, reason: str) -> bool:
    """Keeps the provider's stored token until its grant is revoked; False when there is no token."""
    done = session.execute(_KEEP_STORED, {"id": new_id(), "provider_id": provider_id, "reason": reason})
    return bool(done.rowcount)  # type: ignore[attr-defined]


def keep(session: Session, *, grant: Waiting, external_id: str | None, after: timedelta = timedelta(0)) -> None:
    """Keeps a grant that was never stored until it is revoked, which is first tried after that time."""
    session.add(Revocation(**asdict(grant), external_id=external_id, due_at=func.clock_timestamp() + after))


def hold(session: Session, *, provider_key: str, external_id: str, time: timedelta) -> Waiting | None:
    """The grant that is kept under this id, which stays kept for `time` from now on; None if there is none (any more).

    Whoever stores it takes it in the same transaction (`take`). So it is not lost if it is not stored after all.
    """
    given = {"provider_key": provider_key, "external_id": external_id, "time": time}
    row = session.execute(_HOLD, given).mappings().one_or_none()
    return None if row is None else Waiting(**row)


def take(session: Session, *, id_: UUID) -> bool:
    """Deletes a grant that is not to be revoked, because it is stored. False if it is not there any more."""
    return bool(session.execute(delete(Revocation).where(Revocation.id == id_)).rowcount)  # type: ignore[attr-defined]


def spare(session: Session, *, provider_id: UUID, external_id: str | None) -> None:
    """Gives up revoking the grants of a login that is linked again: the new link may have the same grant."""
    if external_id is not None:
        session.execute(
            text(
                "DELETE FROM revocations r USING providers p WHERE p.id = :provider_id"
                " AND r.provider_key = p.provider_key AND r.external_id = :external_id"
            ),
            {"provider_id": provider_id, "external_id": external_id},
        )


def claim_due(session: Session, *, limit: int, provider_id: UUID | None = None) -> Sequence[Waiting]:
    """Claims grants that are due; only those of one provider, if it is given."""
    rows = session.execute(_CLAIM, {"limit": limit, "provider_id": provider_id}).mappings()
    return [Waiting(**row) for row in rows]


def done(session: Session, *, grant: Waiting, revoked: bool) -> None:
    """Deletes a grant that was revoked, or that its provider cannot revoke, and adds an audit row."""
    session.execute(delete(Revocation).where(Revocation.id == grant.id))
    audit.record(
        session,
        provider_id=grant.provider_id,
        action="grant_revoked" if revoked else "grant_not_revocable",
        reason=grant.reason,
        detail={"attempts": grant.attempts},
    )


def failed(session: Session, *, grant: Waiting, error: str) -> None:
    """Records why a grant was not revoked; it is tried again when the claim ends."""
    session.execute(update(Revocation).where(Revocation.id == grant.id).values(error=error))

"""SimpleFIN accesses: create, claim once, find by secret, list, revoke. The audit log has a chain for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any
from uuid import UUID

from sqlalchemy import Select, case, func, or_, select, text, update
from sqlalchemy.orm import Session

from worker.crud import audit
from worker.models import Account, Provider, SimplefinAccess, User
from worker.models.simplefin import AccessRow, NewAccess
from worker.models.vocabulary import AccessState

_NOW = func.clock_timestamp()
_STATE = case(
    (SimplefinAccess.revoked_at.is_not(None), AccessState.REVOKED),
    (SimplefinAccess.claimed_at.is_not(None), AccessState.IN_USE),
    (SimplefinAccess.claim_expires_at > _NOW, AccessState.UNCLAIMED),
    else_=AccessState.EXPIRED,
)
_COMPUTED: dict[str, Any] = {"state": _STATE, "user": User.email}
_ROW: list[Any] = [
    _COMPUTED[name] if name in _COMPUTED else getattr(SimplefinAccess, name) for name in AccessRow.__slots__
]
_ROWS: Select[Any] = select(*_ROW).join(User, User.id == SimplefinAccess.user_id)
_USE_NOTED_EVERY = text("interval '1 hour'")
_UNSYNCED = {"synchronize_session": False}


def create(session: Session, *, new: NewAccess, claim_hash: bytes, seconds: float) -> AccessRow:
    """Stores a new access whose setup token can be exchanged for `seconds`."""
    until = _NOW + text("make_interval(secs => :seconds)").bindparams(seconds=seconds)
    row = SimplefinAccess(**asdict(new), claim_hash=claim_hash, claim_expires_at=until)
    session.add(row)
    session.flush()
    _record(session, row, "simplefin_access_created", new.created_by)
    return by_prefix(session, prefix=new.prefix)[0]


def claim(session: Session, *, claim_hash: bytes, secret_hash: bytes) -> str | None:
    """Exchanges a setup token for the access with this secret. Of two who try at once, one succeeds.

    Returns:
        The prefix of the access; None if the token is unknown, expired, revoked or was exchanged before.
    """
    statement = (
        update(SimplefinAccess)
        .where(
            SimplefinAccess.claim_hash == claim_hash,
            SimplefinAccess.claimed_at.is_(None),
            SimplefinAccess.revoked_at.is_(None),
            SimplefinAccess.claim_expires_at > _NOW,
        )
        .values(claimed_at=_NOW, secret_hash=secret_hash)
        .returning(SimplefinAccess)
    )
    row = session.scalars(statement).one_or_none()
    if row is None:
        return None
    _record(session, row, "simplefin_access_claimed", "app")
    return row.prefix


def find_valid(session: Session, *, prefix: str, secret_hash: bytes) -> AccessRow | None:
    """The access that this secret belongs to, and notes that it is used; None if there is none or it is revoked."""
    is_valid = (
        SimplefinAccess.prefix == prefix,
        SimplefinAccess.secret_hash == secret_hash,
        SimplefinAccess.revoked_at.is_(None),
    )
    found = session.execute(_ROWS.where(*is_valid)).one_or_none()
    if found is None:
        return None
    is_old = or_(SimplefinAccess.last_used_at.is_(None), SimplefinAccess.last_used_at < _NOW - _USE_NOTED_EVERY)
    session.execute(
        update(SimplefinAccess).where(*is_valid, is_old).values(last_used_at=_NOW), execution_options=_UNSYNCED
    )
    return AccessRow(*found)


def list_accesses(session: Session, *, user_id: UUID | None, ended: bool, limit: int) -> list[AccessRow]:
    """Accesses of one user or of all, oldest first; `ended` adds those that are revoked or were never claimed."""
    query = _ROWS.order_by(SimplefinAccess.id).limit(limit)
    if user_id is not None:
        query = query.where(SimplefinAccess.user_id == user_id)
    if not ended:
        query = query.where(_STATE.in_((AccessState.UNCLAIMED, AccessState.IN_USE)))
    return [AccessRow(*row) for row in session.execute(query)]


def by_prefix(session: Session, *, prefix: str) -> Sequence[AccessRow]:
    """The access with this prefix, if there is one."""
    return [AccessRow(*row) for row in session.execute(_ROWS.where(SimplefinAccess.prefix == prefix))]


def revoke(session: Session, *, access_id: UUID, actor: str) -> bool:
    """Ends an access permanently, its setup token included. False if it was revoked before."""
    row = session.scalars(select(SimplefinAccess).where(SimplefinAccess.id == access_id).with_for_update()).one()
    if row.revoked_at is not None:
        return False
    row.revoked_at, row.revoked_by = session.execute(select(_NOW)).scalar_one(), actor
    _record(session, row, "simplefin_access_revoked", actor)
    return True


def own_accounts(session: Session, *, user_id: UUID, ids: Sequence[UUID]) -> set[UUID]:
    """Those of these accounts that belong to the user."""
    query = select(Account.id).join(Provider).where(Provider.user_id == user_id, Account.id.in_(ids))
    return set(session.scalars(query))


def _record(session: Session, row: SimplefinAccess, action: str, actor: str) -> None:
    detail = {"access": row.prefix, "user_id": str(row.user_id)}
    audit.record(session, provider_id=row.id, action=action, actor=actor, reason=row.name, detail=detail)

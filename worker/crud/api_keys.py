"""Keys of the HTTP API: create, find by hash, list, revoke. Each change adds a row to the audit log."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import bindparam, func, or_, select
from sqlalchemy.orm import Session

from worker.crud import audit
from worker.models import ApiKey, User
from worker.models.access import ApiKeyRow, NewApiKey

_ROW = [User.email if name == "user" else getattr(ApiKey, name) for name in ApiKeyRow.__slots__]
_ROWS = select(*_ROW).outerjoin(User, User.id == ApiKey.user_id)
_IS_VALID = (
    ApiKey.revoked_at.is_(None),
    or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > func.clock_timestamp()),
)
# Built once: every request runs one of them.
_VALID = _ROWS.where(ApiKey.key_hash == bindparam("key_hash"), *_IS_VALID)
_VALID_ID = _ROWS.where(ApiKey.id == bindparam("key_id"), *_IS_VALID)


def create(session: Session, *, new: NewApiKey, key_hash: bytes, actor: str) -> ApiKeyRow:
    """Stores a new key."""
    key = ApiKey(
        name=new.name,
        prefix=new.prefix,
        key_hash=key_hash,
        scopes=list(new.scopes),
        user_id=new.user_id,
        expires_at=new.expires_at,
        created_by=actor,
    )
    session.add(key)
    session.flush()
    _record(session, key, "api_key_created", actor)
    return by_prefix(session, prefix=key.prefix, limit=1)[0]


def find_valid(session: Session, *, key_hash: bytes | None = None, key_id: UUID | None = None) -> ApiKeyRow | None:
    """The key with this hash or this id; None if it is revoked or, by the database's clock, expired."""
    query = _VALID if key_id is None else _VALID_ID
    row = session.execute(query, {"key_hash": key_hash} if key_id is None else {"key_id": key_id}).one_or_none()
    return None if row is None else ApiKeyRow(*row)


def valid_ids(session: Session, *, ids: Collection[UUID]) -> set[UUID]:
    """Those of these keys that are valid."""
    return set(session.scalars(select(ApiKey.id).where(ApiKey.id.in_(ids), *_IS_VALID)))


def list_keys(session: Session, *, user_id: UUID | None, revoked: bool, limit: int) -> list[ApiKeyRow]:
    """Keys of one user or of all, oldest first; `revoked` adds the revoked ones."""
    query = _ROWS.order_by(ApiKey.id).limit(limit)
    if user_id is not None:
        query = query.where(ApiKey.user_id == user_id)
    if not revoked:
        query = query.where(ApiKey.revoked_at.is_(None))
    return [ApiKeyRow(*row) for row in session.execute(query)]


def by_prefix(session: Session, *, prefix: str, limit: int) -> Sequence[ApiKeyRow]:
    """At most `limit` keys with this prefix."""
    return [ApiKeyRow(*row) for row in session.execute(_ROWS.where(ApiKey.prefix == prefix).limit(limit))]


def revoke(session: Session, *, key_id: UUID, actor: str) -> bool:
    """Ends a key permanently. False if it was revoked before."""
    key = session.scalars(select(ApiKey).where(ApiKey.id == key_id).with_for_update()).one()
    if key.revoked_at is not None:
        return False
    key.revoked_at, key.revoked_by = _now(session), actor
    _record(session, key, "api_key_revoked", actor)
    return True


def _record(session: Session, key: ApiKey, action: str, actor: str) -> None:
    # Each key has its own chain in the audit log, under its own id.
    detail = {"key": key.prefix, "scopes": key.scopes, "user_id": str(key.user_id) if key.user_id else None}
    audit.record(session, provider_id=key.id, action=action, actor=actor, reason=key.name, detail=detail)


def _now(session: Session) -> datetime:
    found: datetime = session.execute(select(func.clock_timestamp())).scalar_one()
    return found

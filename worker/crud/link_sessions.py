"""Link sessions: create, read, claim for one request, end. The audit log has a chain for each, under its id."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any
from uuid import UUID

from sqlalchemy import case, exists, func, or_, select, text, update
from sqlalchemy.orm import Session

from worker.crud import audit
from worker.errors import NotFound
from worker.models import ApiKey, LinkSession, LinkState, User
from worker.models.link_session import LinkSessionRow, NewLinkSession
from worker.models.vocabulary import LinkSessionState

_LASTS = LinkSession.expires_at > func.clock_timestamp()
_KEY_REVOKED = exists().where(ApiKey.id == LinkSession.key_id, ApiKey.revoked_at.is_not(None))
_IS_OPEN = (LinkSession.status == LinkSessionState.OPEN) & _LASTS & ~_KEY_REVOKED
_STATE = case(
    (LinkSession.status != LinkSessionState.OPEN, LinkSession.status),
    (_IS_OPEN, LinkSessionState.OPEN),
    else_=LinkSessionState.EXPIRED,
)
_COMPUTED: dict[str, Any] = {"state": _STATE, "user": User.email}
_NAMES = LinkSessionRow.__slots__
_ROW: list[Any] = [_COMPUTED[name] if name in _COMPUTED else getattr(LinkSession, name) for name in _NAMES]
_UNSYNCED = {"synchronize_session": False}


def create(session: Session, *, new: NewLinkSession, token_hash: bytes, seconds: float) -> LinkSessionRow:
    """Stores a new session that lasts for `seconds`."""
    row = LinkSession(**asdict(new), token_hash=token_hash, expires_at=_in(seconds))
    session.add(row)
    session.flush()
    detail = {"user_id": str(new.user_id), "provider_id": str(new.provider_id) if new.provider_id else None}
    audit.record(session, provider_id=row.id, action="link_session_created", actor=new.created_by, detail=detail)
    return get(session, session_id=row.id)


def get(session: Session, *, session_id: UUID) -> LinkSessionRow:
    """One session.

    Raises:
        NotFound: there is none.
    """
    return _one(session, LinkSession.id == session_id)


def by_token(session: Session, *, token_hash: bytes) -> LinkSessionRow:
    """The session with this token. Raises `NotFound` if there is none."""
    return _one(session, LinkSession.token_hash == token_hash)


def of_state(session: Session, *, state_hash: bytes, holder_hash: bytes) -> LinkSessionRow | None:
    """The session to which an unused state belongs; None if there is no such state, or it has no session."""
    state = select(LinkState.session_id).where(LinkState.state_hash == state_hash, LinkState.holder_hash == holder_hash)
    found = session.scalar(state)
    return None if found is None else get(session, session_id=found)


def _one(session: Session, condition: Any) -> LinkSessionRow:
    row = session.execute(select(*_ROW).join(User, User.id == LinkSession.user_id).where(condition)).one_or_none()
    if row is None:
        raise NotFound("there is no such link session")
    return LinkSessionRow(*row)


def bind(session: Session, *, session_id: UUID, browser_hash: bytes) -> bool:
    """Binds an open session to a browser. False if it is not open, or is bound to another browser."""
    statement = update(LinkSession).where(
        LinkSession.id == session_id,
        _IS_OPEN,
        or_(LinkSession.browser_hash.is_(None), LinkSession.browser_hash == browser_hash),
    )
    return _changed(session, statement.values(browser_hash=browser_hash))


def claim(session: Session, *, session_id: UUID, seconds: float) -> bool:
    """Lets one request alone complete an open session, for `seconds`. False if it is not open, or is claimed."""
    statement = update(LinkSession).where(
        LinkSession.id == session_id,
        _IS_OPEN,
        or_(LinkSession.claimed_until.is_(None), LinkSession.claimed_until < func.clock_timestamp()),
    )
    return _changed(session, statement.values(claimed_until=_in(seconds)))


def release(session: Session, *, session_id: UUID) -> None:
    """Ends a claim without a result; the person may try again."""
    session.execute(
        update(LinkSession).where(LinkSession.id == session_id).values(claimed_until=None), execution_options=_UNSYNCED
    )


def end(session: Session, *, session_id: UUID, state: LinkSessionState, linked_id: UUID | None = None) -> bool:
    """Ends a session that has not ended yet. It may have expired: what was begun in time may be completed.

    Returns:
        Whether it was still open.
    """
    statement = update(LinkSession).where(LinkSession.id == session_id, LinkSession.status == LinkSessionState.OPEN)
    if not _changed(session, statement.values(status=state, linked_id=linked_id, claimed_until=None)):
        return False
    detail = {"provider_id": str(linked_id)} if linked_id else None
    audit.record(session, provider_id=session_id, action=f"link_session_{state}", actor="user", detail=detail)
    return True


def _changed(session: Session, statement: Any) -> bool:
    found = session.execute(statement.returning(LinkSession.id), execution_options=_UNSYNCED)
    return found.one_or_none() is not None


def _in(seconds: float) -> Any:
    return func.clock_timestamp() + text("make_interval(secs => :seconds)").bindparams(seconds=seconds)

"""Linking: states of open authorisations, and the provider that a grant belongs to."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import DateTime, case, delete, func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from worker.crud import audit, revocations
from worker.crud.outbox import events
from worker.crud.providers import get_provider, take_turns_in_linking
from worker.crud.refresh.records import NewToken
from worker.crud.refresh.tokens import store
from worker.crud.sync import accounts, cursors, runs
from worker.errors import Fenced, NotFound, Refused
from worker.models import (
    LinkState,
    Provider,
    ProviderAuditLog,
    ProviderCreate,
    ProviderToken,
    TokenRefresh,
    User,
)
from worker.models.vocabulary import AttemptStatus, ProviderStatus


@dataclass(frozen=True, slots=True)
class Begun:
    """An authorisation that a user began.

    Attributes:
        code_verifier: a ciphertext; None without PKCE.
        session_id: the link session that it belongs to, if any.
    """

    provider_in: ProviderCreate
    code_verifier: str | None
    session_id: UUID | None


@dataclass(frozen=True, slots=True)
class LinkTarget:
    """The provider that a grant is for.

    Attributes:
        generation: of its present token, or of the last one that it had; 0 if it never had one.
        now: the database's time.
    """

    provider_id: UUID
    generation: int
    now: datetime


def save_state(
    session: Session,
    *,
    state_hash: bytes,
    holder_hash: bytes,
    provider_in: ProviderCreate,
    seconds: float,
    code_verifier: str | None = None,
    session_id: UUID | None = None,
) -> None:
    """Stores for `seconds` an authorisation that a user has begun, and deletes expired ones.

    A link session has one authorisation at a time: earlier ones of the same session are deleted, too.

    Raises:
        NotFound: no such user.
    """
    _require_user(session, provider_in.user_id)
    session.execute(delete(LinkState).where(LinkState.expires_at < func.clock_timestamp()))
    if session_id is not None:
        session.execute(delete(LinkState).where(LinkState.session_id == session_id))
    session.add(
        LinkState(
            state_hash=state_hash,
            holder_hash=holder_hash,
            code_verifier=code_verifier,
            session_id=session_id,
            **provider_in.model_dump(),
            expires_at=_now(session) + timedelta(seconds=seconds),
        )
    )


def consume_state(
    session: Session, *, state_hash: bytes, holder_hash: bytes, expected: ProviderCreate | None = None
) -> Begun | None:
    """Deletes a state and returns what it began; None if there is no such state, or it has expired or was used.

    None, too, if somebody else began it or it is not what is `expected`; then the state stays valid.
    """
    statement = (
        delete(LinkState)
        .where(
            LinkState.state_hash == state_hash,
            LinkState.holder_hash == holder_hash,
            LinkState.expires_at > func.clock_timestamp(),
        )
        .returning(
            LinkState.user_id, LinkState.provider_key, LinkState.alias, LinkState.code_verifier, LinkState.session_id
        )
    )
    if expected is not None:
        statement = statement.filter_by(**expected.model_dump())
    row = session.execute(statement).one_or_none()
    if row is None:
        return None
    named = row._asdict()
    code_verifier, session_id = named.pop("code_verifier"), named.pop("session_id")
    return Begun(ProviderCreate.model_validate(named), code_verifier, session_id)


def find_or_create(session: Session, *, provider_in: ProviderCreate) -> Provider:
    """The user's provider with this alias. It is created as `pending` if there is none.

    Raises:
        NotFound: no such user.
    """
    _require_user(session, provider_in.user_id)
    named = select(Provider).filter_by(**provider_in.model_dump())
    found = session.scalar(named)
    if found is None:
        # Another process may create the same provider now; then its row is used.
        session.execute(insert(Provider).values(**provider_in.model_dump()).on_conflict_do_nothing())
        found = session.scalars(named).one()
    return found


def find_with_token(session: Session, *, provider_in: ProviderCreate, status: ProviderStatus) -> UUID | None:
    """The user's provider with this alias, if it has a token and this status; otherwise None."""
    return session.scalar(
        select(Provider.id)
        .join(ProviderToken, ProviderToken.provider_id == Provider.id)
        .filter_by(**provider_in.model_dump(), status=status)
    )


def has_other_login(session: Session, *, provider_in: ProviderCreate, external_id: str | None) -> bool:
    """Whether the user's provider with this alias is linked to another login than this one, as far as can be known."""
    statement = (
        select(Provider.external_id)
        .join(ProviderToken, ProviderToken.provider_id == Provider.id)
        .filter_by(**provider_in.model_dump())
    )
    found = session.execute(statement).one_or_none()
    return found is not None and (external_id is None or found[0] != external_id)


def target(session: Session, *, provider_in: ProviderCreate) -> LinkTarget:
    """The user's provider with this alias, as the target of a grant. Raises `NotFound` if there is no such user."""
    return _target(session, find_or_create(session, provider_in=provider_in))


_TAKE_TURNS = text("SELECT pg_advisory_xact_lock(hashtextextended(:what, 0))")


def target_of_login(session: Session, *, provider_id: UUID, external_id: str | None) -> LinkTarget:
    """The provider that already has this login; if there is none, `provider_id`, which then gets the login.

    Until the transaction ends, its token stays as it is, and other links of the same provider or login wait. If
    `provider_id` has another login so far, that one is given up (`_give_up_login`). If `provider_id` was only created
    for this link, but another provider has the login, it is deleted.

    Raises:
        NotFound: the provider no longer exists.
        Refused: the login is linked by another user.
    """
    take_turns_in_linking(session, provider_id)
    ours = get_provider(session, provider_id)
    if external_id is None:
        return _target(session, ours)
    session.execute(_TAKE_TURNS, {"what": f"login {ours.provider_key} {external_id}"})
    known = session.scalar(
        select(Provider).where(Provider.provider_key == ours.provider_key, Provider.external_id == external_id)
    )
    if known is None:
        if ours.external_id is not None:
            _give_up_login(session, ours)
        return _target(session, ours)
    if known.user_id != ours.user_id:
        raise Refused("this login is linked by another user already; nothing was changed")
    if known.id != ours.id and ours.status == ProviderStatus.PENDING:
        session.delete(ours)
        session.flush()
    return _target(session, known)


def _give_up_login(session: Session, provider: Provider) -> None:
    """Ends what belongs to the provider's former login: its run, cursors, accounts and grant. Rows are kept."""
    # The locks are taken in the same order as by a page: accounts, the run, cursors.
    accounts.lose_all(session, provider_id=provider.id)
    runs.end_running(
        session,
        provider_id=provider.id,
        error="relinked",
        reason="another login was linked under this alias; its first sync reads all of that one",
        keep_full_sync=False,
    )
    cursors.forget_cursors(session, provider_id=provider.id, keep=frozenset())
    if revocations.keep_stored(session, provider_id=provider.id, reason="replaced"):
        audit.record(session, provider_id=provider.id, action="login_replaced", detail={"revocation": "queued"})


_TAKE = text(
    """
    INSERT INTO provider_tokens (provider_id, access_token, key_id, generation, issued_at, lease_owner, lease_until)
    VALUES (:provider_id, '', '', :generation, clock_timestamp(), :owner, clock_timestamp() + interval '1 minute')
    ON CONFLICT (provider_id) DO UPDATE SET lease_owner = excluded.lease_owner, lease_until = excluded.lease_until
    RETURNING generation
    """
)


def store_grant(session: Session, *, token: NewToken, owner: UUID) -> None:
    """Stores the first token of a new grant, as any other token, except that it takes the lease by itself.

    A refresh of the old grant that is in flight is fenced off. A running sync is ended: it would overwrite rows of the
    new grant with what the old grant allowed it to read.

    Raises:
        Fenced: the stored generation has changed; nothing is written.
        NotFound: the provider no longer exists.
    """
    take_turns_in_linking(session, token.provider_id)
    # The run's row is locked first: a worker that writes pages locks it before the provider's row.
    runs.end_running(
        session,
        provider_id=token.provider_id,
        error="relinked",
        reason="the login was linked anew meanwhile; the next run goes on with the new token",
    )
    get_provider(session, token.provider_id, lock=True)
    parameters = {"provider_id": token.provider_id, "generation": token.generation, "owner": owner}
    if session.execute(_TAKE, parameters).scalar_one() != token.generation:
        raise Fenced("another link of this provider was stored first; nothing was changed")
    store(session, tokens=[token], owner=owner)
    revocations.spare(session, provider_id=token.provider_id, external_id=token.external_id)


def abandon(session: Session, *, provider_in: ProviderCreate, external_id: str | None) -> bool:
    """Deletes a provider that was created for a grant that is not stored, unless it has been linked in another way.

    Returns:
        Whether a stored provider has this login; False for a login to which its provider gives no id.
    """
    session.execute(delete(Provider).filter_by(**provider_in.model_dump(), status=ProviderStatus.PENDING))
    if external_id is None:
        return False
    known = select(Provider).filter_by(provider_key=provider_in.provider_key, external_id=external_id)
    return session.scalar(select(known.exists())) or False


def has_login(session: Session, *, provider_id: UUID, provider_key: str, external_id: str | None) -> bool:
    """Whether a linked provider has this login; for a login without an id, whether `provider_id` is linked."""
    linked = select(Provider.id).where(
        Provider.status.not_in((ProviderStatus.PENDING, ProviderStatus.UNLINKED)),
        Provider.provider_key == provider_key,
        Provider.id == provider_id if external_id is None else Provider.external_id == external_id,
    )
    return session.scalar(select(linked.exists())) or False


def was_overtaken(session: Session, *, provider_id: UUID, since: datetime) -> bool:
    """Whether the user has linked this provider again, or unlinked it, after `since`."""
    later = select(ProviderAuditLog.id).where(
        ProviderAuditLog.provider_id == provider_id,
        ProviderAuditLog.action.in_(("linked", "unlinked")),
        ProviderAuditLog.created_at > since,
    )
    return session.scalar(select(later.exists())) or False


def end_link(session: Session, *, provider_id: UUID, actor: str, revoked: bool, revoke_later: bool = False) -> None:
    """Deletes the token and stops all work for this provider, including a run; its rows are kept.

    Args:
        session: the transaction.
        provider_id: the provider.
        actor: for the audit log.
        revoked: the provider has confirmed that the grant has ended.
        revoke_later: the provider could not be asked; the grant is kept until it can be revoked.
    """
    take_turns_in_linking(session, provider_id)
    runs.end_running(
        session, provider_id=provider_id, error="unlinked", reason="the link was ended; stored rows are kept"
    )
    if revoke_later:
        revocations.keep_stored(session, provider_id=provider_id, reason="unlinked")
    last = session.scalar(
        delete(ProviderToken).where(ProviderToken.provider_id == provider_id).returning(ProviderToken.generation)
    )
    session.execute(
        update(Provider)
        .where(Provider.id == provider_id)
        .values(
            status=ProviderStatus.UNLINKED,
            status_reason=None,
            last_generation=func.greatest(Provider.last_generation, last or 0),
            access_expires_at=None,
            grant_expires_at=None,
            refresh_due_at=None,
            sync_due_at=None,
        )
    )
    audit.record(session, provider_id=provider_id, action="unlinked", actor=actor, detail={"revoked": revoked})
    if last is not None:
        events.unlinked(session, provider_ids=[provider_id])


def _target(session: Session, provider: Provider) -> LinkTarget:
    generation = session.scalar(
        select(ProviderToken.generation).where(ProviderToken.provider_id == provider.id).with_for_update()
    )
    if generation is None:
        generation = _last_generation(session, provider.id)
    return LinkTarget(provider.id, generation, _now(session))


def _last_generation(session: Session, provider_id: UUID) -> int:
    """The generation after which a new link counts on, so that nothing about old tokens fits the new one's numbers."""
    kept = select(Provider.last_generation).where(Provider.id == provider_id).scalar_subquery()
    # A worker of the release before this column stores no last generation, but its attempts show it.
    stored = case((TokenRefresh.status == AttemptStatus.DONE, 1), else_=0)
    attempted = (
        select(func.max(TokenRefresh.generation + stored))
        .where(TokenRefresh.provider_id == provider_id)
        .scalar_subquery()
    )
    return int(session.execute(select(func.greatest(kept, attempted, 0))).scalar_one())


def _require_user(session: Session, user_id: UUID) -> None:
    if session.get(User, user_id) is None:
        raise NotFound(f"no user has the id {user_id}")


def _now(session: Session) -> datetime:
    return session.execute(select(func.clock_timestamp(type_=DateTime(timezone=True)))).scalar_one()

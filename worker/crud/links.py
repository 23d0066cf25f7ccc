"""Linking: states of authorisations under way, and the provider that a grant belongs to."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import DateTime, case, delete, func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from worker.crud import audit, revocations
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
    """What a user had begun. `code_verifier` is its ciphertext, where there is one."""

    provider_in: ProviderCreate
    code_verifier: str | None


@dataclass(frozen=True, slots=True)
class LinkTarget:
    """The provider that a grant is for.

    Attributes:
        generation: of its present token, or of the last that it had; 0 when there was none.
        now: by the database's clock.
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
) -> None:
    """Remembers an authorisation that a user has begun, for `seconds`, and drops those that have expired.

    Raises:
        NotFound: no such user.
    """
    _require_user(session, provider_in.user_id)
    session.execute(delete(LinkState).where(LinkState.expires_at < func.clock_timestamp()))
    session.add(
        LinkState(
            state_hash=state_hash,
            holder_hash=holder_hash,
            code_verifier=code_verifier,
            **provider_in.model_dump(),
            expires_at=_now(session) + timedelta(seconds=seconds),
        )
    )


def consume_state(
    session: Session, *, state_hash: bytes, holder_hash: bytes, expected: ProviderCreate | None = None
) -> Begun | None:
    """What the user had begun; None when there is no such state, it has expired, or it was used before.

    None also for who did not begin it, or if it is not what is expected; then it stays good.
    """
    statement = (
        delete(LinkState)
        .where(
            LinkState.state_hash == state_hash,
            LinkState.holder_hash == holder_hash,
            LinkState.expires_at > func.clock_timestamp(),
        )
        .returning(LinkState.user_id, LinkState.provider_key, LinkState.alias, LinkState.code_verifier)
    )
    if expected is not None:
        statement = statement.filter_by(**expected.model_dump())
    row = session.execute(statement).one_or_none()
    if row is None:
        return None
    named = row._asdict()
    code_verifier = named.pop("code_verifier")
    return Begun(ProviderCreate.model_validate(named), code_verifier)


def find_or_create(session: Session, *, provider_in: ProviderCreate) -> Provider:
    """The user's provider of this alias, made `pending` when it is new.

    Raises:
        NotFound: no such user.
    """
    _require_user(session, provider_in.user_id)
    named = select(Provider).filter_by(**provider_in.model_dump())
    found = session.scalar(named)
    if found is None:
        # Somebody may be linking it at this very moment: then theirs is the one.
        session.execute(insert(Provider).values(**provider_in.model_dump()).on_conflict_do_nothing())
        found = session.scalars(named).one()
    return found


def find_with_token(session: Session, *, provider_in: ProviderCreate, status: ProviderStatus) -> UUID | None:
    """The user's provider of this alias, if it has a token and this status."""
    return session.scalar(
        select(Provider.id)
        .join(ProviderToken, ProviderToken.provider_id == Provider.id)
        .filter_by(**provider_in.model_dump(), status=status)
    )


def target(session: Session, *, provider_in: ProviderCreate) -> LinkTarget:
    """The same with what a grant needs to know of it. Raises `NotFound` likewise."""
    return _target(session, find_or_create(session, provider_in=provider_in))


_TAKE_TURNS = text("SELECT pg_advisory_xact_lock(hashtextextended(:what, 0))")


def target_of_login(session: Session, *, provider_id: UUID, external_id: str | None) -> LinkTarget:
    """The provider that already has this login, or else `provider_id`, which then takes the login over.

    Its token stays as it is until the transaction ends, and who links the same provider or login waits for that. What
    a provider has of a login that it no longer has is given up (`_give_up_login`); one that was only made for a login
    that turns out to be known goes again.

    Raises:
        NotFound: the provider is gone.
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
    """Ends what belongs to the login that this provider had: its run, cursors, accounts and grant. Rows are kept."""
    # In the order in which a page is written: accounts, the run, cursors.
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
    """Stores the first token of a new grant, in the way of every other token but for the lease, which it takes.

    A refresh of the old grant that is under way is fenced off, and a run that reads with its token is ended: it would
    write what the old grant saw over what the new one is to read.

    Raises:
        Fenced: the stored generation is another by now; nothing is changed.
        NotFound: the provider is gone.
    """
    take_turns_in_linking(session, token.provider_id)
    # First of all rows the run's: whoever writes pages has it before they need the provider's.
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
    """Forgets a provider that was made for a grant that is not stored, unless it has been linked otherwise.

    Returns:
        Whether a stored provider has this login; False for a login that its provider gives no id.
    """
    session.execute(delete(Provider).filter_by(**provider_in.model_dump(), status=ProviderStatus.PENDING))
    if external_id is None:
        return False
    known = select(Provider).filter_by(provider_key=provider_in.provider_key, external_id=external_id)
    return session.scalar(select(known.exists())) or False


def has_login(session: Session, *, provider_id: UUID, provider_key: str, external_id: str | None) -> bool:
    """Whether a linked provider has this login; of a login without an id, whether `provider_id` is linked."""
    linked = select(Provider.id).where(
        Provider.status.not_in((ProviderStatus.PENDING, ProviderStatus.UNLINKED)),
        Provider.provider_key == provider_key,
        Provider.id == provider_id if external_id is None else Provider.external_id == external_id,
    )
    return session.scalar(select(linked.exists())) or False


def was_overtaken(session: Session, *, provider_id: UUID, since: datetime) -> bool:
    """Whether the user has linked this provider anew, or ended the link, after `since`."""
    later = select(ProviderAuditLog.id).where(
        ProviderAuditLog.provider_id == provider_id,
        ProviderAuditLog.action.in_(("linked", "unlinked")),
        ProviderAuditLog.created_at > since,
    )
    return session.scalar(select(later.exists())) or False


def end_link(session: Session, *, provider_id: UUID, actor: str, revoked: bool, revoke_later: bool = False) -> None:
    """Forgets the token and stops everything of this provider, a run included; its rows are kept.

    Args:
        session: the transaction.
        provider_id: whose.
        actor: for the audit log.
        revoked: the provider has confirmed that the grant is ended.
        revoke_later: it could not be asked: the grant is kept until it can.
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


def _target(session: Session, provider: Provider) -> LinkTarget:
    generation = session.scalar(
        select(ProviderToken.generation).where(ProviderToken.provider_id == provider.id).with_for_update()
    )
    if generation is None:
        generation = _last_generation(session, provider.id)
    return LinkTarget(provider.id, generation, _now(session))


def _last_generation(session: Session, provider_id: UUID) -> int:
    """Where the numbers go on after an unlinking: nothing about the old tokens must pass for the new one's."""
    kept = select(Provider.last_generation).where(Provider.id == provider_id).scalar_subquery()
    # A worker of the release before this column leaves only its attempts behind.
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

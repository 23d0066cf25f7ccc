"""Users and providers: create, look up, claim what is due."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import TextClause, select, text
from sqlalchemy.orm import Session

from worker.crud import due_times
from worker.crud.index_probes import INDEX_PROBES
from worker.errors import NotFound, Refused
from worker.models import Provider, ProviderCreate, User
from worker.text.mail_addresses import normalised


def create_user(session: Session, *, email: str | None = None) -> User:
    """Creates a user.

    Raises:
        Refused: mail cannot be sent to this address.
    """
    user = User(email=None if email is None else _address(email))
    session.add(user)
    session.flush()
    return user


def get_or_create_user(session: Session, *, email: str) -> User:
    """The user with this address; created if there is none. The domain may be written in any form.

    Raises:
        Refused: mail cannot be sent to this address.
    """
    return find_user(session, email=email) or create_user(session, email=email)


def find_user(session: Session, *, email: str) -> User | None:
    """The user with this address; None if there is none. The domain may be written in any form.

    Raises:
        Refused: mail cannot be sent to this address.
    """
    # Older rows contain the address as it was typed.
    addresses = {_address(email), email}
    return session.scalar(select(User).where(User.email.in_(addresses)).order_by(User.email == email))


def _address(email: str) -> str:
    try:
        return normalised(email)
    except ValueError as error:
        raise Refused(f"no mail can be sent to this e-mail address: {error} No user was created") from None


def create_provider(session: Session, *, provider_in: ProviderCreate) -> Provider:
    """Creates a provider, `pending` until it is linked."""
    provider = Provider(**provider_in.model_dump())
    session.add(provider)
    session.flush()
    session.refresh(provider)
    return provider


def get_provider(session: Session, provider_id: UUID, *, lock: bool = False) -> Provider:
    """The provider with this id; `lock` locks its row until this transaction ends.

    Raises:
        NotFound: there is none.
    """
    provider = session.get(Provider, provider_id, with_for_update=lock)
    if provider is None:
        raise NotFound(f"no provider has the id {provider_id}")
    return provider


def take_turns_in_linking(session: Session, provider_id: UUID) -> None:
    """Takes the lock for linking, unlinking and beginning runs of this provider, until this transaction ends."""
    session.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:what, 0))"), {"what": f"link {provider_id}"})


def claim_refresh_due(
    session: Session, *, provider_key: str, now: datetime, limit: int, claim: timedelta, probe: bool = False
) -> Sequence[UUID]:
    """Claims up to `limit` providers whose refresh is due, earliest first, for `claim`.

    A claim only moves the time of the next dispatch: a lost message is sent again when the claim ends.

    `probe` means that the call may well fail. A token that was presented without a known outcome has only one retry
    left, so it is claimed only when no other is due.
    """
    return _claim(session, "refresh", provider_key=provider_key, now=now, limit=limit, claim=claim, probe=probe)


def claim_sync_due(
    session: Session, *, provider_key: str, now: datetime, limit: int, claim: timedelta, probe: bool = False
) -> Sequence[UUID]:
    """The same for syncs; a sync first refreshes a token that has expired."""
    return _claim(session, "sync", provider_key=provider_key, now=now, limit=limit, claim=claim, probe=probe)


def hand_back_sync(session: Session, *, ids: Sequence[UUID]) -> None:
    """Makes providers due now whose claimed sync has not begun."""
    session.execute(
        text(
            """
            UPDATE providers SET sync_due_at = clock_timestamp()
            WHERE id = ANY (:ids) AND status = 'active' AND sync_due_at > clock_timestamp()
            """
        ),
        {"ids": list(ids)},
    )


_SYNCED_SINCE = text(
    """
    SELECT p.id FROM providers p
    WHERE p.id = ANY (:ids) AND p.sync_due_at > :now AND p.sync_due_at IS DISTINCT FROM p.sync_claimed_until
        AND EXISTS (SELECT FROM sync_runs r WHERE r.provider_id = p.id AND r.started_at > :asked_at)
    """
)


def synced_since(session: Session, *, ids: Sequence[UUID], asked_at: datetime, now: datetime) -> set[UUID]:
    """Those of these providers for which a run has begun after `asked_at`, and which are neither due nor claimed now.

    A claim ends while its message still waits, if there is more work than workers can do. The provider is then claimed
    and sent again, and the first of the two messages does the work of both.
    """
    return set(session.execute(_SYNCED_SINCE, {"ids": list(ids), "asked_at": asked_at, "now": now}).scalars())


# After the table of due times was filled, Postgres has no statistics of it and might scan all logins.
_PREPARE = text(f"SELECT {INDEX_PROBES}, {due_times.IS_FILLED} AS filled")
_FILLED_AT_ONCE = 100_000
"""Logins: this takes about two seconds. If there are more, the next claims add them."""
_NOT_IN_DOUBT = """
    AND NOT EXISTS (
        SELECT FROM token_refreshes r JOIN provider_tokens t USING (provider_id, generation)
        WHERE r.provider_id = providers.id AND r.status IN ('sent', 'unknown')
    )
"""


def _claim(
    session: Session, kind: str, *, provider_key: str, now: datetime, limit: int, claim: timedelta, probe: bool
) -> Sequence[UUID]:
    if not session.execute(_PREPARE, {"nobody": due_times.NOBODY}).one().filled:
        due_times.fill(session, at_most=_FILLED_AT_ONCE)
    values = {"provider_key": provider_key, "now": now, "limit": limit, "until": now + claim}
    if probe and (ids := session.execute(_claiming(kind, _NOT_IN_DOUBT), values).scalars().all()):
        return ids
    return session.execute(_claiming(kind), values).scalars().all()


def _claiming(kind: str, condition: str = "") -> TextClause:
    # Since when the login was due is kept for the view `work_waiting`, also when it is claimed again.
    # The inner ORDER BY decides who is claimed. UPDATE … RETURNING loses this order; the outer one restores it.
    return text(
        f"""
        WITH due AS MATERIALIZED (
            SELECT id, {kind}_due_at AS due_at,
                CASE WHEN {kind}_due_at = {kind}_claimed_until THEN {kind}_wanted_at ELSE {kind}_due_at END AS wanted_at
            FROM due_times AS d JOIN providers ON providers.id = d.provider_id
            WHERE d.kind = '{kind}' AND d.provider_key = :provider_key AND d.due_at <= :now
                AND providers.status = 'active' AND providers.provider_key = :provider_key
                AND {kind}_due_at <= :now {condition}
            ORDER BY d.due_at LIMIT :limit FOR NO KEY UPDATE OF providers SKIP LOCKED
        ), claimed AS (
            UPDATE providers
            SET {kind}_due_at = :until, {kind}_claimed_until = :until, {kind}_wanted_at = due.wanted_at
            FROM due WHERE providers.id = due.id
            RETURNING providers.id, due.due_at
        )
        SELECT id FROM claimed ORDER BY due_at
        """  # noqa: S608 - made of the constants above
    )

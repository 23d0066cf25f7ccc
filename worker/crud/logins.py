"""Logins for the HTTP API: one page of them; create, rename, remove."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any
from uuid import UUID

from sqlalchemy import Select, bindparam, case, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from worker.crud import audit
from worker.crud.providers import create_provider, take_turns_in_linking
from worker.errors import NotFound, Refused, Taken
from worker.models import Account, LinkSession, LinkState, Provider, ProviderCreate, ProviderToken, User
from worker.models.fleet import LoginRow
from worker.models.vocabulary import AccountStatus, LoginState, ProviderStatus

OPERATOR_USER = UUID("00000000-0000-7000-8000-000000000001")
"""Id of the user who owns the logins that are created with an operator's key."""

_STATE = case(
    (Provider.status == ProviderStatus.PENDING, LoginState.PENDING),
    (Provider.status == ProviderStatus.ACTIVE, LoginState.ACTIVE),
    (Provider.status == ProviderStatus.PAUSED, LoginState.PAUSED),
    (Provider.status == ProviderStatus.UNLINKED, LoginState.REVOKED),
    (Provider.status_reason == "grant_expired", LoginState.EXPIRED),
    (Provider.status_reason == "lost_rotation", LoginState.ERROR),
    else_=LoginState.REVOKED,
)
_ACCOUNTS = (
    select(func.count())
    .where(Account.provider_id == Provider.id, Account.status == AccountStatus.ACTIVE)
    .scalar_subquery()
)
_UPDATED = func.greatest(Provider.created_at, Provider.connected_at, Provider.refreshed_at, Provider.synced_at)
_COMPUTED = {"state": _STATE, "accounts": _ACCOUNTS, "updated_at": _UPDATED}
_ROW = [_COMPUTED[name] if name in _COMPUTED else getattr(Provider, name) for name in LoginRow.__slots__]
_ONE = select(*_ROW).where(Provider.id == bindparam("provider_id"))

SORTS: dict[str, Any] = {
    "created_at": Provider.id,  # ids are ordered by time of creation, and have an index
    "updated_at": _UPDATED,
    "alias": Provider.alias,
    "provider_key": Provider.provider_key,
}


@dataclass(frozen=True, slots=True)
class LoginQuery:
    """Query: which logins are wanted, and which page of them.

    Attributes:
        user_id: the owner; None for the logins of all users.
        sort: a key of `SORTS`.
        page: number of the page, from 1.
    """

    user_id: UUID | None
    state: str | None = None
    provider_key: str | None = None
    sort: str = "created_at"
    descending: bool = True
    page: int = 1
    per_page: int = 50

    @property
    def parameters(self) -> dict[str, Any]:
        """What the logins are filtered by."""
        given = {"user_id": self.user_id, "provider_key": self.provider_key, "state": self.state}
        return {name: value for name, value in given.items() if value is not None}

    @property
    def filters(self) -> frozenset[str]:
        """Names of the columns that the logins are filtered by."""
        return frozenset(self.parameters)


def get(session: Session, *, provider_id: UUID) -> LoginRow:
    """One login.

    Raises:
        NotFound: there is none.
    """
    row = session.execute(_ONE, {"provider_id": provider_id}).one_or_none()
    if row is None:
        raise NotFound(f"no provider has the id {provider_id}")
    return LoginRow(*row)


def page(session: Session, *, query: LoginQuery) -> list[LoginRow]:
    """One page of logins."""
    rows, _ = _statements(query.filters, query.sort, descending=query.descending)
    limits = {"wanted": query.per_page, "skipped": (query.page - 1) * query.per_page}
    return [LoginRow(*row) for row in session.execute(rows, query.parameters | limits)]


def count(session: Session, *, query: LoginQuery) -> int:
    """The number of logins on all pages. It reads all of them: about 20 ms for 100,000."""
    _, total = _statements(query.filters, query.sort, descending=query.descending)
    return session.scalar(total, query.parameters) or 0


@cache
def _statements(filters: frozenset[str], sort: str, *, descending: bool) -> tuple[Select[Any], Select[Any]]:
    """The statements for a page and for the count. They are kept, since building them took as long as running them."""
    columns = {"user_id": Provider.user_id, "provider_key": Provider.provider_key, "state": _STATE}
    conditions = [columns[name] == bindparam(name) for name in sorted(filters)]
    order = SORTS[sort].desc() if descending else SORTS[sort].asc()
    rows = select(*_ROW).where(*conditions).order_by(order, Provider.id.desc())
    return (
        rows.limit(bindparam("wanted")).offset(bindparam("skipped")),
        select(func.count()).select_from(Provider).where(*conditions),
    )


def operator_user(session: Session) -> UUID:
    """The operator's own user. It is created on first use and has no e-mail address."""
    session.execute(insert(User).values(id=OPERATOR_USER).on_conflict_do_nothing())
    return OPERATOR_USER


def create(session: Session, *, provider_in: ProviderCreate, actor: str) -> LoginRow:
    """Creates a login, `pending` until it is linked.

    Raises:
        Taken: the user already has a login with this alias.
        NotFound: the user no longer exists.
    """
    _refuse_taken(session, user_id=provider_in.user_id, alias=provider_in.alias)
    provider = create_provider(session, provider_in=provider_in)
    audit.record(session, provider_id=provider.id, action="created", actor=actor)
    return get(session, provider_id=provider.id)


def rename(session: Session, *, provider_id: UUID, alias: str, actor: str) -> LoginRow:
    """Gives a login another alias. An authorisation that was begun for it stays valid.

    Raises:
        Taken: the user already has another login with this alias.
        NotFound: the login no longer exists.
    """
    take_turns_in_linking(session, provider_id)
    provider = session.get(Provider, provider_id)
    if provider is None:
        raise NotFound(f"no provider has the id {provider_id}")
    if provider.alias != alias:
        _refuse_taken(session, user_id=provider.user_id, alias=alias)
        session.execute(
            update(LinkState)
            .filter_by(user_id=provider.user_id, provider_key=provider.provider_key, alias=provider.alias)
            .values(alias=alias)
        )
        audit.record(session, provider_id=provider_id, action="renamed", actor=actor)
        provider.alias = alias
        session.flush()
    return get(session, provider_id=provider_id)


def remove(session: Session, *, provider_id: UUID, actor: str) -> None:
    """Deletes a login that is no longer linked, with all its rows; the audit log is kept.

    Raises:
        Refused: it has a token, so it was linked again in the meantime.
    """
    take_turns_in_linking(session, provider_id)
    if session.get(ProviderToken, provider_id) is not None:
        raise Refused("this login was linked anew meanwhile and was kept: remove it again")
    # A session that stayed would link a new login. One whose login turns out to be linked under another name stays.
    session.execute(delete(LinkSession).where(LinkSession.provider_id == provider_id), execution_options=_UNSYNCED)
    gone = session.execute(
        delete(Provider).where(Provider.id == provider_id).returning(*_NAMED), execution_options=_UNSYNCED
    ).one_or_none()
    if gone is not None:
        session.execute(delete(LinkState).filter_by(**gone._asdict()))
        audit.record(session, provider_id=provider_id, action="removed", actor=actor)


_NAMED = (Provider.user_id, Provider.provider_key, Provider.alias)
_UNSYNCED = {"synchronize_session": False}


def _refuse_taken(session: Session, *, user_id: UUID, alias: str) -> None:
    # The lock makes requests wait for each other: otherwise two at the same time would both find the alias free.
    if session.get(User, user_id, with_for_update=True) is None:
        raise NotFound(f"no user has the id {user_id}")
    taken = select(Provider.id).where(Provider.user_id == user_id, Provider.alias == alias)
    if session.scalar(select(taken.exists())):
        raise Taken("you have a login of this alias already; nothing was changed. Choose another alias")


def by_alias(session: Session, *, user_id: UUID, alias: str) -> list[LoginRow]:
    """The user's logins with this alias; different integrations may have one each."""
    found = select(*_ROW).where(Provider.user_id == user_id, Provider.alias == alias)
    return [LoginRow(*row) for row in session.execute(found)]

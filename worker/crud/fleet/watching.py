"""Read-only queries of the status page: pages of logins, with a search, and counts of one user's logins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import ColumnElement, func, or_, select
from sqlalchemy.orm import Session

from worker.crud.fleet.overview import provider_rows
from worker.models import Provider, User
from worker.models.fleet import ProviderRow

_MOST_USERS = 1000


@dataclass(frozen=True, slots=True)
class LoginsWanted:
    """Which logins a page shows, newest first.

    Attributes:
        user_id: the owner; None for the logins of all users.
        text: a part of the alias, the beginning of the owner's e-mail address (with @), or of the id; "" for all.
        before: the id of the last login of the page before this one.
    """

    user_id: UUID | None
    text: str = ""
    status: str | None = None
    provider_key: str | None = None
    before: UUID | None = None
    limit: int = 25


def logins(
    session: Session, *, wanted: LoginsWanted, first: UUID | None = None, last: UUID | None = None
) -> list[ProviderRow]:
    """One page of logins, and one login more if there is another page.

    Args:
        session: an open transaction.
        wanted: which ones.
        first: the lowest id that begins with `wanted.text`, when it can be the beginning of an id.
        last: the highest such id.
    """
    query = provider_rows().order_by(Provider.id.desc()).limit(wanted.limit + 1)
    if wanted.user_id is not None:
        query = query.where(Provider.user_id == wanted.user_id)
    if wanted.status is not None:
        query = query.where(Provider.status == wanted.status)
    if wanted.provider_key is not None:
        query = query.where(Provider.provider_key == wanted.provider_key)
    if wanted.before is not None:
        query = query.where(Provider.id < wanted.before)
    if "@" in wanted.text:
        query = query.where(Provider.user_id.in_(_users(session, wanted.text)))
    elif wanted.text:
        query = query.where(_matches(wanted.text, first, last))
    return [ProviderRow(*row) for row in session.execute(query)]


def statuses(session: Session, *, user_id: UUID) -> dict[str, int]:
    """How many logins of a user have which status."""
    query = select(Provider.status, func.count()).where(Provider.user_id == user_id).group_by(Provider.status)
    return {row[0]: row[1] for row in session.execute(query)}


def keys_of(session: Session, *, user_id: UUID) -> Sequence[str]:
    """The integrations that a user has logins of."""
    query = select(Provider.provider_key).where(Provider.user_id == user_id).distinct().order_by(Provider.provider_key)
    return session.scalars(query).all()


def _users(session: Session, text: str) -> Sequence[UUID]:
    query = select(User.id).where(User.email.startswith(text, autoescape=True)).limit(_MOST_USERS)
    return session.scalars(query).all()


def _matches(text: str, first: UUID | None, last: UUID | None) -> ColumnElement[bool]:
    # A search without regard to case costs four times as much. Aliases mostly begin with a capital letter.
    spellings = sorted({text, text[:1].upper() + text[1:]})
    found = [Provider.alias.contains(spelling, autoescape=True) for spelling in spellings]
    if first is not None and last is not None:
        found.append(Provider.id.between(first, last))
    return or_(*found)

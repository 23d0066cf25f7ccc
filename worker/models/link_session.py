"""The table of link sessions: each lets one person link one login on pages of ours, in one browser."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from worker.models.access import ApiKey
from worker.models.base import Base, CreatedAt, Id
from worker.models.provider import Provider
from worker.models.user import User
from worker.models.vocabulary import LinkSessionState

_STORED = (LinkSessionState.OPEN, LinkSessionState.LINKED, LinkSessionState.CANCELLED)


class LinkSession(Base):
    """A permission to link one login in a browser. It ends with the link, when the person cancels, or by itself.

    Attributes:
        token_hash: SHA-256 of the secret in the address of the page.
        browser_hash: SHA-256 of a secret that only the browser has which acted first; None until then.
        user_id: whose login it will be.
        provider_key: which integration; None: the person chooses.
        alias: what the new login will be called; None: the person says.
        provider_id: the login to link again or to renew; None: a new login.
        return_url: where the browser goes afterwards; None: the last page of ours is the end.
        asked_by: the name of who asks, which the pages show.
        key_id: the API key with which it was made. When that key is revoked, the session has expired, too.
        created_by: who made it, written as in the audit log.
        claimed_until: until when one request alone may complete it.
        status: `open`, `linked` or `cancelled`. That it has expired is not stored.
        linked_id: the login that was linked.
    """

    __tablename__ = "link_sessions"
    __table_args__ = (CheckConstraint("status IN ({})".format(", ".join(f"'{s}'" for s in _STORED)), name="status"),)

    id: Mapped[Id]
    token_hash: Mapped[bytes] = mapped_column(unique=True)
    browser_hash: Mapped[bytes | None]
    user_id: Mapped[UUID] = mapped_column(ForeignKey(User.id, ondelete="CASCADE"), index=True)
    provider_key: Mapped[str | None]
    alias: Mapped[str | None]
    provider_id: Mapped[UUID | None] = mapped_column(ForeignKey(Provider.id, ondelete="SET NULL"), index=True)
    return_url: Mapped[str | None]
    asked_by: Mapped[str]
    key_id: Mapped[UUID | None] = mapped_column(ForeignKey(ApiKey.id, ondelete="CASCADE"), index=True)
    created_by: Mapped[str]
    created_at: Mapped[CreatedAt]
    expires_at: Mapped[datetime] = mapped_column(index=True)
    claimed_until: Mapped[datetime | None]
    status: Mapped[str] = mapped_column(default=LinkSessionState.OPEN)
    linked_id: Mapped[UUID | None] = mapped_column(ForeignKey(Provider.id, ondelete="SET NULL"), index=True)


@dataclass(frozen=True, slots=True)
class NewLinkSession:
    """The values of a new link session; see `LinkSession`."""

    user_id: UUID
    provider_key: str | None
    alias: str | None
    provider_id: UUID | None
    return_url: str | None
    asked_by: str
    key_id: UUID | None
    created_by: str


@dataclass(frozen=True, slots=True)
class LinkSessionRow:
    """One link session as it is read; see `LinkSession`.

    Attributes:
        state: a value of `LinkSessionState`.
        user: the e-mail address of its user; None if the user has none.
    """

    id: UUID
    token_hash: bytes = field(repr=False)
    browser_hash: bytes | None = field(repr=False)
    user_id: UUID
    user: str | None
    provider_key: str | None
    alias: str | None
    provider_id: UUID | None
    return_url: str | None
    asked_by: str
    created_by: str
    created_at: datetime
    expires_at: datetime
    state: str
    linked_id: UUID | None

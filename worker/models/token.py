"""Tables of the providers' OAuth tokens (encrypted), refresh attempts, waiting answers, revocations and link states."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import ForeignKey, Index, func
from sqlalchemy.orm import Mapped, mapped_column

from worker.models.base import Base, CreatedAt, Id
from worker.models.provider import Provider
from worker.models.user import User
from worker.models.vocabulary import AttemptStatus, Trigger


class ProviderToken(Base):
    """The current token of one provider. Every write is fenced by `generation` and, in a refresh, also by the lease.

    Attributes:
        access_token: Fernet ciphertext bound to provider, kind and generation.
        refresh_token: the same; None when tokens of this integration are not refreshed.
        key_id: which encryption key wrote both.
        generation: increases by one with every stored rotation.
        lifetime_s: lifetime of the access token in seconds, as the provider answered, or the default.
        issued_at: when this generation was stored.
        lease_owner, lease_until: which process may refresh it now, and until when.
    """

    __tablename__ = "provider_tokens"
    __table_args__ = (
        Index("ix_provider_tokens_key_id", "key_id"),
        {"postgresql_with": {"fillfactor": 70}},
    )

    provider_id: Mapped[UUID] = mapped_column(ForeignKey(Provider.id, ondelete="CASCADE"), primary_key=True)
    access_token: Mapped[str]
    refresh_token: Mapped[str | None]
    key_id: Mapped[str]
    generation: Mapped[int] = mapped_column(default=1)
    scope: Mapped[str | None]
    lifetime_s: Mapped[int | None]
    issued_at: Mapped[datetime]
    lease_owner: Mapped[UUID | None]
    lease_until: Mapped[datetime | None]


class TokenRefresh(Base):
    """One attempt to refresh. The row is written before the call.

    Attributes:
        generation: generation of the refresh token that was presented.
        error: kind of error (`worker.errors`); `reason` has the detail.
        lease_owner: the lease under which it was sent.
        spool_id: the spool in which its answer waits if neither Postgres nor Redis can store it.
    """

    __tablename__ = "token_refreshes"
    __table_args__ = (
        Index("ix_token_refreshes_provider", "provider_id", "started_at"),
        # How often the present generation was presented without a known outcome: twice at most.
        Index(
            "ix_token_refreshes_open",
            "provider_id",
            "generation",
            postgresql_where="status IN ('sent', 'unknown')",
        ),
        Index("ix_token_refreshes_started", "started_at"),
    )

    id: Mapped[Id]
    provider_id: Mapped[UUID] = mapped_column(ForeignKey(Provider.id, ondelete="CASCADE"))
    generation: Mapped[int]
    status: Mapped[str] = mapped_column(default=AttemptStatus.SENT)
    trigger: Mapped[str] = mapped_column(default=Trigger.SCHEDULE)
    error: Mapped[str | None]
    reason: Mapped[str | None]
    lease_owner: Mapped[UUID]
    spool_id: Mapped[UUID | None]
    started_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]


class Revocation(Base):
    """A grant that we no longer use. Its provider has not yet confirmed that it has ended.

    Attributes:
        provider_id: the login that it belonged to. Without a foreign key: at the provider the consent still exists when
            our row is deleted.
        external_id: the provider's own id of the login; the grant is not revoked while a link has that login. Of a
            grant that came for a token that works once: by what it is found again if that token is entered again.
        reason: `replaced`, `unlinked` or `abandoned`.
        generation: the ciphertexts are bound to it, besides provider and kind.
        attempts: how often revoking was tried.
        due_at: when it is next tried.
    """

    __tablename__ = "revocations"

    id: Mapped[Id]
    provider_id: Mapped[UUID] = mapped_column(index=True)
    provider_key: Mapped[str]
    external_id: Mapped[str | None]
    reason: Mapped[str]
    generation: Mapped[int]
    access_token: Mapped[str]
    refresh_token: Mapped[str | None]
    key_id: Mapped[str]
    attempts: Mapped[int] = mapped_column(default=0, server_default="0")
    error: Mapped[str | None]
    due_at: Mapped[datetime] = mapped_column(server_default=func.now(), index=True)
    created_at: Mapped[CreatedAt]


class Spool(Base):
    """A directory on one host in which answers may wait. Other hosts cannot read it.

    Attributes:
        seen_at: when a worker of that host last reported what waits in it.
        asked_at: since when another host has waited for such a report; None when none waits.
    """

    __tablename__ = "spools"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    seen_at: Mapped[datetime]
    asked_at: Mapped[datetime | None]


class SpooledAnswer(Base):
    """An answer that waits in a spool. While it waits, no worker presents the token that it answers.

    Attributes:
        generation: generation of the token that was presented.
        key_id: which encryption key wrote it.
    """

    __tablename__ = "spooled_answers"
    __table_args__ = (Index("ix_spooled_answers_provider", "provider_id", "generation"),)

    spool_id: Mapped[UUID] = mapped_column(ForeignKey("spools.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    provider_id: Mapped[UUID]
    generation: Mapped[int]
    key_id: Mapped[str]


class LinkState(Base):
    """An authorisation that a user has begun. It can be used once, and it expires.

    Attributes:
        state_hash: SHA-256 of the OAuth `state`; the state itself is never stored.
        holder_hash: SHA-256 of a secret that only the browser or process which began it has. None: begun by an
            older release.
        code_verifier: ciphertext of the PKCE code verifier (RFC 7636), which binds the code exchange to this
            authorisation; None without PKCE.
        session_id: the link session that it belongs to; None if it was begun without one. It has no foreign key,
            because it lives only for minutes.
    """

    __tablename__ = "link_states"

    state_hash: Mapped[bytes] = mapped_column(primary_key=True)
    user_id: Mapped[UUID] = mapped_column(ForeignKey(User.id, ondelete="CASCADE"))
    provider_key: Mapped[str]
    alias: Mapped[str]
    holder_hash: Mapped[bytes | None]
    code_verifier: Mapped[str | None]
    session_id: Mapped[UUID | None]
    expires_at: Mapped[datetime] = mapped_column(index=True)

"""The provider's OAuth credential, encrypted, and what was attempted with it."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import ForeignKey, Index, func
from sqlalchemy.orm import Mapped, mapped_column

from worker.models.base import Base, CreatedAt, Id
from worker.models.vocabulary import AttemptStatus, Trigger


class ProviderToken(Base):
    """The current token of one provider. Every write is fenced by `generation` and, in a refresh, by the lease.

    Attributes:
        access_token: Fernet ciphertext bound to provider, kind and generation.
        refresh_token: the same; None when the integration has no refresh.
        key_id: which encryption key wrote both.
        generation: rises by one at every stored rotation.
        lifetime_s: seconds that the access token was given, as answered or by default.
        issued_at: when this generation was stored.
        lease_owner, lease_until: who may refresh it just now.
    """

    __tablename__ = "provider_tokens"
    __table_args__ = (
        Index("ix_provider_tokens_key_id", "key_id"),
        {"postgresql_with": {"fillfactor": 70}},
    )

    provider_id: Mapped[UUID] = mapped_column(ForeignKey("providers.id", ondelete="CASCADE"), primary_key=True)
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
    """One attempt to refresh, written before the call.

    Attributes:
        generation: the one whose refresh token was presented.
        error: kind of error (`worker.errors`), with `reason` its detail.
        lease_owner: the lease under which it was sent.
        spool_id: where its answer waits if neither Postgres nor Redis takes it.
    """

    __tablename__ = "token_refreshes"
    __table_args__ = (
        Index("ix_token_refreshes_provider", "provider_id", "started_at"),
        # How often the present generation was presented without a known outcome: at most twice.
        Index(
            "ix_token_refreshes_open",
            "provider_id",
            "generation",
            postgresql_where="status IN ('sent', 'unknown')",
        ),
        Index("ix_token_refreshes_started", "started_at"),
    )

    id: Mapped[Id]
    provider_id: Mapped[UUID] = mapped_column(ForeignKey("providers.id", ondelete="CASCADE"))
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
    """A grant that nothing here uses any more and that its provider has not yet confirmed to have ended.

    Attributes:
        provider_id: whose it was; no foreign key: a consent lives on at its provider when the row here is gone.
        external_id: the provider's own id of the login; it is not revoked while a link has that login.
        reason: `replaced`, `unlinked` or `abandoned`.
        generation: what the ciphertexts are bound to, beside provider and kind.
        attempts: how often it was tried.
        due_at: when it is tried next.
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
    """A directory of one host in which answers may wait that no other host can see.

    Attributes:
        seen_at: when a worker there last told what waits in it.
        asked_at: since when another host waits to be told.
    """

    __tablename__ = "spools"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    seen_at: Mapped[datetime]
    asked_at: Mapped[datetime | None]


class SpooledAnswer(Base):
    """An answer that waits in a spool: nobody else presents the token that it answers.

    Attributes:
        generation: the one that was presented.
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
    """An authorisation that a user has begun: single use, expiring.

    Attributes:
        state_hash: SHA-256 of the OAuth `state`; the state itself is never stored.
        holder_hash: the same of a secret that only who began it has; None where an older release began it.
        code_verifier: ciphertext of the secret that ties the consent to the exchange (RFC 7636); None without one.
    """

    __tablename__ = "link_states"

    state_hash: Mapped[bytes] = mapped_column(primary_key=True)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    provider_key: Mapped[str]
    alias: Mapped[str]
    holder_hash: Mapped[bytes | None]
    code_verifier: Mapped[str | None]
    expires_at: Mapped[datetime] = mapped_column(index=True)

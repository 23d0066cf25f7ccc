"""The table of providers: each row is one user's linked login at one institution, and when it is due."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, field_validator
from sqlalchemy import CheckConstraint, ForeignKey, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from worker.models.base import Base, CreatedAt, Id
from worker.models.user import User
from worker.models.vocabulary import ProviderStatus
from worker.text.plain_text import visible


class Provider(Base):
    """A linked login. Everything is refreshed and synced per provider.

    Attributes:
        external_id: the provider's own id of the login (Plaid: item_id), when there is one.
        connected_at: when its user last linked it; None if an older release, without this column, linked it.
        status_reason: why the status is what it is, in a stable word such as `lost_rotation`.
        access_expires_at: when the stored access token expires; None when it does not expire.
        grant_expires_at: when the user's consent ends; a refresh never moves it.
        refresh_due_at: when a tick next dispatches a refresh; claims and backoff move it ahead. None: never.
        sync_due_at: the same for a sync.
        refresh_claimed_until: `refresh_due_at` as the last claim set it; equal to it as long as the claim stands.
        refresh_wanted_at: since when the claimed refresh was due.
        sync_claimed_until, sync_wanted_at: the same for a sync.
        refresh_not_before: no refresh is sent before this time. Set by the backoff after a failure, or to the time that
            the provider named.
        last_generation: generation of the token that the last unlinking deleted; a new link counts on from it.
        sync_interval: seconds between its syncs; None means the setting `SYNC_INTERVAL`.
        hooked_at: when the last hook about new data came.
        hook_gap: usual number of seconds between two such hooks; None until two have come.
        hook_sync_at: when the sync that the last such hooks ask for is due.
        hook_url: the address for hooks that the provider was found to have.
    """

    __tablename__ = "providers"
    __table_args__ = (
        UniqueConstraint("user_id", "provider_key", "alias"),
        Index(
            "uq_providers_external_id",
            "provider_key",
            "external_id",
            unique=True,
            postgresql_where="external_id IS NOT NULL",
        ),
        CheckConstraint(
            "status IN ({})".format(", ".join(f"'{s}'" for s in ProviderStatus)),
            name="status",
        ),
        CheckConstraint("sync_interval > 0", name="sync_interval"),
        Index(
            "ix_providers_grant_expires",
            "grant_expires_at",
            postgresql_where="status = 'active' AND grant_expires_at IS NOT NULL",
        ),
        Index("ix_providers_not_active", "status", "provider_key", postgresql_where="status <> 'active'"),
        # Claims, refreshes and syncs update these rows all day. Free room on each page spares the indexes an update, as
        # long as no indexed column changes; therefore these times have their indexes in `due_times`.
        {"postgresql_with": {"fillfactor": 70}},
    )

    id: Mapped[Id]
    user_id: Mapped[UUID] = mapped_column(ForeignKey(User.id, ondelete="CASCADE"))
    provider_key: Mapped[str]
    alias: Mapped[str]
    external_id: Mapped[str | None]
    status: Mapped[str] = mapped_column(default=ProviderStatus.PENDING)
    status_reason: Mapped[str | None]
    created_at: Mapped[CreatedAt]
    connected_at: Mapped[datetime | None]

    access_expires_at: Mapped[datetime | None]
    grant_expires_at: Mapped[datetime | None]
    refreshed_at: Mapped[datetime | None]
    refresh_due_at: Mapped[datetime | None]
    refresh_claimed_until: Mapped[datetime | None]
    refresh_wanted_at: Mapped[datetime | None]
    refresh_failures: Mapped[int] = mapped_column(default=0, server_default="0")
    refresh_not_before: Mapped[datetime | None]
    last_generation: Mapped[int] = mapped_column(default=0, server_default="0")

    synced_at: Mapped[datetime | None]
    sync_due_at: Mapped[datetime | None]
    sync_claimed_until: Mapped[datetime | None]
    sync_wanted_at: Mapped[datetime | None]
    sync_interval: Mapped[int | None]
    sync_failures: Mapped[int] = mapped_column(default=0, server_default="0")

    hooked_at: Mapped[datetime | None]
    hook_gap: Mapped[int | None]
    hook_sync_at: Mapped[datetime | None]
    hook_url: Mapped[str | None]


class DueTime(Base):
    """When an active login is next due. A claim finds it here; the time itself is that of the login's own row.

    Triggers of `providers` keep this table. Nothing of it is written to WAL, and Postgres empties it after a crash; see
    `worker.crud.due_times`, which also has a row here that says whether the table is complete.

    Attributes:
        kind: `refresh` or `sync`.
        access_expires_at: for `refresh`: when the access token expires.
    """

    __tablename__ = "due_times"
    __table_args__ = (
        # A tick claims per integration, earliest first.
        Index("ix_due_times_due", "kind", "provider_key", "due_at"),
        Index("ix_due_times_access_expires", "access_expires_at", postgresql_where="access_expires_at IS NOT NULL"),
        {"prefixes": ["UNLOGGED"], "postgresql_with": {"fillfactor": 70}},
    )

    provider_id: Mapped[UUID] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(primary_key=True)
    provider_key: Mapped[str]
    due_at: Mapped[datetime]
    access_expires_at: Mapped[datetime | None]


class ProviderCreate(BaseModel):
    """The input that creates a provider. A provider is `pending` until it is linked."""

    model_config = ConfigDict(extra="forbid")

    user_id: UUID
    provider_key: str = Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")
    alias: str = Field(min_length=1, max_length=100)

    @field_validator("alias")
    @classmethod
    def _readable(cls, value: str) -> str:
        if not value.strip() or visible(value) != value:
            raise ValueError("must have at least one visible character, and no invisible ones")
        return value

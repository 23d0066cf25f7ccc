"""Tables of the account sync: runs, cursors, undo, rows met by a full sync, quarantine."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Column, ForeignKey, Index, Table, UniqueConstraint, Uuid
from sqlalchemy.orm import Mapped, mapped_column

from worker.models.base import Base, CreatedAt, Id
from worker.models.provider import Provider
from worker.models.vocabulary import RunStatus


class SyncRun(Base):
    """One sync of one provider.

    Attributes:
        owner: the process that runs it. Every page is written under the condition `status = 'running' AND owner = …`.
            None in a run that repeats another one, which is stored only when it has ended; so is `heartbeat_at`.
        heartbeat_at: set to the current time by every page. A run with an old heartbeat is taken over.
        counts: rows per noun and outcome, `{"transactions": {"added": 3, "unchanged": 497, …}, …}`.
        cancel_requested: the run is asked to stop after its present page.
        reading_id: of a full sync: names the rows that it has met. A run that continues this full sync has the same
            one. The column has the name that releases up to 0.2 use.
        renews: a person asked for this full sync.
        reading_since: when one run did not have the time for all feeds, further runs read the rest. This is when the
            first of these runs began; the next run reads only the feeds that none of them has read to the end. None
            after a run that has read all.
        since: the day back to which such a run was asked to read the feeds by date; the next run reads back to the same
            day.
        cursor_before, cursor_after: each feed's cursor.
        answers: digests of what the provider answered (`worker.integrations.kit.heard`), if the run read everything and
            found every row as it was stored. If the next run hears the same answers, it has nothing to store.
        repeats: the run whose answers this run has heard again. The row of such a run has no counts by noun, no cursors
            and no answers of its own: they are those of the run that it repeats.
    """

    __tablename__ = "sync_runs"
    __table_args__ = (
        Index("uq_sync_runs_running", "provider_id", unique=True, postgresql_where="status = 'running'"),
        Index("ix_sync_runs_provider", "provider_id", "started_at"),
        Index("ix_sync_runs_started", "started_at"),
        # The second version of a row finds place beside the first one, so only what differs is written to WAL.
        {"postgresql_with": {"fillfactor": 70}},
    )

    id: Mapped[Id]
    provider_id: Mapped[UUID] = mapped_column(ForeignKey(Provider.id, ondelete="CASCADE"))
    status: Mapped[str] = mapped_column(default=RunStatus.RUNNING)
    trigger: Mapped[str]
    mode: Mapped[str] = mapped_column(default="incremental", server_default="incremental")
    owner: Mapped[UUID | None]
    started_at: Mapped[datetime]
    heartbeat_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    cancel_requested: Mapped[bool] = mapped_column(default=False, server_default="false")
    pages: Mapped[int] = mapped_column(default=0, server_default="0")
    added: Mapped[int] = mapped_column(default=0, server_default="0")
    changed: Mapped[int] = mapped_column(default=0, server_default="0")
    unchanged: Mapped[int] = mapped_column(default=0, server_default="0")
    removed: Mapped[int] = mapped_column(default=0, server_default="0")
    quarantined: Mapped[int] = mapped_column(default=0, server_default="0")
    counts: Mapped[dict[str, Any]] = mapped_column(default=dict, server_default="{}")
    reading_id: Mapped[UUID | None] = mapped_column("generation")
    renews: Mapped[bool] = mapped_column(default=False, server_default="false")
    reading_since: Mapped[datetime | None]
    since: Mapped[date | None]
    answers: Mapped[bytes | None]
    repeats: Mapped[UUID | None]
    cursor_before: Mapped[dict[str, Any] | None]
    cursor_after: Mapped[dict[str, Any] | None]
    error: Mapped[str | None]
    error_scope: Mapped[str | None]
    error_reason: Mapped[str | None]
    problems: Mapped[dict[str, Any] | None]


class UnsettledRun(Base):
    """A run asked for by the schedule, of which it is not known yet whether it repeats the last one.

    It has stored nothing so far. When this is known, the row is replaced by one in `sync_runs` with the same id.
    Nothing of this table is written to WAL, and Postgres empties it after a crash; `worker.crud.sync.unsettled` says
    what follows from that.
    """

    __tablename__ = "unsettled_runs"
    __table_args__ = ({"prefixes": ["UNLOGGED"]},)

    provider_id: Mapped[UUID] = mapped_column(primary_key=True)  # a foreign key would write locks of `providers` to WAL
    id: Mapped[UUID]
    owner: Mapped[UUID]
    started_at: Mapped[datetime]
    heartbeat_at: Mapped[datetime]
    cancel_requested: Mapped[bool] = mapped_column(default=False, server_default="false")


class SyncCursor(Base):
    """An opaque position in one feed of a provider, committed with the rows that it covers.

    Attributes:
        feed: `transactions`, `account:<provider's account id>`, … as the integration names it.
        loop_cursor: the cursor at which the present loop began ("" is the beginning of the feed); None between loops.
        loop_id: names the present loop; None between loops.
    """

    __tablename__ = "sync_cursors"

    provider_id: Mapped[UUID] = mapped_column(ForeignKey(Provider.id, ondelete="CASCADE"), primary_key=True)
    feed: Mapped[str] = mapped_column(primary_key=True)
    cursor: Mapped[str]
    loop_cursor: Mapped[str | None]
    loop_id: Mapped[UUID | None]
    updated_at: Mapped[datetime]


class SyncUndo(Base):
    """A transaction as it was before a loop first changed it. When the loop restarts, this state is restored.

    Attributes:
        provider_id: None if a worker of an older release wrote the row.
    """

    __tablename__ = "sync_undo"

    provider_id: Mapped[UUID | None] = mapped_column(ForeignKey(Provider.id, ondelete="CASCADE"))
    loop_id: Mapped[UUID] = mapped_column(primary_key=True)
    transaction_id: Mapped[UUID] = mapped_column(primary_key=True)
    before: Mapped[dict[str, Any]]
    created_at: Mapped[CreatedAt]


# Transactions that a full sync has met so far; the others are withdrawn when it ends. The same transaction may be here
# more than once. The rows that an open loop has added are deleted when the loop is restarted.
sync_seen = Table(
    "sync_seen",
    Base.metadata,
    Column("provider_id", Uuid, ForeignKey(Provider.id, ondelete="CASCADE")),
    Column("generation", Uuid, nullable=False, index=True, key="reading_id"),  # column name of releases up to 0.2
    Column("transaction_id", Uuid, nullable=False),
    Column("loop_id", Uuid),
)


class Quarantine(Base):
    """A record that could not be trusted, with the reason. Every such record is stored here.

    Attributes:
        fingerprint: of kind, key and content, so that reading the same record again adds no second row.
        payload: the record with secrets and account numbers masked.
    """

    __tablename__ = "quarantine"
    __table_args__ = (
        UniqueConstraint("provider_id", "fingerprint"),
        Index("ix_quarantine_open", "provider_id", postgresql_where="resolved_at IS NULL"),
        Index("ix_quarantine_created", "created_at"),
    )

    id: Mapped[Id]
    provider_id: Mapped[UUID] = mapped_column(ForeignKey(Provider.id, ondelete="CASCADE"))
    run_id: Mapped[UUID | None]
    kind: Mapped[str]
    account_key: Mapped[str | None]
    record_key: Mapped[str | None]
    reason: Mapped[str]
    detail: Mapped[str | None]
    payload: Mapped[dict[str, Any] | None]
    fingerprint: Mapped[bytes]
    created_at: Mapped[CreatedAt]
    resolved_at: Mapped[datetime | None]
    resolution: Mapped[str | None]

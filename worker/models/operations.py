"""Tables that operators read and change: audit log, dead letters, states of integrations, quotas, notices."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, Text, UniqueConstraint
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from worker.models.base import Base, CreatedAt, Id
from worker.models.provider import Provider


class ProviderAuditLog(Base):
    """One row per state change. Insert-only: a trigger numbers the rows of each provider and hash-chains them.

    Attributes:
        seq: position in the provider's chain, from 1; set by the database.
        prev_hash, hash: SHA-256 chain; set by the database.
        actor: `system`, `user` or `operator:<name>`.
        provider_id: no foreign key: the log outlives the provider. An API key has a chain of its own, under its id.
    """

    __tablename__ = "provider_audit_logs"
    __table_args__ = (UniqueConstraint("provider_id", "seq"),)

    id: Mapped[Id]
    provider_id: Mapped[UUID]
    seq: Mapped[int | None] = mapped_column(BigInteger)
    action: Mapped[str]
    actor: Mapped[str]
    reason: Mapped[str | None]
    task_id: Mapped[str | None]
    detail: Mapped[dict[str, Any] | None]
    created_at: Mapped[CreatedAt]
    prev_hash: Mapped[bytes | None]
    hash: Mapped[bytes | None]


class TaskDelivery(Base):
    """How often one task message was delivered without being finished; the row is deleted when the task ends."""

    __tablename__ = "task_deliveries"

    task_id: Mapped[str] = mapped_column(primary_key=True)
    deliveries: Mapped[int] = mapped_column(default=1)
    first_at: Mapped[CreatedAt]


class TaskFailure(Base):
    """A dead letter: a task whose attempts are used up, or that killed its worker too often."""

    __tablename__ = "task_failures"
    __table_args__ = (Index("ix_task_failures_open", "created_at", postgresql_where="resolved_at IS NULL"),)

    id: Mapped[Id]
    task_id: Mapped[str]
    task_name: Mapped[str]
    arguments: Mapped[dict[str, Any]]
    reason: Mapped[str]
    deliveries: Mapped[int]
    created_at: Mapped[CreatedAt]
    resolved_at: Mapped[datetime | None]
    resolution: Mapped[str | None]


class IntegrationState(Base):
    """Kill switch and circuit breaker of one integration.

    Attributes:
        paused_at: set when an operator pauses it, or when the provider refuses our client credentials.
        breaker: `closed`, `open` or `half_open`.
        failures: consecutive failures of the integration as a whole.
        failing: the first few logins that these failures came from; failures of one login alone open no breaker.
        alarm: why only the operator can repair it; cleared by a resume.
        probe_at: when an open breaker lets one probe through.
        refused: logins whose call was refused by an answer that does not say whether the login or our application is
            the cause, as `<kind of call>:<login>`.
        refused_since: when the first of these refusals was.
    """

    __tablename__ = "integration_states"

    provider_key: Mapped[str] = mapped_column(primary_key=True)
    paused_at: Mapped[datetime | None]
    paused_reason: Mapped[str | None]
    paused_by: Mapped[str | None]
    breaker: Mapped[str] = mapped_column(default="closed", server_default="closed")
    failures: Mapped[int] = mapped_column(default=0, server_default="0")
    opened_at: Mapped[datetime | None]
    failing: Mapped[list[str]] = mapped_column(ARRAY(Text), default=list, server_default="{}")
    probe_at: Mapped[datetime | None]
    alarm: Mapped[str | None]
    alarm_at: Mapped[datetime | None]
    refused: Mapped[list[str]] = mapped_column(ARRAY(Text), default=list, server_default="{}")
    refused_since: Mapped[datetime | None]


class QuotaDay(Base):
    """How much of a daily quota is used. Stored in Postgres, so that the count survives the loss of Redis's data."""

    __tablename__ = "quota_days"

    provider_key: Mapped[str] = mapped_column(primary_key=True)
    bucket: Mapped[str] = mapped_column(primary_key=True)
    day: Mapped[date] = mapped_column(primary_key=True)
    used: Mapped[int]


class Notice(Base):
    """A message to a user or operator: one for each provider, grant, stage and channel.

    Attributes:
        provider_id: the login that the message to a user is about; None for a message to the operator.
        provider_key: the integration that the message to the operator is about; None for a message to a user.
        stage: `expires_72h`, `expires_24h`, `expires_2h`, `expired`, `needs_reauth`, `disconnects_soon`,
            `new_accounts`, `accounts_need_user`, `app_misconfigured`.
        subject_key: which grant or event it belongs to, so that there are new warnings for the next grant.
        due_at: when it is next tried; None when it was sent or given up.
    """

    __tablename__ = "notices"
    __table_args__ = (
        UniqueConstraint("provider_id", "subject_key", "stage", "channel"),
        Index(
            "uq_notices_operator",
            "provider_key",
            "subject_key",
            "stage",
            "channel",
            unique=True,
            postgresql_where="provider_id IS NULL",
        ),
        CheckConstraint("(provider_id IS NULL) <> (provider_key IS NULL)", name="one_subject"),
        Index("ix_notices_due", "due_at", postgresql_where="sent_at IS NULL AND due_at IS NOT NULL"),
        Index("ix_notices_created", "created_at"),
    )

    id: Mapped[Id]
    provider_id: Mapped[UUID | None] = mapped_column(ForeignKey(Provider.id, ondelete="CASCADE"))
    provider_key: Mapped[str | None]
    subject_key: Mapped[str]
    stage: Mapped[str]
    channel: Mapped[str]
    due_at: Mapped[datetime | None]
    attempts: Mapped[int] = mapped_column(default=0, server_default="0")
    last_error: Mapped[str | None]
    sent_at: Mapped[datetime | None]
    created_at: Mapped[CreatedAt]


class Heartbeat(Base):
    """When a tick last ran to its end: one row for each tick name."""

    __tablename__ = "heartbeats"

    name: Mapped[str] = mapped_column(primary_key=True)
    at: Mapped[datetime]
    detail: Mapped[dict[str, Any] | None]

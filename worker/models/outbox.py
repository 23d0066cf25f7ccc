"""Hooks that we send: who wants which events, and what waits to be sent to whom."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, ForeignKey, Index, Text, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from worker.models.base import Base, CreatedAt, Id
from worker.models.user import User


class Subscription(Base):
    """An address to which events are posted.

    Attributes:
        user_id: whose events it is told of; None: all users' and those of integrations.
        url: the receiver's address.
        events: words of `EventType`.
        secret, old_secret: ciphertexts of the secrets that sign; the old one signs, too, until `old_secret_until`.
        key_id: the encryption key of both.
        generation: version of the secret, from 1; both ciphertexts are bound to it.
        created_by, disabled_by: who did it, written as in the audit log; `receiver` if it answered 410 Gone.
        failures: failed deliveries since the last one that was received.
        failing_since: when the first of these was.
        wait_until: until when nothing is sent to it, because it fails or has asked for a pause.
        last_sent_at: when a delivery was last received, to the minute.
    """

    __tablename__ = "hook_subscriptions"

    id: Mapped[Id]
    user_id: Mapped[UUID | None] = mapped_column(ForeignKey(User.id, ondelete="CASCADE"), index=True)
    url: Mapped[str]
    description: Mapped[str]
    events: Mapped[list[str]] = mapped_column(ARRAY(Text))
    secret: Mapped[str]
    old_secret: Mapped[str | None]
    old_secret_until: Mapped[datetime | None]
    key_id: Mapped[str]
    generation: Mapped[int] = mapped_column(default=1, server_default="1")
    created_at: Mapped[CreatedAt]
    created_by: Mapped[str]
    disabled_at: Mapped[datetime | None]
    disabled_by: Mapped[str | None]
    failures: Mapped[int] = mapped_column(default=0, server_default="0")
    failing_since: Mapped[datetime | None]
    wait_until: Mapped[datetime | None]
    last_sent_at: Mapped[datetime | None]
    last_error: Mapped[str | None]


class Delivery(Base):
    """One event on its way to one subscription; written in the transaction that made the event true.

    There are no foreign keys: an event outlives its login, and a key to the subscription would lock its row in the
    transaction of every sync. Deliveries without a subscription are never sent, and are deleted with the old ones.

    Attributes:
        event_id: the same for all subscriptions, and at each attempt: receivers recognise a repeat by it.
        type: a word of `EventType`.
        provider_id: the login; None for events of integrations.
        data: ids, counts, words and a cursor; no token, no account number, no amount.
        xid: the transaction that wrote it. It is sent when no older transaction is open any more: only then does the
            change feed show what the event is about.
        due_at: when it is next tried; None when it was received or parked.
        attempts: number of attempts that were begun.
        parked_at: when it was given up; it is kept until it is replayed or is too old.
        status: HTTP status of the last answer.
    """

    __tablename__ = "outbox"
    __table_args__ = (
        Index("ix_outbox_due", "subscription_id", "due_at", postgresql_where="due_at IS NOT NULL"),
        Index("ix_outbox_parked", "subscription_id", "parked_at", postgresql_where="parked_at IS NOT NULL"),
        Index("ix_outbox_created", "created_at"),
    )

    event_id: Mapped[UUID] = mapped_column(primary_key=True)
    subscription_id: Mapped[UUID] = mapped_column(primary_key=True)
    type: Mapped[str]
    provider_id: Mapped[UUID | None]
    data: Mapped[dict[str, Any]]
    xid: Mapped[int] = mapped_column(
        BigInteger, server_default=text("CAST(CAST(pg_current_xact_id() AS text) AS bigint)")
    )
    created_at: Mapped[CreatedAt]
    due_at: Mapped[datetime | None]
    attempts: Mapped[int] = mapped_column(default=0, server_default="0")
    sent_at: Mapped[datetime | None]
    parked_at: Mapped[datetime | None]
    status: Mapped[int | None]
    last_error: Mapped[str | None]


@dataclass(frozen=True, slots=True)
class SubscriptionRow:
    """One subscription as lists show it, without its secrets.

    Attributes:
        user: the user's e-mail address.
        waiting: number of deliveries that wait to be sent, up to 100,000; `parked` the same for those given up.
        oldest_waiting_at: time of the first event that waits.
    """

    id: UUID
    user_id: UUID | None
    user: str | None
    url: str
    description: str
    events: list[str]
    created_at: datetime
    created_by: str
    disabled_at: datetime | None
    disabled_by: str | None
    old_secret_until: datetime | None
    failing_since: datetime | None
    wait_until: datetime | None
    last_sent_at: datetime | None
    last_error: str | None
    waiting: int
    parked: int
    oldest_waiting_at: datetime | None


@dataclass(frozen=True, slots=True)
class DeliveryRow:
    """One delivery as lists show it."""

    event_id: UUID
    type: str
    provider_id: UUID | None
    created_at: datetime
    due_at: datetime | None
    attempts: int
    sent_at: datetime | None
    parked_at: datetime | None
    status: int | None
    last_error: str | None

    @property
    def state(self) -> str:
        """`received`, `parked` or `waiting`."""
        return "received" if self.sent_at else "parked" if self.parked_at else "waiting"


@dataclass(frozen=True, slots=True, repr=False)
class Secrets:
    """The sealed secrets of a subscription, as stored."""

    subscription_id: UUID
    generation: int
    key_id: str
    secret: str
    old_secret: str | None
    old_secret_until: datetime | None


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A claimed delivery, with all that is needed to send it.

    Attributes:
        attempts: number of this attempt, from 1.
    """

    event_id: UUID
    type: str
    data: dict[str, Any]
    created_at: datetime
    attempts: int
    url: str
    secrets: Secrets


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempted:
    """How an attempt at a delivery ended.

    Attributes:
        received: the receiver answered 2xx.
        retry_at: when it is tried again; None if it was received, or is given up.
        pause_until: until when the receiver wants no deliveries at all.
        gone: the receiver answered 410: it wants no more deliveries.
        error: what happened, in words; None if it was received.
    """

    event_id: UUID
    subscription_id: UUID
    at: datetime
    received: bool
    status: int | None = None
    retry_at: datetime | None = None
    pause_until: datetime | None = None
    gone: bool = False
    error: str | None = None

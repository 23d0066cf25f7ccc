"""Hooks of providers: what one asks for, which ones were received, and whose state is to be asked for.

A hook is a hint: nothing of it is stored as data of a login.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from worker.models.base import Base, CreatedAt
from worker.models.provider import Provider


class Ask(StrEnum):
    """What a hook asks us to do."""

    SYNC = "sync"  # the provider has new data: the login's sync is due
    CHECK = "check"  # the state of the login may have changed: ask the provider for it


@dataclass(frozen=True, slots=True)
class Hook:
    """One hook whose signature is right.

    Attributes:
        kind: the provider's own words for it, for example `TRANSACTIONS/SYNC_UPDATES_AVAILABLE`.
        delivery_id: by which a second delivery of the same hook is recognised.
        login: the provider's own id of the login (`providers.external_id`); None if it concerns no single login.
        asks: what it asks for; empty if there is nothing to do.
        is_known: False for a kind that the integration does not know.
        is_ours: False if it was sent for another environment of the provider, such as its sandbox.
        is_late: it is older than a first delivery may be, so it is a repeated one.
        notice: the stage of the notice to the login's user that it opens; None if it opens none.
        feeds: feeds of the login that the next sync reads from their beginning, whatever their cursors say.
        detail: a few words and numbers that are kept with the delivery; no personal data.
    """

    kind: str
    delivery_id: str
    login: str | None = None
    asks: frozenset[Ask] = frozenset()
    is_known: bool = True
    is_ours: bool = True
    is_late: bool = False
    notice: str | None = None
    feeds: tuple[str, ...] = ()
    detail: Mapping[str, str | int | bool] = field(default_factory=dict)


class HookDelivery(Base):
    """One hook that was received; a second delivery of it finds this row and changes nothing.

    Attributes:
        delivery_id: what distinguishes it from other hooks of the same provider API.
        kind: the provider's own words for it.
        provider_id: the login; None if we have no such login, or if the hook concerns none.
        external_id: the provider's own id of the login.
        detail: a few words and numbers; no personal data.
    """

    __tablename__ = "hook_deliveries"
    __table_args__ = (
        Index(
            "ix_hook_deliveries_orphans",
            "provider_key",
            "external_id",
            postgresql_where="provider_id IS NULL AND external_id IS NOT NULL",
        ),
    )

    provider_key: Mapped[str] = mapped_column(primary_key=True)
    delivery_id: Mapped[str] = mapped_column(primary_key=True)
    received_at: Mapped[CreatedAt] = mapped_column(index=True)
    kind: Mapped[str]
    provider_id: Mapped[UUID | None] = mapped_column(ForeignKey(Provider.id, ondelete="CASCADE"), index=True)
    external_id: Mapped[str | None]
    body_sha256: Mapped[bytes]
    detail: Mapped[dict[str, Any]]


class LoginCheck(Base):
    """A login whose state is to be asked for at its provider. The row is deleted when that was done."""

    __tablename__ = "login_checks"
    __table_args__ = (Index(None, "provider_key", "due_at"),)

    provider_id: Mapped[UUID] = mapped_column(ForeignKey(Provider.id, ondelete="CASCADE"), primary_key=True)
    provider_key: Mapped[str]
    due_at: Mapped[datetime]

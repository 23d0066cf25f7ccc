"""Tables and records of API keys, which say who may use the HTTP API."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import ForeignKey, Text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from worker.models.base import Base, CreatedAt, Id
from worker.models.user import User


class ApiKey(Base):
    """A key of the HTTP API. The key itself is shown once and never stored.

    Attributes:
        name: what it is for, in the words of the person who made it.
        prefix: the part of the key that lists and logs show.
        key_hash: SHA-256 of the whole key, which has 256 random bits.
        scopes: words of `KeyScope`.
        user_id: whose rows it may see; None for an operator's key, which may see all.
        created_by, revoked_by: who did it, written as in the audit log.
    """

    __tablename__ = "api_keys"

    id: Mapped[Id]
    name: Mapped[str]
    prefix: Mapped[str] = mapped_column(unique=True)
    key_hash: Mapped[bytes] = mapped_column(unique=True)
    scopes: Mapped[list[str]] = mapped_column(ARRAY(Text))
    user_id: Mapped[UUID | None] = mapped_column(ForeignKey(User.id, ondelete="CASCADE"), index=True)
    created_at: Mapped[CreatedAt]
    created_by: Mapped[str]
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    revoked_by: Mapped[str | None]


@dataclass(frozen=True, slots=True)
class NewApiKey:
    """The values of a new key; see `ApiKey`."""

    name: str
    prefix: str
    scopes: tuple[str, ...]
    user_id: UUID | None
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class ApiKeyRow:
    """One key as lists show it, without the key and its hash.

    Attributes:
        user: the user's e-mail address.
    """

    id: UUID
    name: str
    prefix: str
    scopes: list[str]
    user_id: UUID | None
    user: str | None
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    revoked_at: datetime | None
    revoked_by: str | None

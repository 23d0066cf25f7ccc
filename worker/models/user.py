"""People who own providers."""

from __future__ import annotations

from sqlalchemy.orm import Mapped, mapped_column

from worker.models.base import Base, CreatedAt, Id


class User(Base):
    """A person, known to this worker only as the owner of providers and the receiver of notices."""

    __tablename__ = "users"

    id: Mapped[Id]
    email: Mapped[str | None] = mapped_column(unique=True)
    created_at: Mapped[CreatedAt]

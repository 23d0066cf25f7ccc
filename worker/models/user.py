"""The table of users: the people who own providers."""

from __future__ import annotations

from sqlalchemy.orm import Mapped, mapped_column

from worker.models.base import Base, CreatedAt, Id


class User(Base):
    """A person. This worker knows people only as owners of providers and receivers of notices."""

    __tablename__ = "users"

    id: Mapped[Id]
    email: Mapped[str | None] = mapped_column(unique=True)
    created_at: Mapped[CreatedAt]

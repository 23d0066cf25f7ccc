"""What all tables share: base class, keys, column types and constraints."""

from __future__ import annotations

import os
import time
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID

from sqlalchemy import CheckConstraint, DateTime, MetaData, Numeric, func
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, mapped_column


def new_id() -> UUID:
    """A UUID of version 7 (RFC 9562). These are ordered by time, so bulk inserts fill index pages in order."""
    milliseconds = time.time_ns() // 1_000_000
    random = int.from_bytes(os.urandom(10), "big")
    version_and_random = 0x7 << 12 | random >> 68
    variant_and_random = 0b10 << 62 | random & (1 << 62) - 1
    value = (milliseconds & (1 << 48) - 1) << 80 | version_and_random << 64 | variant_and_random
    return UUID(int=value)


class Base(DeclarativeBase):
    """Base of all tables; constraint names are fixed so that migrations can name them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy's own declaration style
        datetime: DateTime(timezone=True),
        Decimal: Numeric(),
        dict[str, Any]: JSONB(),
    }


Id = Annotated[UUID, mapped_column(primary_key=True, default=new_id)]
CreatedAt = Annotated[datetime, mapped_column(DateTime(timezone=True), server_default=func.now())]


def finite(*columns: str) -> list[CheckConstraint]:
    """Constraints that refuse NaN and infinity in `NUMERIC` columns (Postgres sorts NaN above Infinity)."""
    return [CheckConstraint(f"{c} > '-Infinity' AND {c} < 'Infinity'", name=f"{c}_finite") for c in columns]

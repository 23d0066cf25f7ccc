"""Daily quotas: counted here, because a day outlives a flushed Redis."""

from __future__ import annotations

from datetime import date

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from worker.models import QuotaDay


def take(session: Session, *, provider_key: str, bucket: str, day: date, amount: int, limit: int) -> bool:
    """Takes `amount` of a day's `limit`, all or nothing, in one statement. Returns False when that is over it."""
    if amount > limit:
        return False
    statement = (
        insert(QuotaDay)
        .values(provider_key=provider_key, bucket=bucket, day=day, used=amount)
        .on_conflict_do_update(
            index_elements=["provider_key", "bucket", "day"],
            set_={"used": QuotaDay.used + amount},
            where=QuotaDay.used + amount <= limit,
        )
        .returning(QuotaDay.used)
    )
    return session.execute(statement).first() is not None


def used(session: Session, *, provider_key: str, bucket: str, day: date) -> int:
    """What is used up of one bucket."""
    statement = select(QuotaDay.used).where(
        QuotaDay.provider_key == provider_key, QuotaDay.bucket == bucket, QuotaDay.day == day
    )
    return session.scalar(statement) or 0

"""Daily quotas. They are counted in Postgres, so that the count survives the loss of Redis's data."""

from __future__ import annotations

from datetime import date

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from worker.models import QuotaDay


def take(session: Session, *, provider_key: str, bucket: str, day: date, amount: int, limit: int) -> bool:
    """Adds `amount` to a day's count in one statement. Returns False, and adds nothing, if it would exceed `limit`."""
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
    """How much of one bucket is used."""
    statement = select(QuotaDay.used).where(
        QuotaDay.provider_key == provider_key, QuotaDay.bucket == bucket, QuotaDay.day == day
    )
    return session.scalar(statement) or 0

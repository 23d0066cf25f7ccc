"""Which answers wait on which host's disk, and whether another host has to wait for them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import delete, func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from worker.crud.refresh.records import NewToken
from worker.models import ProviderToken, Spool, SpooledAnswer, TokenRefresh
from worker.models.vocabulary import AttemptStatus

ANSWERS_WITHIN = timedelta(seconds=30)
"""A host that tells nothing for so long although it was asked is considered dead: its disk may be gone for good."""

HELD_FOR = timedelta(minutes=10)
"""An answer that is known to wait on a disk is waited for so long after its host has last been heard of."""

_REPORT = text(
    """
    INSERT INTO spools (id, seen_at) VALUES (:id, clock_timestamp())
    ON CONFLICT (id) DO UPDATE SET seen_at = excluded.seen_at
    """
)


def report(session: Session, *, spool_id: UUID, answers: Sequence[NewToken]) -> None:
    """Says that this spool holds these answers and no others."""
    session.execute(_REPORT, {"id": spool_id})
    session.execute(delete(SpooledAnswer).where(SpooledAnswer.spool_id == spool_id))
    rows = [
        {
            "spool_id": spool_id,
            "name": f"{answer.provider_id}.{answer.generation}.{answer.new_grant}",
            "provider_id": answer.provider_id,
            "generation": answer.generation,
            "key_id": answer.key_id,
        }
        for answer in answers
    ]
    if rows:
        # Two processes of one host may tell at once.
        session.execute(insert(SpooledAnswer).values(rows).on_conflict_do_nothing())


def must_wait(session: Session, *, provider_id: UUID, generation: int, own: UUID | None, lease: timedelta) -> bool:
    """Whether the answer to an open attempt may wait on another host's disk; that host is asked then.

    An attempt's host can have got the answer until the `lease` was over. If it has told since then that nothing waits,
    or tells nothing although it is asked, there is none.
    """
    now = session.execute(select(func.clock_timestamp())).scalar_one()
    attempts = session.execute(
        select(TokenRefresh.started_at, Spool.id, Spool.seen_at, Spool.asked_at)
        .join(Spool, Spool.id == TokenRefresh.spool_id)
        .where(
            TokenRefresh.provider_id == provider_id,
            TokenRefresh.generation == generation,
            TokenRefresh.status == AttemptStatus.SENT,
            TokenRefresh.spool_id != own if own else TokenRefresh.spool_id.is_not(None),
        )
    ).all()
    holding = session.scalars(
        select(Spool.seen_at)
        .join(SpooledAnswer, SpooledAnswer.spool_id == Spool.id)
        .where(
            SpooledAnswer.provider_id == provider_id,
            SpooledAnswer.generation == generation,
            Spool.id != own if own else Spool.id.is_not(None),
        )
    ).all()
    if any(now - seen_at < HELD_FOR for seen_at in holding):
        return True
    silent = [row for row in attempts if row.seen_at <= row.started_at + lease]
    unasked = [row.id for row in silent if row.asked_at is None or row.asked_at < row.seen_at]
    if unasked:
        session.execute(update(Spool).where(Spool.id.in_(unasked)).values(asked_at=now))
    return bool(unasked) or any(_may_still_tell(row.asked_at, now) for row in silent)


def _may_still_tell(asked_at: datetime, now: datetime) -> bool:
    return now - asked_at < ANSWERS_WITHIN


def count_by_key(session: Session, *, but: UUID | None) -> dict[str, int]:
    """Answers on other disks than `but`, by the key that wrote them; without overtaken ones."""
    overtaken = select(ProviderToken.provider_id).where(
        ProviderToken.provider_id == SpooledAnswer.provider_id, ProviderToken.generation > SpooledAnswer.generation
    )
    statement = select(SpooledAnswer.key_id, func.count().label("answers")).where(~overtaken.exists())
    if but is not None:
        statement = statement.where(SpooledAnswer.spool_id != but)
    return {row.key_id: row.answers for row in session.execute(statement.group_by(SpooledAnswer.key_id))}

"""Which answers wait in which host's spool, and whether another host has to wait for them."""

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
"""A host that was asked and does not report for so long counts as dead: its disk may be lost."""

HELD_FOR = timedelta(minutes=10)
"""How long to wait for an answer in a host's spool, counted from that host's last report."""

_REPORT = text(
    """
    INSERT INTO spools (id, seen_at) VALUES (:id, clock_timestamp())
    ON CONFLICT (id) DO UPDATE SET seen_at = excluded.seen_at
    """
)


def report(session: Session, *, spool_id: UUID, answers: Sequence[NewToken]) -> None:
    """Records that this spool holds exactly these answers."""
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
        # Two processes of one host may report at the same time.
        session.execute(insert(SpooledAnswer).values(rows).on_conflict_do_nothing())


def must_wait(session: Session, *, provider_id: UUID, generation: int, own: UUID | None, lease: timedelta) -> bool:
    """Whether the answer to an open attempt may wait in another host's spool; if so, that host is asked to report.

    The host of an attempt can get an answer until the `lease` has ended. If it has reported since then that nothing
    waits, or does not report although it was asked, there is no answer.
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
    """Number of answers in all spools except `but`, by the key that encrypted them; outdated answers do not count."""
    overtaken = select(ProviderToken.provider_id).where(
        ProviderToken.provider_id == SpooledAnswer.provider_id, ProviderToken.generation > SpooledAnswer.generation
    )
    statement = select(SpooledAnswer.key_id, func.count().label("answers")).where(~overtaken.exists())
    if but is not None:
        statement = statement.where(SpooledAnswer.spool_id != but)
    return {row.key_id: row.answers for row in session.execute(statement.group_by(SpooledAnswer.key_id))}

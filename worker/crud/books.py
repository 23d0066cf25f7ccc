"""The books check: what the provider states against what the stored rows add up to.

A provider states a balance and lists movements, but no opening balance. After the first whole sync that brought
nothing new (so that the books did not move between the balance and the last page), the difference between the two is
kept as the account's opening figure; from then on posted rows must explain every move of the stated balance, and what
they do not explain is drift.
"""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import delete, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from worker.crud import runs
from worker.crud.apply import driver
from worker.crud.work import RunKey
from worker.models import Account, BookDrift, Provider, new_id


class _Figures(NamedTuple):
    """Of one account: what is stated, what is stored since when, and the opening figure."""

    account_id: UUID
    opening: Decimal | None
    opening_from: date | None
    stated: Decimal
    first_posted: date


_STATED = """
    SELECT a.id, a.opening, a.opening_from, coalesce(b.cash, b.current),
        (SELECT min(posted_date) FROM transactions t WHERE t.account_id = a.id AND t.status = 'posted')
    FROM accounts a
    JOIN LATERAL (
        SELECT cash, current FROM balances WHERE account_id = a.id ORDER BY taken_at DESC LIMIT 1
    ) b ON true
    WHERE a.provider_id = %s AND a.status = 'active'
        AND (b.cash IS NOT NULL OR b.current IS NOT NULL AND a.type IN ('depository', 'credit', 'loan'))
"""
_POSTED = """
    SELECT coalesce(sum(amount), 0) FROM transactions
    WHERE account_id = %s AND status = 'posted' AND posted_date >= %s
"""


def check_books(session: Session, *, run: RunKey, now: datetime, quiet: bool, renew: bool) -> int:
    """Compares and records; returns how many figures drift.

    After a `quiet` run, which read all and brought nothing new, accounts without an opening figure get one; `renew`
    forgets the earlier ones. Accounts of which the provider lists no transactions are left out: nothing could explain
    their balance.

    Raises:
        Fenced: the run is not this worker's any more.
    """
    runs.hold(session, run=run)
    drifts = 0
    for row in driver(session).execute(_STATED, (run.provider_id,)).fetchall():
        if row[4] is None:
            continue
        figures = _Figures(*row)
        if renew:
            figures = figures._replace(opening=None, opening_from=None)
        if quiet and figures.opening is None:
            first = figures.first_posted  # what a deeper backfill finds later is older, and changes nothing
            opening = figures.stated - _posted(session, figures.account_id, first)
            figures = figures._replace(opening=opening, opening_from=first)
        if figures.opening != row[1]:
            session.execute(
                update(Account)
                .where(Account.id == figures.account_id)
                .values(opening=figures.opening, opening_from=figures.opening_from)
            )
        if figures.opening is not None and figures.opening_from is not None:
            stored = figures.opening + _posted(session, figures.account_id, figures.opening_from)
            drifts += _record(session, run, now, figures.account_id, "balance", figures.stated, stored)
    return drifts


def _posted(session: Session, account_id: UUID, first: date) -> Decimal:
    row = driver(session).execute(_POSTED, (account_id, first)).fetchone()
    return Decimal(row[0]) if row else Decimal(0)


def _record(
    session: Session, run: RunKey, now: datetime, account_id: UUID, figure: str, stated: Decimal, stored: Decimal
) -> bool:
    if stated == stored:
        session.execute(delete(BookDrift).where(BookDrift.account_id == account_id, BookDrift.figure == figure))
        return False
    values = {"stated": stated, "stored": stored, "run_id": run.id, "seen_at": now}
    session.execute(
        insert(BookDrift)
        .values(id=new_id(), account_id=account_id, figure=figure, **values)
        .on_conflict_do_update(index_elements=["account_id", "figure"], set_=values)
    )
    return True


def list_drifts(session: Session, *, provider_id: UUID | None = None) -> list[BookDrift]:
    """Figures that drift just now."""
    statement = select(BookDrift).join(Account, Account.id == BookDrift.account_id).join(Provider)
    if provider_id is not None:
        statement = statement.where(Account.provider_id == provider_id)
    return list(session.scalars(statement.order_by(BookDrift.seen_at)))

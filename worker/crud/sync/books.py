"""The books check: compares what the provider states with the sum of the stored rows.

A provider states a balance and lists transactions, but no opening balance. So the difference between the two is stored
as the account's opening figure, after the first complete sync that brought nothing new (then the books did not change
between the balance and the last page). From then on the posted rows must explain every change of the stated balance.
What they do not explain is drift.
"""

from __future__ import annotations

from collections.abc import Set
from datetime import date, datetime
from decimal import Decimal
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import delete, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from worker.crud.sync import runs
from worker.crud.sync.apply import driver
from worker.crud.sync.work import RunKey
from worker.models import Account, BookDrift, Holding, new_id


class _Figures(NamedTuple):
    """Figures of one account: what the provider states, and what the check starts from.

    Attributes:
        stated: cash where the provider states it, else the balance of an account that holds only money; otherwise None.
    """

    account_id: UUID
    account_key: str
    opening: Decimal | None
    opening_from: date | None
    stated: Decimal | None
    first_posted: date | None


_STATED = """
    SELECT a.id, a.provider_account_id, a.opening, a.opening_from,
        coalesce(b.cash, CASE WHEN a.type IN ('depository', 'credit', 'loan') THEN b.current END), t.first_posted
    FROM accounts a
    CROSS JOIN LATERAL (
        SELECT min(posted_date) AS first_posted FROM transactions WHERE account_id = a.id AND status = 'posted'
    ) t
    LEFT JOIN LATERAL (
        SELECT cash, current FROM balances WHERE account_id = a.id ORDER BY taken_at DESC LIMIT 1
    ) b ON true
    WHERE a.provider_id = %s AND a.status = 'active'
"""
_POSTED = """
    SELECT coalesce(sum(amount), 0) FROM transactions
    WHERE account_id = %s AND status = 'posted' AND posted_date >= %s
"""
_POSITIONS = """
    SELECT h.id, h.holding_key, h.quantity, h.opening_quantity, (
        SELECT coalesce(sum(t.quantity), 0) FROM transactions t
        WHERE t.account_id = h.account_id AND t.security_id = h.security_id AND t.status = 'posted'
            AND t.posted_date >= %(first)s
    )
    FROM holdings h JOIN securities s ON s.id = h.security_id
    WHERE h.account_id = %(account)s AND s.type <> 'cash'
"""


def check_books(
    session: Session,
    *,
    run: RunKey,
    now: datetime,
    accounts: Set[str],
    unstated: Set[str],
    quiet: Set[str],
    renew: bool,
) -> int:
    """Compares the figures and stores the drift; returns how many figures drift.

    Missing opening figures are set for `quiet` accounts. `renew` deletes the opening figures of `accounts`, and the
    drift that was found with them. An account for which the provider has listed no transactions gets no opening figure:
    nothing could explain its balance.

    Args:
        session: the transaction.
        run: the run that ends.
        now: the time.
        accounts: the provider's ids of the accounts whose figures and rows were read; the others are not checked.
        unstated: those of them whose stated balance is from an earlier run.
        quiet: those of them for which the run found no change.
        renew: start again with new opening figures.

    Raises:
        Fenced: this worker no longer owns the run.
    """
    runs.hold(session, run=run)
    drifts = 0
    for row in driver(session).execute(_STATED, (run.provider_id,)).fetchall():
        figures = _Figures(*row)
        if figures.account_key not in accounts:
            continue
        if figures.account_key in unstated:
            figures = figures._replace(stated=None)
        is_quiet = figures.account_key in quiet
        if renew or figures.opening_from is None:
            figures = _anchor(session, figures, quiet=is_quiet)
        elif is_quiet and figures.opening is None and figures.stated is not None:  # it is stated for the first time
            opening = figures.stated - _posted(session, figures.account_id, figures.opening_from)
            session.execute(update(Account).where(Account.id == figures.account_id).values(opening=opening))
            figures = figures._replace(opening=opening)
        if figures.opening_from is None:
            continue
        if figures.stated is not None and figures.opening is not None:
            stored = figures.opening + _posted(session, figures.account_id, figures.opening_from)
            drifts += _record(session, run, now, figures.account_id, "balance", figures.stated, stored)
        drifts += _check_positions(session, run, now, figures, quiet=is_quiet, renew=renew)
    return drifts


def _anchor(session: Session, figures: _Figures, *, quiet: bool) -> _Figures:
    """Sets the opening figure after a quiet run, and removes it after any other. Returns the new figures."""
    first = figures.first_posted if quiet else None  # older rows that a later backfill finds are not counted
    opening = None
    if first is not None and figures.stated is not None:
        opening = figures.stated - _posted(session, figures.account_id, first)
    if (opening, first) != (figures.opening, figures.opening_from):
        account = update(Account).where(Account.id == figures.account_id)
        session.execute(account.values(opening=opening, opening_from=first))
        session.execute(delete(BookDrift).where(BookDrift.account_id == figures.account_id))  # found with old figures
        positions = update(Holding).where(Holding.account_id == figures.account_id)
        session.execute(positions.where(Holding.opening_quantity.is_not(None)).values(opening_quantity=None))
    return figures._replace(opening=opening, opening_from=first)


def _check_positions(
    session: Session, run: RunKey, now: datetime, figures: _Figures, *, quiet: bool, renew: bool
) -> int:
    """The same for units held and units traded, per position. Cash positions are left out: they move without trades."""
    drifts = 0
    given = {"account": figures.account_id, "first": figures.opening_from}
    for holding_id, key, quantity, opening, traded in driver(session).execute(_POSITIONS, given).fetchall():
        if quiet and (opening is None or (renew and opening != quantity - traded)):
            opening = quantity - traded
            session.execute(update(Holding).where(Holding.id == holding_id).values(opening_quantity=opening))
        if opening is not None:
            drifts += _record(session, run, now, figures.account_id, f"quantity:{key}", quantity, opening + traded)
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

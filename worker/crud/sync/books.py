"""The books check: compares what the provider states with the sum of the stored rows.

A provider states a balance and lists transactions, but no opening balance. So the difference between the two is stored
as the account's opening figure, after the first complete sync that brought nothing new (then the books did not change
between the balance and the last page). From then on the posted rows must explain every change of the stated balance.
What they do not explain is drift.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from datetime import date, datetime
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from worker.crud.sync import runs
from worker.crud.sync.apply import driver
from worker.crud.sync.work import RunKey
from worker.models import BookDrift, new_id


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


class _Compared(NamedTuple):
    """A figure as the provider states it, and as the stored rows give it."""

    account_id: UUID
    figure: str
    stated: Decimal
    stored: Decimal


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
    SELECT begun.account_id, posted.total
    FROM unnest(%s::uuid[], %s::date[]) AS begun (account_id, first) CROSS JOIN LATERAL (
        SELECT coalesce(sum(amount), 0) AS total FROM transactions
        WHERE account_id = begun.account_id AND status = 'posted' AND posted_date >= begun.first
    ) posted
"""
_POSITIONS = """
    SELECT h.id, h.account_id, h.holding_key, h.quantity, h.opening_quantity, traded.total
    FROM unnest(%s::uuid[], %s::date[]) AS begun (account_id, first)
    JOIN holdings h ON h.account_id = begun.account_id JOIN securities s ON s.id = h.security_id
    CROSS JOIN LATERAL (
        SELECT coalesce(sum(quantity), 0) AS total FROM transactions
        WHERE account_id = h.account_id AND security_id = h.security_id AND status = 'posted'
            AND posted_date >= begun.first
    ) traded
    WHERE s.type <> 'cash'
"""
_OPEN = """
    UPDATE accounts a SET opening = o.opening, opening_from = o.opening_from
    FROM unnest(%s::uuid[], %s::numeric[], %s::date[]) AS o (account_id, opening, opening_from)
    WHERE a.id = o.account_id
"""
_FORGET = """
    WITH forgotten AS (DELETE FROM book_drifts WHERE account_id = ANY(%(accounts)s))
    UPDATE holdings SET opening_quantity = NULL
    WHERE account_id = ANY(%(accounts)s) AND opening_quantity IS NOT NULL
"""
_OPEN_POSITIONS = """
    UPDATE holdings h SET opening_quantity = o.quantity
    FROM unnest(%s::uuid[], %s::numeric[]) AS o (holding_id, quantity) WHERE h.id = o.holding_id
"""
_EXPLAIN = """
    DELETE FROM book_drifts d USING unnest(%s::uuid[], %s::text[]) AS explained (account_id, figure)
    WHERE d.account_id = explained.account_id AND d.figure = explained.figure
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
    stated = [_Figures(*row) for row in driver(session).execute(_STATED, (run.provider_id,))]
    checked = [
        one._replace(stated=None) if one.account_key in unstated else one
        for one in stated
        if one.account_key in accounts
    ]
    opened, balances = _open(session, checked, quiet=quiet, renew=renew)
    quiet_ids = {one.account_id for one in checked if one.account_key in quiet}
    positions = _open_positions(session, opened, quiet=quiet_ids, renew=renew)
    return _record(session, [*balances, *positions], run, now)


def _open(
    session: Session, checked: Sequence[_Figures], *, quiet: Set[str], renew: bool
) -> tuple[dict[UUID, date], list[_Compared]]:
    """Sets opening figures after a quiet run, and removes those that start again after any other.

    Returns:
        The day from which each account's rows count, without accounts that have none yet. And the balances.
    """
    connection = driver(session)
    anew = {one.account_id for one in checked if renew or one.opening_from is None}
    opened: dict[UUID, date] = {}
    for one in checked:
        first = one.opening_from
        if one.account_id in anew:  # older rows that a later backfill finds are not counted
            first = one.first_posted if one.account_key in quiet else None
        if first is not None:
            opened[one.account_id] = first
    posted: dict[UUID, Decimal] = {}
    if opened:
        posted.update(connection.execute(_POSTED, _columns(opened.items(), 2)).fetchall())
    changed: list[tuple[UUID, Decimal | None, date | None]] = []
    compared: list[_Compared] = []
    for one in checked:
        first = opened.get(one.account_id)
        opening = None if one.account_id in anew else one.opening
        if opening is None and first is not None and one.stated is not None and one.account_key in quiet:
            opening = one.stated - posted[one.account_id]
        if (opening, first) != (one.opening, one.opening_from):
            changed.append((one.account_id, opening, first))
        if first is not None and opening is not None and one.stated is not None:
            compared.append(_Compared(one.account_id, "balance", one.stated, opening + posted[one.account_id]))
    if changed:
        connection.execute(_OPEN, _columns(changed, 3))
        # What was found with the old figures is forgotten.
        connection.execute(_FORGET, {"accounts": [id_ for id_, _, _ in changed if id_ in anew]})
    return opened, compared


def _open_positions(session: Session, opened: Mapping[UUID, date], *, quiet: Set[UUID], renew: bool) -> list[_Compared]:
    """The same for units held and units traded, per position. Cash positions are left out: they move without trades."""
    if not opened:
        return []
    connection = driver(session)
    changed: list[tuple[UUID, Decimal]] = []
    compared: list[_Compared] = []
    rows = connection.execute(_POSITIONS, _columns(opened.items(), 2)).fetchall()
    for holding_id, account_id, key, quantity, opening, traded in rows:
        if account_id in quiet and (opening is None or (renew and opening != quantity - traded)):
            opening = quantity - traded
            changed.append((holding_id, opening))
        if opening is not None:
            compared.append(_Compared(account_id, f"quantity:{key}", quantity, opening + traded))
    if changed:
        connection.execute(_OPEN_POSITIONS, _columns(changed, 2))
    return compared


def _record(session: Session, compared: Sequence[_Compared], run: RunKey, now: datetime) -> int:
    """Stores the drift of figures that differ, and deletes that of the others. Returns how many differ."""
    drifting = [one for one in compared if one.stated != one.stored]
    explained = [(one.account_id, one.figure) for one in compared if one.stated == one.stored]
    if explained:
        driver(session).execute(_EXPLAIN, _columns(explained, 2))
    if drifting:
        found = [{"id": new_id(), **one._asdict(), "run_id": run.id, "seen_at": now} for one in drifting]
        added = insert(BookDrift).values(found)
        latest = {name: added.excluded[name] for name in ("stated", "stored", "run_id", "seen_at")}
        session.execute(added.on_conflict_do_update(index_elements=["account_id", "figure"], set_=latest))
    return len(drifting)


def _columns(rows: Iterable[tuple[Any, ...]], count: int) -> list[list[Any]]:
    """The rows as `count` columns, each of which is one parameter of a statement."""
    return [list(column) for column in zip(*rows, strict=True)] or [[] for _ in range(count)]

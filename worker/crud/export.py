"""Reads all rows of one user from the views of `dashtam_v1`, as a stream: memory does not grow with their number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

_AT_ONCE = 2000
_STREAMED = {"stream_results": True, "yield_per": _AT_ONCE}


@dataclass(frozen=True, slots=True)
class _Noun:
    order: str
    since: str = "true"


NOUNS = {
    "accounts": _Noun("account_id"),
    "balances": _Noun("account_id, taken_at, balance_id", since="taken_at >= :since"),
    "balance_days": _Noun("account_id, day", since="day >= :since"),
    "holdings": _Noun("holding_id"),
    "holding_days": _Noun("holding_id, day", since="day >= :since"),
    "liabilities": _Noun("liability_id"),
    "transactions": _Noun("account_id, posted_date, transaction_id", since="posted_date >= :since"),
}


def snapshot(session: Session) -> None:
    """Makes everything that this transaction reads be as it is now. It must be the transaction's first act."""
    # As a statement it would come too late: behind a pooler, each transaction begins with a query that sets its limits.
    session.connection(execution_options={"isolation_level": "REPEATABLE READ", "postgresql_readonly": True})


def count(session: Session, noun: str, *, user_id: UUID, since: date | None) -> int:
    """The number of rows that `rows` returns."""
    found = session.execute(text(f"SELECT count(*) {_source(noun)}"), _parameters(user_id, since))
    return int(found.scalar_one())


def columns(session: Session, noun: str) -> Sequence[str]:
    """The names of the view's columns, in order."""
    return tuple(session.execute(text(f"SELECT * FROM dashtam_v1.{noun} LIMIT 0")).keys())  # noqa: S608 - a name of ours


def rows(session: Session, noun: str, *, user_id: UUID, since: date | None) -> Iterator[Any]:
    """The rows of one view, with named columns."""
    statement = text(f"SELECT * {_source(noun)} ORDER BY {NOUNS[noun].order}").execution_options(**_STREAMED)
    return iter(session.execute(statement, _parameters(user_id, since)))


def first_days(session: Session, *, user_id: UUID, since: date | None) -> dict[UUID, date]:
    """The day of the first posted transaction of each account that has one."""
    statement = text(
        f"SELECT account_id, min(posted_date) {_source('transactions')} AND status = 'posted' GROUP BY account_id"
    )
    return {row[0]: row[1] for row in session.execute(statement, _parameters(user_id, since))}


def _source(noun: str) -> str:
    return f"FROM dashtam_v1.{noun} WHERE user_id = :user_id AND {NOUNS[noun].since}"


def _parameters(user_id: UUID, since: date | None) -> dict[str, Any]:
    return {"user_id": user_id, "since": since or date.min}

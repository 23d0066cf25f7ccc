"""The end of a run, in one transaction: the checks of quarantine and books, and then the run's own row."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from worker.crud.sync import books, quarantine, runs
from worker.crud.sync.pace import Pace, pace_of
from worker.crud.sync.work import RunKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Checks:
    """What a complete run is checked for. Accounts are named by the provider's ids.

    Attributes:
        resolve: whether entries of quarantine that the run has not met again are resolved.
        only: the accounts that were read, if there may be others.
        troubled: accounts whose entries stay open.
        accounts, unstated, quiet, renew: see `books.check_books`.
    """

    resolve: bool
    only: Set[str] | None
    troubled: Set[str]
    accounts: Set[str]
    unstated: Set[str]
    quiet: Set[str]
    renew: bool


_BEFORE_END = text(
    f"""
    SELECT p.sync_interval, p.hooked_at, p.hook_gap, EXISTS (SELECT FROM quarantine WHERE {quarantine.AWAITS_READING})
    FROM providers p WHERE p.id = :provider_id
    """  # noqa: S608 - a constant
)


def before_end(session: Session, *, provider_id: UUID) -> tuple[Pace, bool]:
    """How often the provider is synced; and whether transactions were refused whose account is stored by now."""
    row = session.execute(_BEFORE_END, {"provider_id": provider_id}).one_or_none()
    if row is None:
        return Pace(), False
    *chosen, awaits_reading = row
    return pace_of(*chosen), awaits_reading


def end_run(
    session: Session, /, *, run: RunKey, now: datetime, checks: Checks | None, answers: bytes | None, **ended: Any
) -> int:
    """Makes the checks of a complete run, and ends it. Returns how many figures of the books drift.

    Args:
        session: the transaction.
        run: the run.
        now: the time.
        checks: None if the run is not complete.
        answers: what the provider answered; not stored if figures drift.
        ended: the other arguments of `runs.finish_run`.

    Raises:
        Fenced: this worker no longer owns the run; nothing was written.
    """
    drifts = 0
    if checks is not None:
        if checks.resolve:
            quarantine.resolve_unlisted(session, run=run, now=now, only=checks.only, troubled=checks.troubled)
        drifts = books.check_books(
            session,
            run=run,
            now=now,
            accounts=checks.accounts,
            unstated=checks.unstated,
            quiet=checks.quiet,
            renew=checks.renew,
        )
    runs.finish_run(session, run=run, now=now, answers=None if drifts else answers, **ended)
    return drifts

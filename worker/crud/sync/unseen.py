"""The end of a full sync: transactions that the provider no longer lists."""

from __future__ import annotations

from collections.abc import Set
from datetime import datetime

from sqlalchemy import delete
from sqlalchemy.orm import Session

from worker.crud.sync import runs
from worker.crud.sync.meeting import LISTED_ELSEWHERE
from worker.crud.sync.pages import PagesApplied
from worker.crud.sync.sources import Known
from worker.crud.sync.work import Rules, RunKey, Work
from worker.errors import BadPayload, Scope
from worker.models import sync_seen

_UNSEEN = (
    "SELECT t.id FROM transactions t WHERE t.account_id = %s AND t.posted_date >= %s AND t.status <> 'removed'"  # noqa: S608 - constants
    " AND NOT EXISTS (SELECT FROM sync_seen s WHERE s.generation = %s AND s.transaction_id = t.id)"
    f" AND NOT EXISTS ({LISTED_ELSEWHERE})"
)


def withdraw_unseen(
    session: Session, *, run: RunKey, rules: Rules, now: datetime, accounts_read: Set[str]
) -> PagesApplied:
    """Ends a full sync: withdraws what the provider no longer lists, for accounts that were read to their end.

    Rows older than the account's oldest listed row are kept, since the provider may no longer list such old rows. For
    an account without listed rows, the oldest listed row of the whole login counts. If a record had no readable id, it
    may be any of the missing ones: then nothing of its account is withdrawn, which is a problem of the run.

    Raises:
        Fenced: this worker no longer owns the run.
    """
    runs.hold(session, run=run)
    work = Work(session=session, run=run, rules=rules, now=now, accounts=Known(), loop_id=None, careful=True)
    spans = work.connection.execute(
        "WITH seen AS (SELECT t.account_id, min(t.posted_date) AS first FROM sync_seen s"
        " JOIN transactions t ON t.id = s.transaction_id WHERE s.generation = %s GROUP BY 1)"
        " SELECT a.id, a.provider_account_id, coalesce(seen.first, (SELECT min(first) FROM seen))"
        " FROM accounts a LEFT JOIN seen ON seen.account_id = a.id"
        " WHERE a.provider_id = %s AND EXISTS (SELECT FROM seen)",
        (run.reading_id, run.provider_id),
    ).fetchall()
    unnamed = _accounts_of_unnamed(work)
    for account_id, account_key, first in spans:
        if account_key not in accounts_read:
            continue
        unseen = [
            row[0] for row in work.connection.execute(_UNSEEN, (account_id, first, run.reading_id, run.provider_id))
        ]
        (live,) = work.connection.execute(
            "SELECT count(*) FROM transactions WHERE account_id = %s AND posted_date >= %s AND status <> 'removed'",
            (account_id, first),
        ).fetchone() or (0,)
        if unseen and (account_key in unnamed or None in unnamed):
            work.problems.append(BadPayload("unnamed_records", scope=Scope.ACCOUNT, account_key=account_key))
        elif unseen and work.believes(len(unseen), live, account_key=account_key):
            work.connection.execute(
                "UPDATE transactions SET status = 'removed', content_hash = ''::bytea, run_id = %s WHERE id = ANY(%s)",
                (run.id, unseen),
            )
            work.tally.add("transactions", removed=len(unseen))
    work.connection.execute("UPDATE sync_runs SET generation = NULL WHERE id = %s", (run.id,))
    session.execute(delete(sync_seen).where(sync_seen.c.reading_id == run.reading_id))
    return PagesApplied(work.tally, work.problems)


def _accounts_of_unnamed(work: Work) -> set[str | None]:
    """Accounts for which this full sync met transactions without readable ids; None if the account is unknown, too."""
    rows = work.connection.execute(
        "SELECT DISTINCT q.account_key FROM quarantine q JOIN sync_runs r ON r.id = q.run_id"
        " WHERE r.provider_id = %s AND r.generation = %s AND q.kind = 'transaction' AND q.record_key IS NULL",
        (work.run.provider_id, work.run.reading_id),
    )
    return {account_key for (account_key,) in rows}

"""Writes pages into the tables: rows, cursor and counts in one transaction, fenced by the run."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

import msgspec
from sqlalchemy import delete, update
from sqlalchemy.orm import Session

from worker.crud.index_probes import INDEX_PROBES
from worker.crud.sync import accounts, cursors, identity, quarantine, runs
from worker.crud.sync.accounts import apply_holdings
from worker.crud.sync.apply import REFUSALS, driver
from worker.crud.sync.liabilities import apply_liabilities
from worker.crud.sync.meeting import LISTED_ELSEWHERE
from worker.crud.sync.sources import Known, read_known
from worker.crud.sync.transactions import apply_transactions
from worker.crud.sync.work import Prepared, Rules, RunKey, Tally, Work, joined
from worker.errors import BadPayload, Fenced, ProviderError, Scope, Unavailable
from worker.models import SyncRun, new_id, sync_seen
from worker.models.pages import Page

ACCOUNT_UNREADABLE = "account_unreadable"
"""Reason of a problem: an account's own record could not be read, so its id may be unknown."""

CURSOR_REFUSED = "cursor_refused"
"""Reason of a problem: the provider no longer accepted a stored cursor, so everything was read again."""


class PagesApplied(NamedTuple):
    """Result of applying pages.

    Attributes:
        loop: id of the loop that they belong to; None outside of a loop.
        accounts: our ids of the accounts, by the provider's ids, for the next pages.
        reading_id: set if accounts were found under new keys, so that the run has become a full sync: read all again.
    """

    tally: Tally
    problems: list[ProviderError]
    cancel_requested: bool = False
    loop: UUID | None = None
    accounts: Known | None = None
    reading_id: UUID | None = None


class _Position(NamedTuple):
    """The position of a feed before some pages, and the loop that they belong to."""

    cancel_requested: bool
    pages: int
    cursor: str | None
    loop_cursor: str | None
    loop_id: UUID | None


class PageRefused(Exception):  # noqa: N818
    """Postgres refused a part of a page, so nothing of these pages is stored: apply them again with `careful`."""


class Recognised(Exception):  # noqa: N818
    """Accounts were found under new keys, and the run has become the full sync of this `reading_id`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """The progress of a run, as its worker knows it.

    Attributes:
        pages: number of pages applied so far. If the tables have fewer, a crash of Postgres has undone committed pages.
        tally: counts of these pages; the run's row gets them together with those of the next pages.
        accounts: our ids of the accounts, by the provider's ids; None if they have not been read yet.
    """

    pages: int = 0
    tally: Tally = field(default_factory=Tally)
    accounts: Known | None = None


def apply_pages(
    session: Session,
    *,
    run: RunKey,
    pages: Sequence[tuple[Page, Prepared]],
    rules: Rules,
    progress: Progress,
    now: datetime,
    careful: bool = False,
) -> PagesApplied:
    """Applies pages of one feed in order, and stores the last one's cursor.

    Fence: the run's row, read first and written last. The commit does not wait for the disk. So a crash of Postgres may
    undo the last transactions, each one completely with its cursor; `progress` makes this visible. Applying a page a
    second time writes nothing but the run's own counters.

    Raises:
        Fenced: this worker no longer owns the run; nothing was written.
        Unavailable: pages that this worker has applied are missing; continue from the cursors.
        PageRefused: only without `careful`. With it, rows that cannot be stored are sent to quarantine.
    """
    position = _enter(session, run, pages[-1][0], progress)
    known, tally, problems, recognised = progress.accounts, Tally(), list[ProviderError](), 0
    for page, prepared in joined(pages, heed_windows=careful or not rules.expect_new):
        work = Work(
            session=session,
            run=run,
            rules=rules,
            now=now,
            accounts=Known() if known is None else known.copy(),
            loop_id=position.loop_id.bytes if position.loop_id else None,
            careful=careful,
        )
        try:
            _apply(work, page, prepared, known=known is not None)
        except REFUSALS as error:
            if careful:
                raise
            raise PageRefused from error
        known = work.accounts
        tally.update(work.tally)
        recognised += work.recognised
        problems += [*page.problems, *work.problems]
    _leave(session, run, [page for page, _ in pages], position, Tally(progress.tally + tally), problems)
    reading_id = None
    if recognised and not rules.reads_files:
        # What is not listed under the new keys can only be found by reading everything.
        reading_id = _become_full(session, run, rules.memory_feeds)
    return PagesApplied(tally, problems, position.cancel_requested, position.loop_id, known, reading_id)


def _apply(work: Work, page: Page, prepared: Prepared, *, known: bool) -> None:
    if not known:
        work.accounts = read_known(work.connection, work.run.provider_id)
    if page.accounts or page.accounts_complete:
        identity.recognise(work, page)
        accounts.apply_accounts(work, page)
    if page.balances or page.past_balances:
        accounts.apply_balances(work, page)
    if page.holdings or page.holdings_complete_for:
        apply_holdings(work, page)
    if page.liabilities or page.liabilities_complete_for:
        apply_liabilities(work, page)
    if page.transactions or page.removals or page.windows:
        apply_transactions(work, page, prepared)
    rejects = [*page.rejects, *work.rejects]
    work.problems += [
        BadPayload(ACCOUNT_UNREADABLE, scope=Scope.ACCOUNT, account_key=reject.account_key or reject.record_key)
        for reject in rejects
        if reject.kind == "account"
    ]
    quarantine.keep(work, rejects)
    quarantine.resolve_settled(work)


_ENTER = (
    "SELECT r.cancel_requested, r.pages, c.cursor, c.loop_cursor, c.loop_id,"  # noqa: S608 - constants
    f" set_config('synchronous_commit', 'off', true), {INDEX_PROBES} FROM sync_runs r"
    " LEFT JOIN sync_cursors c ON c.provider_id = r.provider_id AND c.feed = %s"
    " WHERE r.id = %s AND r.status = 'running' AND r.owner = %s"
)


def _enter(session: Session, run: RunKey, last: Page, progress: Progress) -> _Position:
    row = driver(session).execute(_ENTER, (last.feed, run.id, run.owner)).fetchone()
    if row is None:
        raise Fenced(f"run {run.id} was taken over or ended; nothing of these pages was written")
    position = _Position(*row[:5])
    if position.pages != progress.pages:
        raise Unavailable(f"Postgres has {position.pages} of the {progress.pages} pages of run {run.id}")
    if last.more and position.loop_id is None and last.feed:  # a loop of only these pages can never be restarted
        return position._replace(loop_cursor=position.cursor or "", loop_id=new_id())
    return position


def _leave(
    session: Session,
    run: RunKey,
    pages: Sequence[Page],
    position: _Position,
    total: Tally,
    problems: Sequence[ProviderError],
) -> None:
    last, cursors = pages[-1], [page.cursor for page in pages if page.cursor is not None]
    parameters = {
        "run_id": run.id,
        "owner": run.owner,
        "pages": len(pages),
        **runs.tally_columns(total),
        "provider_id": run.provider_id,
        "feed": last.feed,
        "cursor": cursors[-1] if cursors else position.cursor,
        "loop_cursor": position.loop_cursor if last.more else None,
        "loop_id": position.loop_id if last.more else None,
    }
    moved = last.feed and (cursors or position.loop_id is not None)
    connection = driver(session)
    done = connection.execute(_COUNT_AND_MOVE if moved else _COUNT, parameters)
    if done.rowcount != 1:
        raise Fenced(f"run {run.id} was taken over; nothing of these pages was written")
    if problems and last.feed:  # if this run breaks off, the next run does not read these pages, so store them now
        kept = msgspec.json.encode(runs.as_kept({last.feed: list(problems)})).decode()
        connection.execute(_KEEP_PROBLEMS, (kept, run.id))
    if position.loop_id is not None and not last.more:
        connection.execute("DELETE FROM sync_undo WHERE loop_id = %s", (position.loop_id,))


_COUNT = (
    "UPDATE sync_runs SET heartbeat_at = clock_timestamp(), pages = pages + %(pages)s, counts = %(counts)s::jsonb,"
    " added = %(added)s, changed = %(changed)s, unchanged = %(unchanged)s, removed = %(removed)s,"
    " quarantined = %(quarantined)s WHERE id = %(run_id)s AND status = 'running' AND owner = %(owner)s"
)
_KEEP_PROBLEMS = (
    "UPDATE sync_runs SET problems ="
    " jsonb_build_object('problems', coalesce(problems -> 'problems', '[]') || %s::jsonb) WHERE id = %s"
)
_COUNT_AND_MOVE = (
    f"WITH counted AS ({_COUNT} RETURNING provider_id)"  # noqa: S608 - a constant
    " INSERT INTO sync_cursors (provider_id, feed, cursor, loop_cursor, loop_id, updated_at)"
    " SELECT provider_id, %(feed)s, coalesce(%(cursor)s, ''), %(loop_cursor)s, %(loop_id)s::uuid, clock_timestamp()"
    " FROM counted ON CONFLICT (provider_id, feed) DO UPDATE SET cursor = EXCLUDED.cursor,"
    " loop_cursor = EXCLUDED.loop_cursor, loop_id = EXCLUDED.loop_id, updated_at = EXCLUDED.updated_at"
)


def restart_loop(session: Session, *, run: RunKey, feed: str) -> bool:
    """Undoes the open loop of a feed. Providers require this when their data changes while pages are read.

    Raises:
        Fenced: this worker no longer owns the run.
    """
    runs.hold(session, run=run)
    return cursors.restart_loop(session, provider_id=run.provider_id, feed=feed, reading_id=run.reading_id)


def read_anew(session: Session, *, run: RunKey, feed: str, memory_feeds: frozenset[str]) -> UUID:
    """Turns the run into a full sync, because the provider does not accept the cursor of one of its feeds.

    Without that cursor no feed lists what was removed since, and only a full sync can find it. The problem is stored
    with the run, so that it is also reported if a later run ends the full sync.

    Returns:
        The `reading_id` of the full sync.

    Raises:
        Fenced: this worker no longer owns the run.
    """
    runs.hold(session, run=run)
    reading_id = _become_full(session, run, memory_feeds)
    kept = msgspec.json.encode(runs.as_kept({feed: [BadPayload(CURSOR_REFUSED)]})).decode()
    driver(session).execute(_KEEP_PROBLEMS, (kept, run.id))
    return reading_id


_UNSEEN = (
    "SELECT t.id FROM transactions t WHERE t.account_id = %s AND t.posted_date >= %s AND t.status <> 'removed'"  # noqa: S608 - constants
    " AND NOT EXISTS (SELECT FROM sync_seen s WHERE s.generation = %s AND s.transaction_id = t.id)"
    f" AND NOT EXISTS ({LISTED_ELSEWHERE})"
)


def _become_full(session: Session, run: RunKey, memory_feeds: frozenset[str]) -> UUID:
    """Makes the run a full sync that has met nothing yet. The caller has locked the run."""
    reading_id = new_id()
    cursors.forget_cursors(session, provider_id=run.provider_id, keep=memory_feeds)
    session.execute(delete(sync_seen).where(sync_seen.c.reading_id == run.reading_id))
    session.execute(update(SyncRun).where(SyncRun.id == run.id).values(mode="full", reading_id=reading_id))
    return reading_id


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

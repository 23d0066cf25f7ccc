"""The end of a run: its status, the checks of quarantine and books, and when the next run is due."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

import structlog

from worker.crud import hooks, notices
from worker.crud.refresh import reauth
from worker.crud.sync import ending, pages, runs
from worker.crud.sync.accounts import active_account_keys
from worker.crud.sync.ending import Checks
from worker.crud.sync.pace import Pace
from worker.crud.sync.pages import PagesApplied
from worker.crud.sync.runs import RunBegun
from worker.crud.sync.work import Tally
from worker.errors import BadPayload, DashtamError, Forbidden, ProviderError, ReauthRequired, Unavailable
from worker.models.vocabulary import ROW_OUTCOMES, RunStatus
from worker.process.logger import Logger
from worker.services.availability import breaker
from worker.services.context import Context
from worker.services.sync.next_due import Verdict, judge, not_before
from worker.services.sync.reading import shortest_interval, usual_interval
from worker.telemetry import metrics

log = Logger(__name__)

_AFTER_RELINK = timedelta(minutes=1)
_READ_ALL_THE_SAME = frozenset({"mass_deletion", "unnamed_records", "day_with_3000_rows"})
"""Reasons of problems with accounts whose rows were nevertheless read and stored."""
_OF_NO_FEED = frozenset({pages.ACCOUNT_UNREADABLE, pages.CURSOR_REFUSED})
"""Reasons of problems with the login that leave no feed unread."""


@dataclass(slots=True, kw_only=True)
class Found:
    """What a run has met so far.

    Attributes:
        tally: rows of the pages that were stored.
        problems: by feed, including those of earlier runs of the same full sync.
        listed: the provider's ids of the accounts that this run has listed.
        without_balance: those of them whose stated balance could not be read.
        pages: number of pages received.
        grant_expires_at: when the user's consent ends, if a page has said it.
        token_generation: generation of the token that the pages were asked for with; None when there was none.
        cancelled: a person asked the run to stop.
        goes_on: the run's time was up before all was read, or the next run must read all again.
        answers: what the provider answered in the last reading; None if it cannot be compared.
    """

    problems: runs.Problems
    tally: Tally = field(default_factory=Tally)
    listed: set[str] = field(default_factory=set)
    without_balance: set[str] = field(default_factory=set)
    pages: int = 0
    grant_expires_at: datetime | None = None
    token_generation: int | None = None
    cancelled: bool = False
    goes_on: bool = False
    answers: bytes | None = None

    def count(self, applied: PagesApplied, feed: str) -> None:
        """Adds what applying pages of a feed did."""
        self.tally.update(applied.tally)
        if applied.problems:
            self.problems.setdefault(feed, []).extend(applied.problems)

    @property
    def all_problems(self) -> list[ProviderError]:
        """The problems of all feeds."""
        return [problem for problems in self.problems.values() for problem in problems]

    @property
    def failed(self) -> set[str]:
        """Accounts whose rows could not be read."""
        real = (problem for problem in self.all_problems if problem.reason not in _READ_ALL_THE_SAME)
        return {problem.account_key for problem in real if problem.account_key}

    @property
    def untroubled(self) -> set[str]:
        """Listed accounts without any problem."""
        return self.listed - {problem.account_key for problem in self.all_problems}

    @property
    def is_whole(self) -> bool:
        """Whether everything was read, except perhaps single accounts."""
        single = all(problem.account_key or problem.reason in _OF_NO_FEED for problem in self.all_problems)
        return single and not (self.cancelled or self.goes_on or self.no_account_was_read)

    @property
    def an_account_was_unreadable(self) -> bool:
        """Whether an account's own record could not be read; then its id may be unknown."""
        return any(problem.reason == pages.ACCOUNT_UNREADABLE for problem in self.all_problems)

    @property
    def no_account_was_read(self) -> bool:
        """Whether there are accounts, but none of them could be read."""
        return self.an_account_was_unreadable and not self.listed

    @property
    def found_all_as_stored(self) -> bool:
        """Whether everything was read and every row of every noun was already stored as listed."""
        return self.is_whole and not self.all_problems and {outcome for _, outcome in self.tally} <= {"unchanged"}

    @property
    def brought_nothing(self) -> bool:
        """Whether every transaction was already stored as listed."""
        return not any(self.tally["transactions", outcome] for outcome in ("added", "changed", "removed"))


async def end_run(runtime: Context, begun: RunBegun, found: Found, error: Exception | None, *, seconds: float) -> None:
    """Ends the run in the tables, and reports it to log, metrics and breaker.

    Args:
        runtime: the process's context.
        begun: the run.
        found: what it met.
        error: what stopped it; None when it read everything.
        seconds: how long it took.

    Raises:
        Fenced: another worker took over; nothing was written.
        Unavailable: Postgres is out of reach.
    """
    key, now = begun.key, await runtime.now()
    reading_since, since = (begun.reading_since, begun.since) if found.goes_on else (None, None)
    pace, awaits_reading = await runtime.db(ending.before_end, provider_id=key.provider_id)
    if awaits_reading and found.tally["accounts", "added"]:  # the next run must read all again
        found.problems.setdefault("", []).append(BadPayload("account_known_now"))
        found.goes_on = True
    verdict = await _judge(runtime, begun, found, error, now, pace)
    await _keep_grant_end(runtime, begun, found)
    await _tell_the_user(runtime, begun, found, now)
    pushed = runtime.integrations[key.provider_key].reads_files
    due_at = None if pushed else verdict.due_at
    if isinstance(error, ReauthRequired) and not await _stop_for_reauth(runtime, begun, found, error):
        due_at = now + _AFTER_RELINK
    is_complete = error is None and found.is_whole and verdict.status in (RunStatus.COMPLETED, RunStatus.PARTIAL)
    drifts = await runtime.db(
        ending.end_run,
        run=key,
        now=now,
        checks=_checks(begun, found, pushed=pushed) if is_complete else None,
        status=verdict.status,
        tally=found.tally,
        error=error,
        problems=found.problems,
        due_at=due_at,
        sync_failures=verdict.failures,
        reading_since=reading_since,
        since=since,
        answers=found.answers if error is None and _is_repeatable(begun, found) else None,
    )
    _tell(begun, found, verdict.status, error, due_at=due_at, drifts=drifts, seconds=seconds)
    if error is None and verdict.status == RunStatus.FAILED:
        error = next((problem for problem in found.all_problems if isinstance(problem, Forbidden)), None)
    await _report(runtime, begun, error)


async def _judge(
    runtime: Context, begun: RunBegun, found: Found, error: Exception | None, now: datetime, pace: Pace
) -> Verdict:
    """The run's status, and when the next one is due."""
    key = begun.key
    verdict = judge(
        provider_id=key.provider_id,
        now=now,
        interval=usual_interval(runtime.integrations[key.provider_key], runtime.settings, pace.own_interval),
        failures=begun.sync_failures,
        error=error,
        problems=found.all_problems,
        landed=found.tally.total() > 0,
        every_account_failed=await _every_account_failed(runtime, begun, found),
        cancelled=found.cancelled,
        goes_on=found.goes_on,
        hooked_until=pace.hooked_until,
        longest=timedelta(seconds=runtime.settings.sync_interval_hooked),
    )
    if found.tally.total() and not found.goes_on:
        shortest = shortest_interval(runtime.integrations[key.provider_key], runtime.settings)
        verdict = not_before(verdict, now, shortest)
    return verdict


async def _keep_grant_end(runtime: Context, begun: RunBegun, found: Found) -> None:
    """Stores when the consent ends, if the provider has said it."""
    if found.grant_expires_at is not None and found.token_generation is not None:
        await runtime.db(
            hooks.move_grant_end,
            provider_id=begun.key.provider_id,
            generation=found.token_generation,
            ends_at=found.grant_expires_at,
        )


def _is_repeatable(begun: RunBegun, found: Found) -> bool:
    """Whether a run that hears the same answers would write nothing."""
    reads_all = begun.key.reading_id is None and begun.since is None and not begun.done
    return reads_all and not begun.open_quarantine and found.found_all_as_stored


def _tell(
    begun: RunBegun,
    found: Found,
    status: RunStatus,
    error: Exception | None,
    *,
    due_at: datetime | None,
    drifts: int,
    seconds: float,
) -> None:
    """Writes the log line and the metrics."""
    rows = {outcome: found.tally.total(outcome) for outcome in ROW_OUTCOMES}
    log.info(
        "sync_ended",
        status=status,
        error=str(error) if isinstance(error, DashtamError) else type(error).__name__ if error else None,
        problems=len(found.all_problems),
        drifts=drifts,
        pages=found.pages,
        due_at=str(due_at),
        **rows,
    )
    metrics.observe_sync(begun.key.provider_key, status, seconds=seconds, rows=rows)


def _checks(begun: RunBegun, found: Found, *, pushed: bool) -> Checks:
    """What quarantine and books are checked for after a complete run; leaves out accounts with problems.

    The balance of a file (`pushed`) is that of its last row, so the opening figure can be set at once.
    """
    # An account that an earlier run has read cannot be compared with the balance that this run has listed.
    read_before = {feed.removeprefix("account:") for feed in begun.done}
    return Checks(
        resolve=begun.open_quarantine,
        only=found.listed if found.an_account_was_unreadable else None,
        troubled=found.failed,
        accounts=found.listed - found.failed - read_before,
        unstated=found.without_balance,
        quiet=found.untroubled if found.brought_nothing or pushed else frozenset(),
        renew=begun.renews,
    )


async def _every_account_failed(runtime: Context, begun: RunBegun, found: Found) -> bool:
    if found.no_account_was_read:
        return True
    if not found.failed:
        return False
    return await runtime.db(active_account_keys, provider_id=begun.key.provider_id) <= found.failed


async def _tell_the_user(runtime: Context, begun: RunBegun, found: Found, now: datetime) -> None:
    """Queues a notice if accounts need their user while the login works."""
    needs = {one.account_key for one in found.all_problems if isinstance(one, ReauthRequired) and one.account_key}
    if needs:
        await runtime.db(
            notices.tell_of_accounts,
            provider_id=begun.key.provider_id,
            account_keys=sorted(needs),
            now=now,
            channels=runtime.settings.enabled_channels,
        )


async def _stop_for_reauth(runtime: Context, begun: RunBegun, found: Found, error: ReauthRequired) -> bool:
    """Marks the login as `needs_reauth`. False when it has another token by now; then the sync is tried again."""
    if found.token_generation is None:  # the refresh found that the grant has ended, and has already recorded it
        return True
    task_id = structlog.contextvars.get_contextvars().get("task_id")
    return await runtime.db(
        reauth.need_reauth,
        provider_id=begun.key.provider_id,
        generation=found.token_generation,
        reason=error.reason,
        channels=runtime.settings.enabled_channels,
        task_id=None if task_id is None else str(task_id),
    )


async def _report(runtime: Context, begun: RunBegun, error: Exception | None) -> None:
    """Reports to the breaker: `error` stopped the run or affected all of its accounts; None is a success."""
    if error is not None and not isinstance(error, ProviderError):
        return
    key = begun.key
    try:
        await breaker.report(runtime, key.provider_key, [error], provider_ids=[key.provider_id], call="sync")
    except Unavailable:
        log.warning("availability_unreported", provider_key=key.provider_key)

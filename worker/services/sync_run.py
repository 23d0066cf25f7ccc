"""One run under way: from its first page to its end."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from datetime import UTC, date, datetime, time, timedelta
from itertools import groupby
from typing import Any

import structlog

from worker import metrics
from worker.crud import books, cursors, pages, quarantine, reauth, runs
from worker.crud.accounts import active_account_keys
from worker.crud.nouns import raw_hasher
from worker.crud.prepared import Prepared, prepare
from worker.crud.runs import RunBegun
from worker.crud.work import OUTCOMES, Rules, Tally
from worker.errors import (
    AccessExpired,
    BadPayload,
    DashtamError,
    Fenced,
    PagingRestart,
    ProviderError,
    ReauthRequired,
    Unavailable,
)
from worker.integrations.base import Caller, Integration, SyncRequest
from worker.integrations.masking import masked
from worker.models.pages import Page
from worker.models.vocabulary import RunStatus, Trigger
from worker.runtime import Runtime
from worker.services import availability, tokens
from worker.services.ahead import read_ahead
from worker.services.cadence import judge

log = structlog.get_logger()

ROWS_AHEAD = 8000
"""About how many rows are read while others are stored, and so how many are stored together: sixteen usual pages."""

_MAX_RESTARTS = 5
_MAX_RESUMES = 3
_MAX_PAGES = 20_000
_MAX_IDLE_PAGES = 100
_RESUME_PAUSE = 1.0
_AFTER_RELINK = timedelta(minutes=1)
_READ_ALL_THE_SAME = frozenset({"mass_deletion", "unnamed_records", "day_with_3000_rows"})
"""Problems of accounts whose rows were read and stored."""


class RunUnderWay:
    """One run under way."""

    def __init__(self, runtime: Runtime, begun: RunBegun, *, trigger: str, since: date | None) -> None:
        settings = runtime.settings
        self._runtime = runtime
        self._begun = begun
        self._key = begun.key
        self._integration: Integration = runtime.integrations[begun.key.provider_key]
        self._caller = Caller(begun.key.provider_id, manual=trigger == Trigger.MANUAL)
        self._since = since
        self._rules = Rules(
            content_hashes=raw_hasher(self._integration.key, self._integration.mapping_version),
            mask=masked,
            mass_deletion_share=settings.mass_deletion_share,
            open_quarantine=begun.open_quarantine,
            expect_new=begun.is_first,
        )
        self._tally = Tally()
        self._loop_tallies: dict[str, Tally] = {}
        self._found: runs.Problems = {feed: list(problems) for feed, problems in begun.problems.items()}
        self._pages = 0
        self._stored_pages = 0
        self._accounts: dict[str, bytes] | None = None
        self._listed: set[str] = set()
        self._without_balance: set[str] = set()
        self._generation: int | None = None
        self._cancelled = False
        self._began = asyncio.get_running_loop().time()
        self._stop_at = self._began + settings.sync_budget_seconds
        self._goes_on = False

    async def run(self) -> None:
        """Reads all pages beside a heartbeat, and ends the run whatever happens."""
        reading = asyncio.create_task(self._read())
        beating = asyncio.create_task(self._beat())
        try:
            await asyncio.wait({reading, beating}, return_when=asyncio.FIRST_COMPLETED)
            if beating.done() and not reading.done():
                await beating  # raises what ended it
            error = await reading
        finally:
            for task in (reading, beating):
                task.cancel()
            await asyncio.gather(reading, beating, return_exceptions=True)
        await self._finish(error)

    async def _beat(self) -> None:
        pause = self._runtime.settings.run_dead_seconds / 6
        while True:
            await asyncio.sleep(pause)
            try:
                self._cancelled |= await self._runtime.db(runs.beat, run=self._key)
            except Unavailable:
                log.warning("heartbeat_missed", kept="committed pages")

    # Reading

    async def _read(self) -> Exception | None:
        """Returns what stopped the run, None when there was nothing more to read."""
        try:
            await self._read_all()
            if self._key.generation is not None and self._is_whole():
                await self._withdraw_unseen()
        except (Fenced, Unavailable):
            raise
        except DashtamError as error:
            return error
        except Exception as error:
            log.exception("sync_unexpected")
            return error
        return None

    def _is_whole(self) -> bool:
        """Whether all was read that there was, but for single accounts."""
        single = all(problem.account_key or problem.reason == pages.ACCOUNT_UNREADABLE for problem in self._problems)
        return single and not (self._cancelled or self._goes_on)

    async def _read_all(self) -> None:
        resumes = 0
        while True:
            try:
                if resumes:
                    await self._resume()
                return await self._read_to_the_end()
            except Unavailable:
                resumes += 1
                if resumes > _MAX_RESUMES:
                    raise
                await asyncio.sleep(_RESUME_PAUSE * 2**resumes)

    async def _read_to_the_end(self) -> None:
        restarts = 0
        renewed_at: Mapping[str, str] | None = None
        while True:
            try:
                return await self._read_from_cursors()
            except AccessExpired:
                committed = await self._runtime.db(cursors.read_cursors, provider_id=self._key.provider_id)
                if renewed_at == committed:  # the new token was refused too, before any cursor moved
                    raise
                renewed_at = committed
                await self._renew()
            except PagingRestart as error:
                restarts += 1
                await self._restart(error)
                if restarts > _MAX_RESTARTS:
                    raise

    async def _read_from_cursors(self) -> None:
        settings = self._runtime.settings
        token = await tokens.access_token(self._runtime, self._key.provider_id, caller=self._caller)
        self._generation = token.generation
        request = SyncRequest(
            caller=self._caller,
            access_token=token.value,
            cursors=await self._runtime.db(cursors.read_cursors, provider_id=self._key.provider_id),
            now=await self._runtime.now(),
            since=self._since,
            backfill=timedelta(days=settings.sync_backfill_days),
            overlap=timedelta(days=settings.sync_overlap_days),
            window=timedelta(days=settings.sync_window_days),
        )
        for feed in ("", *runs.MEMORY_FEEDS):  # what is read by every run: what it met is met again, or is over
            self._found.pop(feed, None)
        self._listed.clear()
        self._without_balance.clear()
        async with aclosing(read_ahead(self._prepared(request), most=ROWS_AHEAD, size=weight)) as stream:
            async for come in stream:
                for _, together in groupby(come, key=lambda found: found[0].feed):
                    found = list(together)
                    await self._apply(found)
                    if self._cancelled or self._out_of_time(found[-1][0]):
                        return

    async def _prepared(self, request: SyncRequest) -> AsyncGenerator[tuple[Page, Prepared], None]:
        """Pages with all that is done without the database, while those before them are stored."""
        served: dict[str, str | None] = {}  # not what is stored: an overlap that is read again may end there
        idle: Counter[str] = Counter()
        most_idle = _MAX_IDLE_PAGES + _windows_at_most(request)
        async with aclosing(self._integration.pages(request)) as stream:  # type: ignore[type-var]
            async for page in stream:
                self._pages += 1
                self._listed.update(account.account_key for account in page.accounts)
                self._without_balance.update(one.account_key or "" for one in page.rejects if one.kind == "balance")
                if page.more and page.cursor is not None and page.cursor == served.get(page.feed):
                    raise BadPayload("cursor_loop")
                served[page.feed] = page.cursor
                idle[page.feed] = idle[page.feed] + 1 if _is_idle(page) else 0
                if self._pages > _MAX_PAGES or idle[page.feed] > most_idle:
                    raise BadPayload("endless_pages")
                yield page, prepare(page, self._rules)

    def _out_of_time(self, page: Page) -> bool:
        self._goes_on = page.more and asyncio.get_running_loop().time() > self._stop_at
        return self._goes_on

    @property
    def _problems(self) -> list[ProviderError]:
        return [problem for problems in self._found.values() for problem in problems]

    async def _apply(self, found: Sequence[tuple[Page, Prepared]]) -> None:
        """Stores pages of one feed."""
        last = found[-1][0]
        applied = await self._store(found)
        self._count(applied, last.feed)
        self._cancelled |= applied.cancel_requested
        if applied.loop is not None and last.more:
            self._loop_tallies.setdefault(last.feed, Tally()).update(_of_transactions(applied.tally))
        else:
            self._loop_tallies.pop(last.feed, None)

    async def _store(self, found: Sequence[tuple[Page, Prepared]]) -> pages.PagesApplied:
        given: dict[str, Any] = {"run": self._key, "pages": found, "rules": self._rules}
        given["now"] = await self._runtime.now()
        given["progress"] = pages.Progress(pages=self._stored_pages, tally=self._tally, accounts=self._accounts)
        try:
            applied = await self._runtime.db(pages.apply_pages, **given)
        except pages.PageRefused as error:
            log.warning("page_refused", error=type(error.__cause__).__name__, next="row by row where it must be")
            applied = await self._runtime.db(pages.apply_pages, careful=True, **given)
        self._stored_pages += len(found)
        self._accounts = applied.accounts
        return applied

    def _count(self, applied: pages.PagesApplied, feed: str) -> None:
        self._tally.update(applied.tally)
        if applied.problems:
            self._found.setdefault(feed, []).extend(applied.problems)

    async def _renew(self) -> None:
        log.info("access_token_refused", next="refresh once and go on")
        await tokens.access_token(
            self._runtime, self._key.provider_id, caller=self._caller, stale_generation=self._generation
        )

    async def _restart(self, error: PagingRestart) -> None:
        undone = await self._runtime.db(pages.restart_loop, run=self._key, feed=error.feed)
        if undone:
            self._tally.subtract(self._loop_tallies.pop(error.feed, Tally()))
            self._found.pop(error.feed, None)
        log.info("paging_restarted", feed=error.feed, reason=error.reason, undone=undone)

    async def _resume(self) -> None:
        """Whether the last page was kept is known only to the tables: counts and cursors are read again."""
        self._stored_pages, self._tally = await self._runtime.db(runs.read_progress, run=self._key)
        self._accounts = None
        log.warning("sync_resumed", kept="committed pages", next="going on from the committed cursors")

    async def _withdraw_unseen(self) -> None:
        applied = await self._runtime.db(
            pages.withdraw_unseen,
            run=self._key,
            rules=self._rules,
            now=await self._runtime.now(),
            accounts_read=self._listed - {problem.account_key for problem in self._problems},
        )
        self._count(applied, "")

    # The end

    async def _finish(self, error: Exception | None) -> None:
        now = await self._runtime.now()
        own_interval = await self._runtime.db(runs.sync_interval, provider_id=self._key.provider_id)
        verdict = judge(
            provider_id=self._key.provider_id,
            now=now,
            interval=timedelta(seconds=own_interval or self._runtime.settings.sync_interval),
            failures=self._begun.sync_failures,
            error=error,
            problems=self._problems,
            landed=self._tally.total() > 0,
            every_account_failed=await self._every_account_failed(),
            cancelled=self._cancelled,
            goes_on=self._goes_on or await self._found_an_account(),
        )
        due_at, drifts = verdict.due_at, 0
        if isinstance(error, ReauthRequired) and not await self._stop_for_reauth(error):
            due_at = now + _AFTER_RELINK
        if verdict.status in (RunStatus.COMPLETED, RunStatus.PARTIAL):
            drifts = await self._compare(now, whole=error is None and self._is_whole())
        await self._runtime.db(
            runs.finish_run,
            run=self._key,
            status=verdict.status,
            now=now,
            tally=self._tally,
            error=error,
            problems=self._found,
            due_at=due_at,
            sync_failures=verdict.failures,
        )
        log.info(
            "sync_ended",
            status=verdict.status,
            error=str(error) if isinstance(error, DashtamError) else type(error).__name__ if error else None,
            problems=len(self._problems),
            drifts=drifts,
            pages=self._pages,
            due_at=str(due_at),
            **{outcome: self._tally.total(outcome) for outcome in OUTCOMES},
        )
        metrics.observe_sync(
            self._key.provider_key,
            verdict.status,
            seconds=asyncio.get_running_loop().time() - self._began,
            rows={outcome: self._tally.total(outcome) for outcome in OUTCOMES},
        )
        await self._report(error)

    async def _compare(self, now: datetime, *, whole: bool) -> int:
        """Quarantine and books against what was read; what concerns an account in trouble stays as it was."""
        untroubled = self._listed - {problem.account_key for problem in self._problems}
        read = self._listed - {problem.account_key for problem in self._real_problems}
        if whole and self._begun.open_quarantine:
            await self._runtime.db(quarantine.resolve_unlisted, run=self._key, now=now, accounts=read)
        return await self._runtime.db(
            books.check_books,
            run=self._key,
            now=now,
            accounts=read - self._without_balance,
            quiet=untroubled - self._without_balance if whole and self._brought_nothing() else frozenset(),
            renew=self._begun.renews,
        )

    @property
    def _real_problems(self) -> list[ProviderError]:
        return [problem for problem in self._problems if problem.reason not in _READ_ALL_THE_SAME]

    def _brought_nothing(self) -> bool:
        return not any(self._tally["transactions", outcome] for outcome in ("added", "changed", "removed"))

    async def _every_account_failed(self) -> bool:
        failed = {problem.account_key for problem in self._real_problems if problem.account_key}
        if not self._listed and any(problem.reason == pages.ACCOUNT_UNREADABLE for problem in self._problems):
            return True
        if not failed:
            return False
        return await self._runtime.db(active_account_keys, provider_id=self._key.provider_id) <= failed

    async def _found_an_account(self) -> bool:
        """Whether the next run must read all again, since an account is known now whose transactions were refused."""
        if not self._tally["accounts", "added"]:
            return False
        found = await self._runtime.db(quarantine.awaits_reading, provider_id=self._key.provider_id)
        if found:
            self._found.setdefault("", []).append(BadPayload("account_known_now"))
        return found

    async def _stop_for_reauth(self, error: ReauthRequired) -> bool:
        """False when the login has another token by now, so that it is tried again."""
        if self._generation is None:  # the token engine itself found the grant dead, and has recorded it
            return True
        found = structlog.contextvars.get_contextvars().get("task_id")
        return await self._runtime.db(
            reauth.need_reauth,
            provider_id=self._key.provider_id,
            generation=self._generation,
            reason=error.reason,
            channels=self._runtime.settings.enabled_channels,
            task_id=None if found is None else str(found),
        )

    async def _report(self, error: Exception | None) -> None:
        if error is not None and not isinstance(error, ProviderError):
            return
        try:
            await availability.report(
                self._runtime, self._key.provider_key, [error], provider_ids=[self._key.provider_id]
            )
        except Unavailable:
            log.warning("availability_unreported", provider_key=self._key.provider_key)


def weight(found: tuple[Page, Prepared]) -> int:
    """What a page counts for in `ROWS_AHEAD`; an empty one is not free."""
    return max(len(found[0].transactions), ROWS_AHEAD // 16)


def _is_idle(page: Page) -> bool:
    """Whether a page brings nothing and another one is promised."""
    return page.more and not (page.transactions or page.removals or page.rejects)


def _windows_at_most(request: SyncRequest) -> int:
    """How many pages a feed by date may have, each of them empty."""
    first = request.now - request.backfill
    if request.since is not None:
        first = min(first, datetime.combine(request.since, time.min, tzinfo=UTC))
    return (request.now - first) // max(request.window, timedelta(days=1)) + 1


def _of_transactions(tally: Tally) -> Tally:
    return Tally({place: count for place, count in tally.items() if place[0] == "transactions"})

"""A run from its first page to its last: reads pages, stores them, renews the token and restarts loops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from itertools import groupby
from typing import Any
from uuid import UUID

from worker.crud.sync import cursors, pages, runs, unsettled
from worker.crud.sync.repeats import LastRun
from worker.crud.sync.runs import RunBegun
from worker.crud.sync.sources import Known
from worker.crud.sync.work import Prepared, Tally, prepare
from worker.errors import (
    AccessExpired,
    BadPayload,
    CursorRefused,
    DashtamError,
    Fenced,
    PagingRestart,
    Unavailable,
)
from worker.integrations.kit.base import Caller, SyncRequest
from worker.integrations.kit.integration import Integration
from worker.models.pages import Page
from worker.models.vocabulary import Trigger
from worker.process.logger import Logger
from worker.services.context import Context
from worker.services.refresh.access_token import access_token
from worker.services.sync.circles import Circles
from worker.services.sync.finish import Found, end_run
from worker.services.sync.prefetch import ROWS_AHEAD, read_ahead, weight
from worker.services.sync.reading import Reading, rules, spans
from worker.services.sync.repeats import Batch
from worker.services.sync.time_limit import TimeLimit

log = Logger(__name__)
_MAX_RESTARTS = 5
_MAX_RESUMES = 3
_RESUME_PAUSE = 1.0
_LONGEST_RESUME_PAUSE = 8.0


class RunUnderWay:
    """One run that reads and stores its pages.

    Args:
        runtime: the process's context.
        begun: the run.
        trigger: who asked for it.
        last: what it needs to find out whether it repeats the last run; None if it cannot be a repeat.
        source: whose pages are read; by default those of the login's integration.
    """

    def __init__(
        self,
        runtime: Context,
        begun: RunBegun,
        *,
        trigger: str,
        last: LastRun | None = None,
        source: Integration | None = None,
    ) -> None:
        self._runtime = runtime
        self._begun, self._key = begun, begun.key
        self._integration: Integration = source or runtime.integrations[begun.key.provider_key]
        self._caller = Caller(begun.key.provider_id, manual=trigger == Trigger.MANUAL)
        self._rules = rules(runtime, begun, self._integration)
        self._loop_tallies: dict[str, Tally] = {}
        self._found = Found(problems={feed: list(problems) for feed, problems in begun.problems.items()})
        self._stored_pages = 0
        self._accounts: Known | None = None
        self._last = last
        self._opened: Reading | None = None
        self._unopened: Exception | None = None
        self._repeated, self._is_unread = False, True
        self._began = asyncio.get_running_loop().time()
        self._limit = TimeLimit(runtime.settings.sync_budget_seconds)

    async def run(self, batch: Batch | None = None) -> None:
        """Reads all pages, with a heartbeat beside it, and ends the run whatever happens.

        Args:
            batch: what the runs of a batch share; needed if this run may repeat the last one.
        """
        reading = asyncio.create_task(self._read() if batch is None else self._look_and_read(batch))
        beating = asyncio.create_task(self._beat())
        try:
            await asyncio.wait({reading, beating}, return_when=asyncio.FIRST_COMPLETED)
            if beating.done() and not reading.done():
                await beating  # raises the error that ended it
            error = await reading
        finally:
            for task in (reading, beating):
                task.cancel()
            await asyncio.gather(reading, beating, return_exceptions=True)
            if self._opened is not None:
                await self._opened.aclose()
        if not self._repeated:
            await end_run(self._runtime, self._begun, self._found, error, seconds=self._seconds())

    def _seconds(self) -> float:
        """How long the run has taken so far."""
        return asyncio.get_running_loop().time() - self._began

    async def _beat(self) -> None:
        pause = self._runtime.settings.run_dead_seconds / 6
        while True:
            await asyncio.sleep(pause)
            try:
                self._found.cancelled |= await self._runtime.db(runs.beat, run=self._key)
            except Unavailable:
                log.warning("heartbeat_missed", kept="committed pages")

    async def _look_and_read(self, batch: Batch) -> Exception | None:
        """Ends the run at once if it repeats the last one; otherwise waits for a place and reads and stores."""
        if self._last is not None:
            if await batch.look(self._repeats, self._last):
                self._repeated = await batch.ends.end(self._begun, self._last, seconds=self._seconds())
                if self._repeated:
                    return None
            else:
                batch.ends.expect_no_more_of()
            if await self._settle(self._last):
                return None
        async with batch.places:
            if self._limit.begin() > batch.begin_before:  # the next run reads what this one had no time for
                self._found.goes_on = True
                return None
            return await self._read()

    async def _settle(self, last: LastRun) -> bool:
        """From now on this run may store. Returns whether a person has asked it to stop."""
        self._found.cancelled = await self._runtime.db(
            unsettled.settle,
            run=self._key,
            last=last.id,
            heard=last.heard,
            started_at=self._begun.reading_since,
            cursors=dict(self._begun.cursors),
        )
        return self._found.cancelled

    async def _repeats(self, last: LastRun) -> bool:
        try:
            self._opened = await self._open()
        except Exception as error:  # `_take_opened` raises it, where every error has its consequence
            self._unopened = error
            return False
        return await self._opened.repeats(last.answers, until=self._limit.stops_at)

    async def _read(self) -> Exception | None:
        """Reads the run's pages. Returns what stopped it; None when everything was read."""
        try:
            await self._read_all()
            if self._key.reading_id is not None and self._found.is_whole and not self._integration.reads_files:
                await self._withdraw_unseen()
        except (Fenced, Unavailable):
            raise
        except DashtamError as error:
            return error
        except Exception as error:
            log.exception("sync_unexpected")
            return error
        return None

    async def _read_all(self) -> None:
        """Continues when Postgres answers again, unless the outage was so long that the run counts as dead."""
        loop, resumes = asyncio.get_running_loop(), 0
        pause, silent_since = _RESUME_PAUSE, None
        while True:
            try:
                if silent_since is not None:
                    await self._resume()
                    pause, silent_since = _RESUME_PAUSE, None
                return await self._read_to_the_end()
            except Unavailable:
                if silent_since is None:
                    silent_since, resumes = loop.time(), resumes + 1
                if resumes > _MAX_RESUMES or loop.time() - silent_since > self._runtime.settings.run_dead_seconds:
                    raise
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_RESUME_PAUSE)

    async def _read_to_the_end(self) -> None:
        restarts, anew = 0, False
        renewed_at: Mapping[str, str] | None = None
        while True:
            try:
                return await self._read_from_cursors()
            except AccessExpired:
                committed = await self._runtime.db(cursors.read_cursors, provider_id=self._key.provider_id)
                if renewed_at == committed:  # the new token was refused as well, and no cursor has moved since
                    raise
                renewed_at = committed
                await self._renew()
            except CursorRefused as error:
                if anew:
                    raise
                anew = True
                await self._read_anew(error)
            except pages.Recognised as found:
                self._begin_full(*found.args)
            except PagingRestart as error:
                restarts += 1
                await self._restart(error)
                if restarts > _MAX_RESTARTS:
                    raise

    async def _read_from_cursors(self) -> None:
        # An earlier reading of this run may have stored rows that are listed again.
        self._rules = replace(self._rules, expect_new=self._rules.expect_new and not self._stored_pages)
        reading = await self._take_opened()
        # Every run reads these feeds, so a problem with them comes again if it still exists.
        for feed in ("", *self._integration.memory_feeds):
            self._found.problems.pop(feed, None)
        self._found.listed.clear()
        self._found.without_balance.clear()
        self._found.answers = None
        async with aclosing(read_ahead(self._prepared(reading), most=ROWS_AHEAD, size=weight)) as stream:
            async for come in stream:
                self._found.goes_on = self._limit.is_over()
                if self._found.goes_on:  # the next run asks again for pages that are not stored
                    return
                for _, together in groupby(come, key=lambda found: found[0].feed):
                    found = list(together)
                    await self._apply(found)
                    if self._found.cancelled or self._out_of_time(found[-1][0]):
                        return
        self._found.answers = reading.answers

    async def _open(self) -> Reading:
        """A reading from the committed cursors. The first one needs no query: the run's beginning has read them."""
        id_, is_first, self._is_unread = self._key.provider_id, self._is_unread, False
        token = await access_token(
            self._runtime, id_, caller=self._caller, known=self._begun.token if is_first else None
        )
        self._found.token_generation = token.generation
        request = SyncRequest(
            caller=self._caller,
            access_token=token.value,
            cursors=self._begun.cursors if is_first else await self._runtime.db(cursors.read_cursors, provider_id=id_),
            now=await self._runtime.now(),
            since=self._begun.since,
            done=self._begun.done,
            hooked=self._begun.hooked,
            **spans(self._runtime.settings),
        )
        return Reading(self._integration, request)

    async def _take_opened(self) -> Reading:
        """The reading that `_repeats` has begun, or its error; afterwards a new one each time."""
        opened, error = self._opened, self._unopened
        self._opened = self._unopened = None
        if error is not None:
            raise error
        return opened or await self._open()

    async def _prepared(self, reading: Reading) -> AsyncGenerator[tuple[Page, Prepared], None]:
        """The pages, checked and prepared for storing, while earlier pages are being stored."""
        circles = Circles(reading.request)
        async with aclosing(reading.pages()) as stream:
            async for page in stream:
                self._found.pages += 1
                self._found.grant_expires_at = page.grant_expires_at or self._found.grant_expires_at
                circles.check(page)
                self._found.listed.update(account.account_key for account in page.accounts)
                unstated = (one.account_key or "" for one in page.rejects if one.kind == "balance")
                self._found.without_balance.update(unstated)
                yield page, prepare(page, self._rules)

    def _out_of_time(self, page: Page) -> bool:
        self._limit.moved |= page.cursor is not None and page.feed not in self._integration.memory_feeds
        self._found.goes_on = page.more and self._limit.late() > 0
        return self._found.goes_on

    async def _apply(self, found: Sequence[tuple[Page, Prepared]]) -> None:
        """Stores pages of one feed."""
        last = found[-1][0]
        applied = await self._store(found)
        self._found.count(applied, last.feed)
        if applied.reading_id is not None:
            raise pages.Recognised(applied.reading_id)
        self._found.cancelled |= applied.cancel_requested
        if applied.loop is not None and last.more:
            self._loop_tallies.setdefault(last.feed, Tally()).update(applied.tally.of("transactions"))
        else:
            self._loop_tallies.pop(last.feed, None)

    async def _store(self, found: Sequence[tuple[Page, Prepared]]) -> pages.PagesApplied:
        given: dict[str, Any] = {"run": self._key, "pages": found, "rules": self._rules}
        given["now"] = await self._runtime.now()
        given["progress"] = pages.Progress(pages=self._stored_pages, tally=self._found.tally, accounts=self._accounts)
        try:
            applied = await self._runtime.db(pages.apply_pages, **given)
        except pages.PageRefused as error:
            log.warning("page_refused", error=type(error.__cause__).__name__, next="row by row where it must be")
            applied = await self._runtime.db(pages.apply_pages, careful=True, **given)
        self._stored_pages += len(found)
        self._accounts = applied.accounts
        return applied

    async def _renew(self) -> None:
        log.info("access_token_refused", next="refresh once and go on")
        await access_token(
            self._runtime, self._key.provider_id, caller=self._caller, stale_generation=self._found.token_generation
        )

    async def _restart(self, error: PagingRestart) -> None:
        undone = await self._runtime.db(pages.restart_loop, run=self._key, feed=error.feed)
        if undone:
            self._found.tally.subtract(self._loop_tallies.pop(error.feed, Tally()))
            self._found.problems.pop(error.feed, None)
        log.info("paging_restarted", feed=error.feed, reason=error.reason, undone=undone)

    async def _read_anew(self, error: CursorRefused) -> None:
        """Reads every feed from its beginning, as a full sync, because the provider refuses a cursor."""
        reading_id = await self._runtime.db(
            pages.read_anew, run=self._key, feed=error.feed, memory_feeds=self._integration.memory_feeds
        )
        self._begin_full(reading_id)
        self._found.problems = {error.feed: [BadPayload(pages.CURSOR_REFUSED)]}
        log.warning("cursor_refused", feed=error.feed, reason=error.reason, next="a full sync reads all again")

    def _begin_full(self, reading_id: UUID) -> None:
        """Reads everything from now on, as a full sync."""
        self._key = replace(self._key, reading_id=reading_id)
        self._begun = replace(self._begun, key=self._key, done=frozenset())
        self._loop_tallies.clear()
        self._found.problems = {}

    async def _resume(self) -> None:
        """Reads counts and cursors again: only the tables can say whether the last page was committed."""
        self._stored_pages, self._found.tally = await self._runtime.db(runs.read_progress, run=self._key)
        self._accounts = None
        log.warning("sync_resumed", kept="committed pages", next="going on from the committed cursors")

    async def _withdraw_unseen(self) -> None:
        applied = await self._runtime.db(
            pages.withdraw_unseen,
            run=self._key,
            rules=self._rules,
            now=await self._runtime.now(),
            accounts_read=self._found.untroubled,
        )
        self._found.count(applied, "")

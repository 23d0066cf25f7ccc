"""A run from its first page to its last: reads pages, stores them, renews the token and restarts loops."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from hashlib import blake2b
from itertools import groupby
from typing import Any

import structlog

from worker.crud.sync import cursors, pages, runs
from worker.crud.sync.nouns import raw_hasher
from worker.crud.sync.runs import RunBegun
from worker.crud.sync.work import Prepared, Rules, Tally, prepare
from worker.errors import (
    AccessExpired,
    BadPayload,
    CursorRefused,
    DashtamError,
    Fenced,
    PagingRestart,
    Transient,
    Unavailable,
)
from worker.integrations.kit.base import Caller, SyncRequest
from worker.integrations.kit.integration import Integration
from worker.integrations.kit.masking import masked
from worker.models.pages import Page
from worker.models.vocabulary import Trigger
from worker.services.context import Context
from worker.services.refresh.access_token import access_token
from worker.services.sync.finish import Found, end_run
from worker.services.sync.prefetch import read_ahead

log = structlog.get_logger()

ROWS_AHEAD = 8000
"""About how many rows are read ahead, and so how many are stored together: sixteen pages of usual size."""
_BYTES_A_ROW = 2048
"""A longer row counts as several, so that what is read ahead is also limited in bytes (16 MiB and one page)."""

_MAX_RESTARTS = 5
_MAX_PAGES = 20_000
_MAX_IDLE_PAGES = 100
_MAX_RETURNS = 5
"""How often one position may come. A feed by offset is read again when its rows shift: three times is still normal."""
_MAX_RESUMES = 3
_RESUME_PAUSE = 1.0
_LONGEST_RESUME_PAUSE = 8.0


class RunUnderWay:
    """One run that reads and stores its pages."""

    def __init__(self, runtime: Context, begun: RunBegun, *, trigger: str) -> None:
        settings = runtime.settings
        self._runtime = runtime
        self._begun = begun
        self._key = begun.key
        self._integration: Integration = runtime.integrations[begun.key.provider_key]
        self._caller = Caller(begun.key.provider_id, manual=trigger == Trigger.MANUAL)
        self._rules = Rules(
            content_hashes=raw_hasher(self._integration.key, self._integration.mapping_version),
            mask=masked,
            mass_deletion_share=settings.mass_deletion_share,
            open_quarantine=begun.open_quarantine,
            expect_new=begun.is_first,
        )
        self._loop_tallies: dict[str, Tally] = {}
        self._found = Found(problems={feed: list(problems) for feed, problems in begun.problems.items()})
        self._stored_pages = 0
        self._accounts: dict[str, bytes] | None = None
        self._moved = False
        self._began = asyncio.get_running_loop().time()
        self._stop_at = self._began + settings.sync_budget_seconds

    async def run(self) -> None:
        """Reads all pages, with a heartbeat beside it, and ends the run whatever happens."""
        reading = asyncio.create_task(self._read())
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
        seconds = asyncio.get_running_loop().time() - self._began
        await end_run(self._runtime, self._begun, self._found, error, seconds=seconds)

    async def _beat(self) -> None:
        pause = self._runtime.settings.run_dead_seconds / 6
        while True:
            await asyncio.sleep(pause)
            try:
                self._found.cancelled |= await self._runtime.db(runs.beat, run=self._key)
            except Unavailable:
                log.warning("heartbeat_missed", kept="committed pages")

    # Reading

    async def _read(self) -> Exception | None:
        """Reads the run's pages. Returns what stopped it; None when everything was read."""
        try:
            await self._read_all()
            if self._key.reading_id is not None and self._found.is_whole:
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
            except PagingRestart as error:
                restarts += 1
                await self._restart(error)
                if restarts > _MAX_RESTARTS:
                    raise

    async def _read_from_cursors(self) -> None:
        settings = self._runtime.settings
        token = await access_token(self._runtime, self._key.provider_id, caller=self._caller)
        self._found.token_generation = token.generation
        request = SyncRequest(
            caller=self._caller,
            access_token=token.value,
            cursors=await self._runtime.db(cursors.read_cursors, provider_id=self._key.provider_id),
            now=await self._runtime.now(),
            since=self._begun.since,
            backfill=timedelta(days=settings.sync_backfill_days),
            overlap=timedelta(days=settings.sync_overlap_days),
            window=timedelta(days=settings.sync_window_days),
            done=self._begun.done,
        )
        for feed in (
            "",
            *self._integration.memory_feeds,
        ):  # every run reads these feeds, so a problem with them comes again if it still exists
            self._found.problems.pop(feed, None)
        self._found.listed.clear()
        self._found.without_balance.clear()
        async with aclosing(read_ahead(self._prepared(request), most=ROWS_AHEAD, size=weight)) as stream:
            async for come in stream:
                if self._is_cut_short():  # pages that are not stored are asked for again by the next run
                    return
                for _, together in groupby(come, key=lambda found: found[0].feed):
                    found = list(together)
                    await self._apply(found)
                    if self._found.cancelled or self._out_of_time(found[-1][0]):
                        return

    async def _prepared(self, request: SyncRequest) -> AsyncGenerator[tuple[Page, Prepared], None]:
        """The pages, checked and prepared for storing, while earlier pages are being stored."""
        served: dict[str, str | None] = {}  # not compared with stored cursors: reading an overlap again may end there
        times: Counter[bytes] = Counter()
        idle: Counter[str] = Counter()
        most_idle = _MAX_IDLE_PAGES + _windows_at_most(request)
        async with aclosing(self._integration.pages(request)) as stream:  # type: ignore[type-var]
            async for page in stream:
                self._found.pages += 1
                self._found.listed.update(account.account_key for account in page.accounts)
                unstated = (one.account_key or "" for one in page.rejects if one.kind == "balance")
                self._found.without_balance.update(unstated)
                if page.more and page.cursor is not None:
                    position = _digest(page.feed, page.cursor)
                    times[position] += 1
                    if page.cursor == served.get(page.feed) or times[position] > _MAX_RETURNS:
                        raise BadPayload("cursor_loop")
                served[page.feed] = page.cursor
                idle[page.feed] = idle[page.feed] + 1 if _is_idle(page) else 0
                if self._found.pages > _MAX_PAGES or idle[page.feed] > most_idle:
                    raise BadPayload("endless_pages")
                yield page, prepare(page, self._rules)

    def _out_of_time(self, page: Page) -> bool:
        self._moved |= page.cursor is not None and page.feed not in self._integration.memory_feeds
        self._found.goes_on = page.more and self._late() > 0
        return self._found.goes_on

    def _is_cut_short(self) -> bool:
        """Whether the time is up and there is more to read. A run that has moved no cursor yet has twice the time.

        Raises:
            Transient: that time is up, too; the next run must wait until it is due.
        """
        late = self._late()
        self._found.goes_on = self._moved and late > 0
        if late > self._runtime.settings.sync_budget_seconds and not self._moved:
            raise Transient("time_is_up")
        return self._found.goes_on

    def _late(self) -> float:
        """Seconds since the run's time was up; negative before that."""
        return asyncio.get_running_loop().time() - self._stop_at

    async def _apply(self, found: Sequence[tuple[Page, Prepared]]) -> None:
        """Stores pages of one feed."""
        last = found[-1][0]
        applied = await self._store(found)
        self._count(applied, last.feed)
        self._found.cancelled |= applied.cancel_requested
        if applied.loop is not None and last.more:
            self._loop_tallies.setdefault(last.feed, Tally()).update(_of_transactions(applied.tally))
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

    def _count(self, applied: pages.PagesApplied, feed: str) -> None:
        self._found.tally.update(applied.tally)
        if applied.problems:
            self._found.problems.setdefault(feed, []).extend(applied.problems)

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
        self._key = replace(self._key, reading_id=reading_id)
        self._begun = replace(self._begun, key=self._key, done=frozenset())
        self._loop_tallies.clear()
        self._found.problems = {error.feed: [BadPayload(pages.CURSOR_REFUSED)]}
        log.warning("cursor_refused", feed=error.feed, reason=error.reason, next="a full sync reads all again")

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
        self._count(applied, "")


def weight(found: tuple[Page, Prepared]) -> int:
    """How many rows a page counts as in `ROWS_AHEAD`: by its rows or its bytes; an empty page counts, too."""
    page = found[0]
    rows = len(page.transactions) + len(page.holdings) + len(page.accounts)
    size = sum([len(raw.raw) for raw in page.transactions])
    return max(rows, size // _BYTES_A_ROW, ROWS_AHEAD // 16)


def _digest(feed: str, cursor: str) -> bytes:
    """A digest of a position in a feed; it has a fixed size, however long the cursor is."""
    return blake2b(f"{feed}\0{cursor}".encode(errors="surrogatepass"), digest_size=16).digest()


def _is_idle(page: Page) -> bool:
    """Whether a page brings nothing and says that there are more."""
    return page.more and not (page.transactions or page.removals or page.rejects)


def _windows_at_most(request: SyncRequest) -> int:
    """The largest number of pages that a feed by date may have although all of them are empty."""
    first = request.now - request.backfill
    if request.since is not None:
        first = min(first, datetime.combine(request.since, time.min, tzinfo=UTC))
    return (request.now - first) // max(request.window, timedelta(days=1)) + 1


def _of_transactions(tally: Tally) -> Tally:
    return Tally({key: count for key, count in tally.items() if key[0] == "transactions"})

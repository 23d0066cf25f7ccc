"""Reads accounts that one call lists together, with balances and with the transactions of a window of days.

Usually all accounts are in step, so one call for all of them is enough. An account that is behind, because it is new or
could not be read, is asked for alone. Every account has a feed with a cursor of its own, `account:<key>`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from worker.errors import BadPayload, BadRequest, ProviderError, RateLimited, Scope
from worker.integrations.kit import windows
from worker.integrations.kit.base import Page, SyncRequest, Window
from worker.integrations.kit.windows import DateCursor, first_day

_OF_ACCOUNT = "account:"
Days = tuple[date, date]
"""The first and the last day of a window."""


@dataclass(kw_only=True)
class Told:
    """What one answer says.

    Attributes:
        window: what was asked for.
        pages: of each account that it has, by key, a page with the transactions.
        problems: errors in the answer, each of an account (`account_key`) or of nobody in particular. They may raise an
            error of the whole login; then only the listing is kept.
        listing: the page with all accounts; None in answers for accounts that are behind.
        was_cut: the provider has left out days, because the window is longer than it allows.
    """

    window: Days
    pages: Mapping[str, Page]
    problems: Iterable[ProviderError] = ()
    listing: Page | None = None
    was_cut: bool = False


Ask = Callable[[Days, Sequence[str]], Awaitable[Told]]
"""Asks for a window: of all accounts, which the answer lists, or of the accounts with these keys."""


class Together:
    """Which days of each account are still to be read.

    Args:
        request: the request of the sync.
        days: the longest window.
        safe_days: the longest window from then on, if the provider refuses a longer one or cuts it.
    """

    def __init__(self, request: SyncRequest, days: int, safe_days: int) -> None:
        self._request = request
        self._days, self._safe_days = days, safe_days
        self._new = first_day(DateCursor(), request)
        feeds = {feed.removeprefix(_OF_ACCOUNT): text for feed, text in request.cursors.items() if _OF_ACCOUNT in feed}
        self._begins = {key: first_day(DateCursor.parse(text), request) for key, text in feeds.items()}
        self._left: dict[str, date] = {}

    async def pages(self, ask: Ask) -> AsyncIterator[Page]:
        """The accounts first, then each account's transactions, window by window.

        Raises:
            RateLimited: a problem of an answer is that no more calls should be made now; what came was handed over.
            ProviderError: see `ask`.
        """
        plan: tuple[date, list[str]] | None = (self._first(), [])
        while plan is not None:
            first, behind = plan
            told = await self._ask(ask, first, behind)
            if told.listing is not None:
                yield told.listing
                self._note(account.account_key for account in told.listing.accounts)
            problems = list(told.problems)
            for page in self._histories(told, problems):
                yield page
            lost = [key for key in behind if self._reads(key, told.window)]
            self._give_up(lost)
            problems += [BadPayload("account_missing", scope=Scope.ACCOUNT, account_key=key) for key in lost]
            for problem in problems:
                if isinstance(problem, RateLimited):
                    raise problem
            if problems:
                yield Page(problems=problems)
            plan = self._behind()

    async def _ask(self, ask: Ask, first: date, behind: Sequence[str]) -> Told:
        window = windows.window_from(first, self._request, timedelta(days=self._days))
        may_shorten = (window[1] - window[0]).days >= self._safe_days
        try:
            told = await ask(window, behind)
            if not (told.was_cut and may_shorten):
                return told
        except BadRequest:
            if not may_shorten:
                raise
        self._days = self._safe_days
        return await self._ask(ask, first, behind)

    def _histories(self, told: Told, problems: Sequence[ProviderError]) -> Iterator[Page]:
        """The pages of accounts that read on in this window.

        Where a problem is that of the account, or of nobody in particular, rows may be missing: nothing is withdrawn.
        The cursor of such an account stays; if nobody is named, it moves over all windows but the last.
        """
        troubled = {problem.account_key for problem in problems if not isinstance(problem, RateLimited)}
        last, today = told.window[1], self._request.now.date()
        for key, page in told.pages.items():
            if not self._reads(key, told.window):
                continue
            if key in troubled:
                self._give_up([key])
            else:
                self._was_read(key, told.window)
                if not (None in troubled and last >= today):
                    page.feed, page.cursor = _OF_ACCOUNT + key, str(windows.after(last, self._request))
                    page.more = last < today
                if None not in troubled:
                    page.windows = (Window(key, *told.window),)
            yield page

    def _first(self) -> date:
        """Where the call begins that lists the accounts: with the accounts in step, if they end in one window."""
        today = self._request.now.date()
        unread = [day for key, day in self._begins.items() if _OF_ACCOUNT + key not in self._request.done]
        in_step = [day for day in unread if (today - day).days < self._days]
        return min(in_step or unread, default=today if self._begins else self._new)

    def _note(self, keys: Iterable[str]) -> None:
        """Notes the accounts that were listed."""
        for key in keys:
            if _OF_ACCOUNT + key not in self._request.done:
                self._left[key] = self._begins.get(key, self._new)

    def _behind(self) -> tuple[date, list[str]] | None:
        """The first day that is still to be read, and the accounts that need it; None if all were read."""
        if not self._left:
            return None
        day = min(self._left.values())
        return day, [key for key, first in self._left.items() if first == day]

    def _reads(self, key: str, window: Days) -> bool:
        """Whether this window goes on where the account's feed stands."""
        return key in self._left and window[0] <= self._left[key] <= window[1]

    def _was_read(self, key: str, window: Days) -> None:
        """The account was read to the end of the window."""
        if window[1] >= self._request.now.date():
            del self._left[key]
        else:
            self._left[key] = window[1] + timedelta(days=1)

    def _give_up(self, keys: Iterable[str]) -> None:
        """These accounts cannot be read now; the next sync goes on from their cursors."""
        for key in keys:
            self._left.pop(key, None)

"""Reads an account's list of transactions: which days are asked for, and where an unfinished list goes on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from datetime import timedelta

import msgspec

from worker.errors import BadPayload, BadRequest, Scope, Unsupported
from worker.integrations.enable_banking.mapping import Rows, mapper
from worker.integrations.enable_banking.pages import Listed
from worker.integrations.enable_banking.vocabulary import PERIOD_REFUSED
from worker.integrations.kit import reading, windows
from worker.integrations.kit.base import Page, SyncRequest

Ask = Callable[[str, str, Mapping[str, str]], Awaitable[bytes]]
"""Asks for a part of the account: the name that quotas count, the last part of the path, and the query."""

_SHORTER = (89, 60, 30)
_MOST_TOGETHER = 5000


class _Answer(msgspec.Struct, gc=False):
    transactions: list[msgspec.Raw]
    continuation_key: str | None = None


class _Place(msgspec.Struct, gc=False):
    """Where the list goes on: the continuation key, how often contents of its last day were listed, the strategy."""

    key: str = ""
    seen: dict[str, int] = {}
    longest: bool = False


_answer, _place = reading.Reader(_Answer), reading.Reader(_Place)


class History:
    """The list of one account.

    Args:
        request: the request of the sync.
        account: the account.
        ask: asks the bank for a part of the account.
    """

    def __init__(self, request: SyncRequest, account: Listed, ask: Ask) -> None:
        self._request, self._account, self._ask = request, account, ask
        self._cursor = windows.DateCursor.parse(request.cursors.get(account.feed))
        self._first = windows.first_day(self._cursor, request)
        self._is_first_load = self._cursor.through is None
        self._place = _Place(longest=self._is_first_load)
        if self._cursor.window is not None and self._cursor.window[0] == self._first:
            with suppress(BadPayload):  # a cursor that cannot be read begins the list anew
                self._place = _place.page(self._cursor.tail.encode())

    async def pages(self) -> AsyncIterator[Page]:
        """The first load page by page; later ones as one page, so that pending rows that are not listed may vanish.

        If the bank does not take the continuation key, the list begins anew, once.

        Raises:
            BadPayload: the list does not end.
            ProviderError: the bank gives no list.
        """
        request, account, came = self._request, self._account, list[reading.Split]()
        today, rows, keys = request.now.date(), Rows(account.key, self._place.seen.items()), {self._place.key}
        whole, began_anew = not self._place.key, False
        while True:
            try:
                answer = _answer.page(await self._next())
            except BadRequest:
                if not self._place.key or began_anew:
                    raise
                self._place, rows, keys, came = _Place(longest=self._is_first_load), Rows(account.key), {""}, []
                whole = began_anew = True
                continue
            came.append(rows.split(answer.transactions))
            if not answer.continuation_key:
                break
            if answer.continuation_key in keys:
                raise BadPayload("continuation_key_repeats")
            keys.add(answer.continuation_key)
            self._place = _Place(answer.continuation_key, rows.last_day, self._place.longest)
            if sum(len(one.rows) for one in came) >= (1 if self._is_first_load else _MOST_TOGETHER):
                tail = msgspec.json.encode(self._place).decode()
                at = windows.at_offset(self._cursor, request, (self._first, today), tail=tail)
                yield self._page(came, at, more=True)
                came, whole = [], False
        page = self._page(came, windows.after(today, request))
        if whole:
            page.removals = rows.had_no_reference()
            page.windows = windows.surely_listed(account.key, (self._first, today), request)
        through = self._cursor.through
        if through is not None and self._first > through + timedelta(days=1):
            page.problems = (Unsupported("days_not_given", scope=Scope.ACCOUNT, account_key=account.key),)
        yield page

    async def _next(self) -> bytes:
        """The next answer. If the bank refuses the days, fewer are asked for."""
        today = self._request.now.date()
        shorter = (day for days in _SHORTER if (day := today - timedelta(days=days)) > self._first)
        while True:
            try:
                return await self._ask("transactions_page" if self._place.key else "transactions", *self._question())
            except BadRequest as error:
                later = next(shorter, None) if error.reason in PERIOD_REFUSED and not self._place.key else None
                if later is None:
                    raise
                self._first, self._place = max(later, self._first), _Place()

    def _question(self) -> tuple[str, dict[str, str]]:
        asked = {"date_from": self._first.isoformat()}
        asked |= {"strategy": "longest"} if self._place.longest else {}
        return "transactions", asked | ({"continuation_key": self._place.key} if self._place.key else {})

    def _page(self, came: list[reading.Split], cursor: windows.DateCursor, *, more: bool = False) -> Page:
        return Page(
            feed=self._account.feed,
            cursor=str(cursor),
            more=more,
            transactions=[row for one in came for row in one.rows],
            rejects=[reject for one in came for reject in one.rejects],
            map_transaction=mapper(self._request.now.date()),
        )

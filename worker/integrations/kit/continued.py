"""Reads an account's list of transactions whose answers name a key with which the list continues.

The first load is stored page by page, and goes on at its last key after an interruption. A later list is one page, so
that pending rows that it does not have may vanish. If the provider does not take a key, the list begins anew, once. If
it does not give so many days, fewer are asked for.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import suppress
from datetime import date, timedelta

import msgspec

from worker.errors import BadPayload, BadRequest, Scope, Unsupported
from worker.integrations.kit import reading, windows
from worker.integrations.kit.base import Page, RawRecord, SyncRequest
from worker.integrations.kit.references import Rows
from worker.models.records import TransactionRecord

Ask = Callable[[date, str, bool], Awaitable[tuple[list[msgspec.Raw], str | None]]]
"""Asks for the list from a day on, with a continuation key ("" at its beginning); the last argument says whether all
that there is may be asked for. Returns rows, and the key with which the list continues; None at its end."""

_MOST_TOGETHER = 5000


class _Place(msgspec.Struct, gc=False):
    """Where the list goes on: the key, how often contents of its last day were listed, whether all was asked for."""

    key: str = ""
    seen: dict[str, int] = {}
    longest: bool = False


_place = reading.Reader(_Place)


class Continued:
    """The list of one account.

    Args:
        request: the request of the sync.
        account_key: the account; its feed is `account:<key>`.
        ask: asks for a part of the list.
        rows: gives rows their keys; made anew with how often contents were listed.
        map_transaction: maps a row.
        refused: reasons of `BadRequest` that mean that there are not so many days.
        shorter: how many days are asked for then, one after the other.
    """

    def __init__(
        self,
        request: SyncRequest,
        account_key: str,
        ask: Ask,
        rows: Callable[[Iterable[tuple[str, int]]], Rows],
        map_transaction: Callable[[RawRecord], TransactionRecord],
        *,
        refused: frozenset[str] = frozenset(),
        shorter: tuple[int, ...] = (),
    ) -> None:
        self._request, self._key, self._feed = request, account_key, f"account:{account_key}"
        self._ask, self._new_rows, self._map, self._refused = ask, rows, map_transaction, refused
        self._today = request.now.date()
        self._shorter = [self._today - timedelta(days=days) for days in shorter]
        self._cursor = windows.DateCursor.parse(request.cursors.get(self._feed))
        self._first = windows.first_day(self._cursor, request)
        self._is_first_load = self._cursor.through is None
        self._place = _Place(longest=self._is_first_load)
        if self._cursor.window is not None and self._cursor.window[0] == self._first:
            with suppress(BadPayload):  # a cursor that cannot be read begins the list anew
                self._place = _place.page(self._cursor.tail.encode())

    async def pages(self) -> AsyncIterator[Page]:
        """The pages of the list.

        Raises:
            BadPayload: `continuation_key_repeats`: the list does not end.
            ProviderError: the provider gives no list.
        """
        came, rows, keys = list[reading.Split](), self._new_rows(self._place.seen.items()), {self._place.key}
        whole, began_anew = not self._place.key, False
        while True:
            try:
                raws, key = await self._next()
            except BadRequest:
                if not self._place.key or began_anew:
                    raise
                self._place, rows, keys, came = _Place(longest=self._is_first_load), self._new_rows(()), {""}, []
                whole = began_anew = True
                continue
            came.append(rows.split(raws))
            if not key:
                break
            if key in keys:
                raise BadPayload("continuation_key_repeats")
            keys.add(key)
            self._place = _Place(key, rows.last_day, self._place.longest)
            if sum(len(one.rows) for one in came) >= (1 if self._is_first_load else _MOST_TOGETHER):
                tail = msgspec.json.encode(self._place).decode()
                at = windows.at_offset(self._cursor, self._request, (self._first, self._today), tail=tail)
                yield self._page(came, at, more=True)
                came, whole = [], False
        page = self._page(came, windows.after(self._today, self._request))
        if whole:
            page.removals = rows.had_no_reference()
            page.windows = windows.surely_listed(self._key, (self._first, self._today), self._request)
        through = self._cursor.through
        if through is not None and self._first > through + timedelta(days=1):
            page.problems = (Unsupported("days_not_given", scope=Scope.ACCOUNT, account_key=self._key),)
        yield page

    async def _next(self) -> tuple[list[msgspec.Raw], str | None]:
        """The next answer. If the provider refuses the days, fewer are asked for."""
        while True:
            try:
                return await self._ask(self._first, self._place.key, self._place.longest)
            except BadRequest as error:
                later = next((day for day in self._shorter if day > self._first), None)
                if error.reason not in self._refused or self._place.key or later is None:
                    raise
                self._first, self._place = later, _Place()

    def _page(self, came: list[reading.Split], cursor: windows.DateCursor, *, more: bool = False) -> Page:
        return Page(
            feed=self._feed,
            cursor=str(cursor),
            more=more,
            transactions=[row for one in came for row in one.rows],
            rejects=[reject for one in came for reject in one.rejects],
            map_transaction=self._map,
        )

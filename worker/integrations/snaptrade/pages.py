"""Makes pages of SnapTrade's answers, without any HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from functools import partial

import msgspec

from worker.errors import NotReady, ReauthRequired, Scope
from worker.integrations.kit import holdings, money, reading, windows
from worker.integrations.kit.base import Page, SyncRequest
from worker.integrations.snaptrade import mapping
from worker.integrations.snaptrade.mapping import Account, Cash
from worker.integrations.snaptrade.vocabulary import DISABLED
from worker.models.records import AccountRecord, HoldingRecord
from worker.models.vocabulary import AccountStatus


class _Connection(msgspec.Struct, gc=False):
    id: str
    disabled: bool | None = None


class _Activities(msgspec.Struct, gc=False):
    data: list[msgspec.Raw]
    pagination: dict[str, int]


Listed = tuple[Account, AccountRecord]
_connection, _records = reading.Reader(_Connection), reading.Reader(list[msgspec.Raw])
_positions, _activities = reading.ListReader("results"), reading.Reader(_Activities)


def listing(connections: bytes, accounts: bytes) -> tuple[Page, list[Listed]]:
    """A page with the accounts, and those of them that can be read now. The page's problems say why others cannot.

    What SnapTrade says of a connection that no longer works comes from its store, so it is not asked for.
    """
    known, _ = reading.read_each(_records.page(connections), "connection", _connection.record)
    broken = {one.id for one in known if one.disabled}
    read, rejects = reading.read_each(_records.page(accounts), "account", mapping.account)
    page, wanted = Page(rejects=rejects, accounts_complete=bool(read) and not rejects), list[Listed]()
    best: dict[object, Listed] = {}
    # An account may be in two connections, for example in a broken one and in the one that replaces it.
    for one in sorted(read, key=lambda one: (one[0].connection not in broken, one[0].created_date or "", one[0].id)):
        best[one[0].lasting] = one
    for given, record in (one for one in read if best[one[0].lasting] is one):
        page.accounts = [*page.accounts, record]
        if given.connection in broken:
            problem = ReauthRequired(DISABLED, scope=Scope.ACCOUNT, account_key=given.id)
            page.problems = [*page.problems, problem]
        elif record.status is not AccountStatus.INACCESSIBLE:
            wanted.append((given, record))
    return page, wanted


def figures(listed: Listed, answers: Sequence[bytes]) -> Page:
    """A page with an account's balance and positions; `answers` has none if only the account's value is known."""
    (given, record), page, cash, held = listed, Page(), list[Cash](), list[HoldingRecord]()
    if answers:
        cash, page.rejects = reading.read_all(_records.page(answers[0]), "balance", mapping.cash, given.id)
        read = partial(mapping.holding, key=given.id, currency=record.currency)
        held, bad = reading.read_all(_positions.page(answers[1]), "holding", read, given.id)
        page.rejects = [*page.rejects, *bad]
        page.holdings_complete_for = frozenset() if page.rejects else frozenset({given.id})
    several = [(one.currency.code or "", one.cash or money.ZERO) for one in cash if len(cash) > 1 and one.cash]
    page.holdings = reading.distinct([*held, *(holdings.of_money("snaptrade", given.id, *one) for one in several)])
    if not any(reject.kind == "balance" for reject in page.rejects):
        stated, bad = reading.read_each([given.balance], "balance", lambda _: mapping.balance(given, cash), given.id)
        page.balances, page.rejects = stated, [*page.rejects, *bad]
    return page


def first_day(request: SyncRequest, given: Account) -> date | None:
    """The day from which an account's activities are to be read; None if there is nothing to read.

    There is nothing if an earlier run has read it, or if SnapTrade has not asked the brokerage since.

    Raises:
        NotReady: SnapTrade has not read all of the account's history yet.
    """
    if given.feed in request.done:
        return None
    if given.synced("transactions").initial_sync_completed is False:
        raise NotReady("initial_sync")
    cursor = windows.DateCursor.parse(request.cursors.get(given.feed))
    is_asked_for = request.since is not None or request.caller.manual
    return None if cursor.tail == given.pulled and not is_asked_for else windows.first_day(cursor, request)


def page_of(body: bytes) -> tuple[list[msgspec.Raw], int]:
    """The activities of an answer, and how many there are in the whole window."""
    answer = _activities.page(body)
    return answer.data, answer.pagination.get("total", -1)


def history(request: SyncRequest, listed: Listed, window: tuple[date, date], rows: list[msgspec.Raw]) -> Page:
    """A page with all activities of a window, not yet read.

    The cursor stays at the day up to which SnapTrade has everything, so that the days after it are read again.
    """
    (given, record), last, today = listed, window[1], request.now.date()
    found = reading.split_by_id(rows, given.id)
    page = Page(transactions=found.rows, rejects=found.rejects)
    page.map_transaction = partial(mapping.transaction, currency=record.currency)
    page.windows = windows.surely_listed(given.id, window, request, posted=True)
    through = min(last, given.covered or last)
    if last >= today:
        page.feed, page.cursor = given.feed, str(windows.DateCursor(through=through, tail=given.pulled))
    elif through == last:
        page.feed, page.cursor, page.more = given.feed, str(windows.after(last, request)), True
    return page

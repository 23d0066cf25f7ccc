"""Makes pages of SimpleFIN's answers, without any HTTP."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date
from functools import partial

import msgspec

from worker.errors import BadRecord, ProviderError, RateLimited
from worker.integrations.kit import reading, windows
from worker.integrations.kit.account_keys import assign_keys
from worker.integrations.kit.base import Page, SyncRequest, Window
from worker.integrations.simplefin import mapping
from worker.models.records import AccountRecord

ACCOUNTS_FEED = "accounts"


def listing(request: SyncRequest, answer: mapping.AccountSet) -> tuple[Page, dict[str, mapping.Account]]:
    """A page with accounts, balances and positions; and the accounts, by key."""
    read, rejects = reading.read_each(answer.accounts, "account", lambda raw: (mapping.account.record(raw), raw))
    keys, memory = assign_keys([(one.id, one.place) for one, _ in read], request.cursors.get(ACCOUNTS_FEED))
    names = {connection.conn_id: connection.name for connection in answer.connections or ()}
    page, accounts = Page(feed=ACCOUNTS_FEED, cursor=memory, rejects=rejects), {}
    for (given, raw), key in zip(read, keys, strict=True):
        try:
            account = mapping.account_record(given, key, names.get(given.conn_id or "", given.org.name))
        except BadRecord as error:
            page.rejects = [*page.rejects, reading.reject("account", error, raw)]
            continue
        accounts[key], page.accounts = given, [*page.accounts, account]
        _add_figures(page, account, given, raw)
    page.accounts_complete = bool(accounts) and len(accounts) == len(answer.accounts) and not answer.notices()
    return page, accounts


def _add_figures(page: Page, account: AccountRecord, given: mapping.Account, raw: bytes) -> None:
    key, own, positions = account.account_key, account.currency, given.holdings or []
    stated = partial(mapping.balance_record, key=key, currency=own)
    balances, bad = reading.read_each([msgspec.Raw(raw)], "balance", stated, key)
    held, worse = reading.read_all(positions, "holding", partial(mapping.holding_record, key=key, currency=own), key)
    page.balances, page.holdings = [*page.balances, *balances], [*page.holdings, *reading.distinct(held)]
    page.rejects = [*page.rejects, *bad, *worse]
    if given.holdings is not None and not worse:
        page.holdings_complete_for |= {key}


def histories(
    request: SyncRequest,
    answer: mapping.AccountSet,
    accounts: dict[str, mapping.Account],
    feeds: windows.Together,
    window: tuple[date, date],
    problems: Sequence[ProviderError],
) -> Iterator[Page]:
    """The window's transactions, a page for each account that reads on here.

    Where an error speaks of the account, or of nobody in particular, rows may be missing: nothing is withdrawn. The
    cursor of such an account stays; if the error speaks of nobody, it moves over all windows but the last.
    """
    read, _ = reading.read_each(answer.accounts, "account", mapping.account.record)
    of_id = {(one.id, one.place): one for one in read}
    troubled = {problem.account_key for problem in problems if not isinstance(problem, RateLimited)}
    today = request.now.date()
    for key, listed in accounts.items():
        given = of_id.get((listed.id, listed.place))
        if given is None or not feeds.reads(key, window):
            continue
        found = mapping.split(given, key)
        page = Page(transactions=found.rows, rejects=found.rejects)
        page.map_transaction = mapping.mapper(listed, today)
        if key in troubled:
            feeds.give_up([key])
        else:
            feeds.was_read(key, window)
            if not (None in troubled and window[1] >= today):
                page.feed, page.cursor = f"account:{key}", str(windows.after(window[1], request))
                page.more = window[1] < today
            if None not in troubled:
                page.windows = (Window(key, *window),)
        yield page

"""Accounts that one call reads together: which window is asked for, of whom, and what trouble costs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta

import pytest

from tests.unit.integrations.scripts import NOW, sync_request
from worker.errors import BadPayload, BadRequest, ProviderError, RateLimited, Scope
from worker.integrations.kit.base import Page, RawRecord, SyncRequest
from worker.integrations.kit.together import Together, Told
from worker.models.records import AccountRecord
from worker.models.vocabulary import AccountType

TODAY = NOW.date()
DAY = timedelta(days=1)


def problem(key: str | None) -> ProviderError:
    return BadPayload("trouble", scope=Scope.ACCOUNT, account_key=key)


@dataclass
class Server:
    """Lists these accounts, each with one row per window; windows over `limit` days are refused or cut."""

    accounts: tuple[str, ...] = ("a", "b")
    problems: list[ProviderError] = field(default_factory=list)
    silent: str = ""
    limit: int = 10_000
    cuts: bool = False
    asked: list[tuple[int, tuple[str, ...]]] = field(default_factory=list)

    async def ask(self, window: tuple[date, date], behind: Sequence[str]) -> Told:
        days = (window[1] - window[0]).days + 1
        self.asked.append((days, tuple(behind)))
        if days > self.limit and not self.cuts:
            raise BadRequest("too_long")
        told = [key for key in behind or self.accounts if key != self.silent or not behind]
        pages = {key: Page(transactions=[RawRecord("1", key, b"{}")]) for key in told if key != self.silent}
        accounts = [
            AccountRecord(account_key=key, name=key, type=AccountType.OTHER, subtype="other", currency="EUR")
            for key in self.accounts
        ]
        listing = None if behind else Page(accounts=accounts)
        return Told(window=window, pages=pages, problems=self.problems, listing=listing, was_cut=days > self.limit)

    def read(self, request: SyncRequest) -> list[Page]:
        found: list[Page] = []
        self.pages = found

        async def go() -> None:
            async for page in Together(request, 90, 44).pages(self.ask):
                found.append(page)  # noqa: PERF401 - what came before an error counts, too

        asyncio.run(go())
        return found


def read_until(*keys: str) -> dict[str, str]:
    return {f"account:{key}": f'{{"through":"{TODAY - DAY}"}}' for key in keys}


def test_accounts_in_step_are_read_with_one_call_and_a_new_one_from_its_beginning() -> None:
    together, apart = Server(), Server()

    together.read(sync_request(read_until("a", "b")))
    apart.read(sync_request(read_until("a"), backfill=timedelta(days=100)))

    assert together.asked == [(12, ())]
    assert apart.asked == [(12, ()), (90, ("b",)), (11, ("b",))]


@pytest.mark.parametrize("cuts", [True, False])
def test_window_that_is_refused_or_cut_is_made_shorter_for_the_rest(cuts: bool) -> None:
    server = Server(limit=44, cuts=cuts)

    found = server.read(sync_request(backfill=timedelta(days=99)))

    assert [days for days, _ in server.asked] == [90, 44, 44, 12]
    assert sum(bool(page.accounts) for page in found) == 1
    assert found[-1].windows[0].last == TODAY


def test_refusal_of_a_short_window_is_an_error() -> None:
    with pytest.raises(BadRequest, match="too_long"):
        Server(limit=5).read(sync_request(read_until("a", "b")))


def test_trouble_of_one_account_keeps_its_cursor_and_the_others_read_on() -> None:
    found = Server(problems=[problem("a")]).read(sync_request(read_until("a", "b")))

    assert [(page.feed, bool(page.windows)) for page in found if page.transactions] == [
        ("", False),
        ("account:b", True),
    ]
    assert [one.account_key for page in found for one in page.problems] == ["a"]


def test_trouble_of_nobody_in_particular_withdraws_nothing_and_keeps_the_last_window_unread() -> None:
    found = Server(problems=[problem(None)]).read(sync_request(backfill=timedelta(days=100)))

    pages = [page for page in found if page.transactions]
    assert [page.feed for page in pages] == ["account:a", "account:b", "", ""]
    assert not [page for page in pages if page.windows]


def test_account_that_an_answer_leaves_out_is_given_up_for_now() -> None:
    server = Server(silent="b")

    found = server.read(sync_request(read_until("a")))

    assert [(one.reason, one.account_key) for page in found for one in page.problems] == [("account_missing", "b")]


def test_warning_of_too_many_calls_stores_what_came_and_stops() -> None:
    server = Server(problems=[RateLimited("warned", scope=Scope.PROVIDER, retry_after=6 * DAY)])

    with pytest.raises(RateLimited) as caught:
        server.read(sync_request(read_until("a", "b")))

    assert caught.value.retry_after == 6 * DAY
    assert [page.feed for page in server.pages if page.transactions] == ["account:a", "account:b"]

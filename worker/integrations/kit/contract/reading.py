"""Checks of reading: a sync resumes from cursors, records use our vocabulary, no full account number is returned."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from decimal import Decimal
from typing import Any, cast

from worker.integrations.kit.base import Caller, Page
from worker.integrations.kit.contract.subject import Subject, every, require, rows_of
from worker.integrations.kit.heard import Heard
from worker.models.records import AccountRecord, TransactionRecord
from worker.models.vocabulary import AccountStatus, AccountType, SecurityType, TransactionStatus, TransactionType

_MOST_BREAKS = 200
_SHORTEST_NUMBER = 8

_Rows = dict[tuple[str, str], TransactionRecord]


def sync_that_is_broken_off_after_each_page_goes_on_from_cursors_alone(subject: Subject) -> None:
    """A sync that is stopped after each page loses nothing when it continues with only the cursors."""
    whole: _Rows = {}
    for page in asyncio.run(subject.connected().read()):
        whole |= rows_of(page)
    pieced, breaks = asyncio.run(_in_pieces(subject))
    require(pieced == whole, f"from cursors alone {len(pieced)} rows were read, in one go {len(whole)}, or they differ")
    require(breaks > 1, "the stand-in must serve several pages with a cursor, or this shows nothing")


async def _in_pieces(subject: Subject) -> tuple[_Rows, int]:
    found: _Rows = {}
    cursors: dict[str, str] = {}
    trial = subject.connected()
    token = (await trial.link()).access_token
    for breaks in range(_MOST_BREAKS):
        moved = False
        stream = cast("Any", trial.integration.pages(trial.request(token, dict(cursors))))
        async with aclosing(stream) as pages:
            async for page in pages:
                found |= rows_of(page)
                if page.cursor is not None and cursors.get(page.feed) != page.cursor:
                    cursors[page.feed] = page.cursor
                    moved = True
                    break
        if not moved:
            return found, breaks
    raise AssertionError(f"the cursors do not advance: {_MOST_BREAKS} syncs that go on did not come to an end")


def everything_is_mapped_into_the_closed_vocabulary(subject: Subject) -> None:
    """Correct data gives no rejects and no problems, and every type is one of our own vocabulary."""
    pages = asyncio.run(subject.connected().read())
    rejects = [f"{reject.kind}: {reject.reason}" for page in pages for reject in page.rejects]
    require(not rejects, f"the stand-in's own records were refused: {', '.join(sorted(set(rejects)))}")
    problems = [f"{type(error).__name__} {error.reason}" for page in pages for error in page.problems]
    require(not problems, f"problems with a stand-in in good order: {', '.join(problems)}")
    _check_accounts(pages)
    rows = [row for page in pages for row in rows_of(page).values()]
    require(rows, "the stand-in must serve transactions")
    for row in rows:
        require(isinstance(row.type, TransactionType), f"{row.type!r} is no TransactionType")
        require(isinstance(row.status, TransactionStatus), f"{row.status!r} is no TransactionStatus")
        amount: object = row.amount
        require(isinstance(amount, Decimal) and amount.is_finite(), "amounts must be finite Decimals")
        require(row.occurred_at is None or row.occurred_at.tzinfo is not None, "`occurred_at` must have a time zone")


def _check_accounts(pages: list[Page]) -> None:
    accounts = [account for page in pages for account in page.accounts]
    require(accounts, "`pages` must list the accounts")
    for account in accounts:
        require(isinstance(account.type, AccountType), f"{account.type!r} is no AccountType")
        require(isinstance(account.status, AccountStatus), f"{account.status!r} is no AccountStatus")
        require(len(account.mask or "") <= 4, "`mask` is the last four characters of the number, no more")
    keys = {account.account_key for account in accounts}
    for page in pages:
        require(all(balance.account_key in keys for balance in page.balances), "a balance of an account not listed")
        for holding in page.holdings:
            require(holding.account_key in keys, "a holding of an account that is not listed")
            require(isinstance(holding.security.type, SecurityType), f"{holding.security.type!r} is no SecurityType")
            require(holding.quantity.is_finite(), "quantities must be finite Decimals")


def accounts_that_a_new_grant_lists_are_those_of_its_first_sync(subject: Subject) -> None:
    """Where a new grant can list its accounts, they are those that its first sync reads."""
    trial = subject.connected()

    async def both() -> tuple[list[AccountRecord], list[AccountRecord]]:
        token = (await trial.link()).access_token
        if not trial.integration.can_list_accounts:
            return [], []
        listed = await trial.integration.list_accounts(Caller(manual=True), access_token=token)
        pages = await every(trial.integration.pages(trial.request(token)))
        return list(listed), [account for page in pages for account in page.accounts]

    listed, read = asyncio.run(both())
    require(listed == read, "`list_accounts` and `pages` must list the same accounts, or two links are not recognised")


def accounts_are_listed_before_their_transactions(subject: Subject) -> None:
    """An account is listed before its transactions; otherwise these would go to quarantine."""
    listed: set[str] = set()
    for page in asyncio.run(subject.connected().read()):
        listed |= {account.account_key for account in page.accounts}
        early = {row.account_key for row in page.transactions} - listed
        require(not early, "transactions came before the account that they belong to was listed")


def amounts_are_those_of_the_books(subject: Subject) -> None:
    """Amounts equal those in the stand-in's books, to the last digit; money into the account is positive."""
    trial = subject.connected()
    read = {key: row for page in asyncio.run(trial.read()) for (_, key), row in rows_of(page).items()}
    books = trial.login.ledger.transactions
    both = read.keys() & books.keys()
    require(both, "transaction keys must be the provider's ids, as the stand-in's books have them")
    wrong = [key for key in both if read[key].amount != books[key].amount]
    require(not wrong, f"{len(wrong)} of {len(both)} amounts are not those of the books: is money in positive?")


def no_full_account_number_leaves_the_integration(subject: Subject) -> None:
    """No record, cursor or problem contains a full account number."""
    trial = subject.connected()
    pages = asyncio.run(trial.read())
    kept = repr([(p.accounts, p.balances, p.holdings, p.cursor, p.problems, rows_of(p)) for p in pages])
    numbers = [account.number for account in trial.login.ledger.accounts.values()]
    shown = [number for number in numbers if len(number) >= _SHORTEST_NUMBER and number in kept]
    require(not shown, "a full account number is in a record, a cursor or a problem")


def second_sync_from_the_cursors_reads_no_less(subject: Subject) -> None:
    """A second sync with nothing new comes to an end and moves no cursor back."""
    trial = subject.connected()

    async def twice() -> tuple[int, int]:
        token = (await trial.link()).access_token
        first = await every(trial.integration.pages(trial.request(token)))
        cursors = {page.feed: page.cursor for page in first if page.cursor is not None}
        second = await every(trial.integration.pages(trial.request(token, cursors)))
        return sum(len(page.transactions) for page in first), sum(len(page.transactions) for page in second)

    rows, again = asyncio.run(twice())
    require(again < rows, f"a second sync read {again} rows again, of {rows}: are the cursors heeded?")


def readings_of_unchanged_books_hear_the_same_answers(subject: Subject) -> None:
    """What differs in each answer although nothing has happened is named in `varying`."""
    trial = subject.connected()

    async def twice() -> list[Heard]:
        token = (await trial.link()).access_token
        pages = await every(trial.integration.pages(trial.request(token)))
        cursors = {page.feed: page.cursor for page in pages if page.cursor is not None}
        both = [Heard(), Heard()]
        for heard in both:
            await every(trial.integration.pages(trial.request(token, cursors, Caller(heard=heard))))
        return both

    one, other = asyncio.run(twice())
    require(one.value or not one.is_comparable, "`pages` must make its calls with `request.caller`")
    require(one.value == other.value, "answers differ although nothing has happened: name what varies in `varying`")


CHECKS = (
    accounts_that_a_new_grant_lists_are_those_of_its_first_sync,
    accounts_are_listed_before_their_transactions,
    everything_is_mapped_into_the_closed_vocabulary,
    amounts_are_those_of_the_books,
    sync_that_is_broken_off_after_each_page_goes_on_from_cursors_alone,
    second_sync_from_the_cursors_reads_no_less,
    readings_of_unchanged_books_hear_the_same_answers,
    no_full_account_number_leaves_the_integration,
)

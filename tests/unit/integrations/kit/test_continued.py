"""Lists that continue by a key, and rows whose references are not reliable."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import partial
from typing import Any

import msgspec
import pytest

from tests.unit.integrations.scripts import NOW, all_pages, sync_request
from worker.errors import BadPayload, BadRecord, BadRequest
from worker.integrations.kit import account_keys, references
from worker.integrations.kit.base import Page, RawRecord, SyncRequest
from worker.integrations.kit.continued import Continued
from worker.models.records import AccountRecord
from worker.models.vocabulary import AccountType

TODAY = NOW.date()
DAY = timedelta(days=1)


def raw(**members: Any) -> msgspec.Raw:
    return msgspec.Raw(json.dumps(members).encode())


def identity(text: bytes) -> references.Identity:
    given = json.loads(text)
    if "what" not in given:
        raise BadRecord("what_missing")
    return references.Identity(given.get("ref"), references.digest(given["what"]), given.get("twin"), TODAY)


@dataclass
class Provider:
    """Lists these pages; `refuses` answers the calls of these numbers with an error."""

    pages: list[list[msgspec.Raw]]
    refuses: dict[int, str] = field(default_factory=dict)
    asked: list[tuple[date, str, bool]] = field(default_factory=list)

    async def ask(self, first: date, key: str, longest: bool) -> tuple[list[msgspec.Raw], str | None]:
        self.asked.append((first, key, longest))
        if reason := self.refuses.get(len(self.asked)):
            raise BadRequest(reason)
        number = int(key or 0)
        return self.pages[number], str(number + 1) if number + 1 < len(self.pages) else None

    def read(self, request: SyncRequest) -> list[Page]:
        def mapped(row: RawRecord) -> Any:
            raise NotImplementedError

        rows = partial(references.Rows, identity, "a")
        few = {"refused": frozenset({"TOO_LONG"}), "shorter": (89, 30)}
        return asyncio.run(all_pages(Continued(request, "a", self.ask, rows, mapped, **few).pages()))


READ_BEFORE = {"account:a": json.dumps({"through": (TODAY - DAY).isoformat()})}


def keys(pages: list[Page]) -> list[str]:
    return [row.key for page in pages for row in page.transactions]


def test_first_load_is_stored_page_by_page_and_goes_on_at_its_last_key() -> None:
    provider = Provider([[raw(ref="1", what=1)], [raw(what=2)], [raw(what=2)]])
    whole = provider.read(sync_request())
    provider.asked.clear()

    rest = provider.read(sync_request({"account:a": str(whole[1].cursor)}))

    assert [page.more for page in whole] == [True, True, False]
    assert len(set(keys(whole))) == 3
    assert keys(rest) == keys(whole)[2:], "the equal row before the break has taken the number 1"
    assert [(key, longest) for _, key, longest in provider.asked] == [("2", True)]


def test_later_list_is_one_page_and_does_not_ask_for_everything() -> None:
    provider = Provider([[raw(ref="1", what=1)], [], [raw(ref="2", what=2)]])

    (page,) = provider.read(sync_request(READ_BEFORE))

    assert keys([page]) == ["1", "2"]
    assert [(one.first, one.last) for one in page.windows] == [(TODAY - 10 * DAY, TODAY)]
    assert {longest for _, _, longest in provider.asked} == {False}


def test_key_that_is_refused_begins_the_list_anew_once() -> None:
    once = Provider([[raw(what=1)], [raw(what=1)]], {2: "WRONG_KEY"})
    always = Provider(once.pages, {2: "WRONG_KEY", 4: "WRONG_KEY"})

    assert len(set(keys(once.read(sync_request(READ_BEFORE))))) == 2
    with pytest.raises(BadRequest, match="WRONG_KEY"):
        always.read(sync_request(READ_BEFORE))


def test_days_that_are_refused_are_made_fewer_and_nothing_else_is() -> None:
    provider = Provider([[raw(ref="1", what=1)]], {1: "TOO_LONG", 2: "TOO_LONG"})

    provider.read(sync_request())

    assert provider.asked[1:] == [(TODAY - 89 * DAY, "", False), (TODAY - 30 * DAY, "", False)]
    with pytest.raises(BadRequest, match="OTHER"):
        Provider([[]], {1: "OTHER"}).read(sync_request())


def test_list_that_does_not_end_is_refused() -> None:
    class Endless(Provider):
        async def ask(self, first: date, key: str, longest: bool) -> tuple[list[msgspec.Raw], str | None]:
            return [], "1"

    with pytest.raises(BadPayload, match="continuation_key_repeats"):
        Endless([]).read(sync_request())


def test_row_under_two_references_keeps_the_smaller_and_one_that_cannot_be_read_is_rejected() -> None:
    rows = references.Rows(identity, "a", stored=lambda text: text.replace(b"twin", b"----"))

    found = rows.split([raw(ref="b", what=1, twin="t"), raw(ref="a", what=1, twin="t"), raw(ref="c"), raw(what=1)])

    assert [row.key for row in found.rows] == ["a", references.digest(1)]
    assert b"----" in found.rows[0].raw
    assert [one.reason for one in found.rejects] == ["what_missing"]
    assert [one.key for one in rows.had_no_reference()] == [f"{references.digest(1)}:2"]


def test_listing_keeps_keys_apart_and_rejects_an_account_by_its_key() -> None:
    def record(one: tuple[str, str], key: str) -> AccountRecord:
        if one[1] == "bad":
            raise BadRecord("currency_missing")
        return AccountRecord(account_key=key, name="n", type=AccountType.OTHER, subtype="other", currency="EUR")

    def listed(*accounts: tuple[str, str], cursor: str | None = None) -> Page:
        page, found = account_keys.listing(
            accounts, lambda one: one, record, msgspec.json.encode, feed="accounts", cursor=cursor
        )
        assert [account for _, account in found] == list(page.accounts)
        return page

    first = listed(("1", "A"), ("1", "B"))
    second = listed(("1", "B"), ("2", "bad"), cursor=first.cursor)

    assert [one.account_key for one in first.accounts] == ["1", "1@B"]
    assert [one.account_key for one in second.accounts] == ["1@B"]
    assert [(one.account_key, one.reason) for one in second.rejects] == [("2", "currency_missing")]
    assert (first.accounts_complete, second.accounts_complete, listed().accounts_complete) == (True, False, False)

"""Accounts with ids of a session, which were described when it began."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec
import pytest

from worker.errors import BadRecord, RateLimited, Transient
from worker.integrations.kit import money
from worker.integrations.kit.base import Page
from worker.integrations.kit.session_accounts import FEED, Described, listing
from worker.models.records import AccountRecord
from worker.models.vocabulary import AccountType

KEPT = [
    Described("h-1", ["h-1", "o-1"], "old-1", "Current", "3400", "EUR", "CACC"),
    Described("h-2", [], "old-2", currency="EUR"),
]


def record(one: Described, key: str) -> AccountRecord:
    currency = money.currency_or_address(one.currency or "")
    return AccountRecord(account_key=key, name=one.name, type=AccountType.OTHER, subtype="other", currency=currency)


async def unasked(one: Described) -> Described:
    raise AssertionError(one)


def listed(
    *ids: Described, kept: Sequence[Described] = KEPT, describe: object = unasked, cursor: str | None = None
) -> tuple[Page, dict[str, AccountRecord]]:
    return asyncio.run(listing(ids, kept, describe=describe, record=record, cursor=cursor))  # type: ignore[arg-type]


def problems(page: Page) -> list[tuple[str, str, str | None]]:
    return [(type(one).__name__, one.reason, one.account_key) for one in page.problems]


def test_account_that_was_described_is_recognised_by_its_id_of_the_session() -> None:
    page, readable = listed(Described("h-9", [], "old-1"), Described("h-2", ["h-2"], "old-2"))

    assert {uid: (one.account_key, one.name) for uid, one in readable.items()} == {
        "old-1": ("h-9", "Current"),
        "old-2": ("h-2", ""),
    }
    assert (page.feed, page.accounts_complete, problems(page)) == (FEED, True, [])


def test_account_that_was_not_described_is_asked_for() -> None:
    async def describe(one: Described) -> Described:
        return Described("x", currency="SEK", name="Savings")

    page, readable = listed(Described("h-3", [], "new-3"), describe=describe)

    assert [(one.account_key, one.name, one.currency) for one in page.accounts] == [("h-3", "Savings", "SEK")]
    assert list(readable) == ["new-3"]


def test_account_that_cannot_be_described_costs_itself_alone() -> None:
    async def describe(one: Described) -> Described:
        raise BadRecord("odd") if one.uid == "new-3" else Transient("down")

    page, readable = listed(
        Described("h-1", [], "old-1"), Described("h-3", [], "new-3"), Described("h-4", [], "new-4"), describe=describe
    )

    assert list(readable) == ["old-1"]
    assert problems(page) == [("BadPayload", "no_details:odd", "h-3"), ("BadPayload", "no_details:down", "h-4")]
    assert not page.accounts_complete


def test_limit_of_the_whole_login_is_no_problem_of_an_account() -> None:
    async def describe(one: Described) -> Described:
        raise RateLimited("throttled")

    with pytest.raises(RateLimited, match="throttled"):
        listed(Described("h-3", [], "new-3"), describe=describe)


@pytest.mark.parametrize("again", [(), (Described("h-2"),)])
def test_account_without_an_id_of_the_session_is_listed_and_is_its_own_trouble(again: tuple[Described, ...]) -> None:
    kept = [KEPT[0], Described("h-2", currency="EUR")]
    page, readable = listed(Described("h-1", [], "old-1"), *again, kept=kept)

    assert sorted(one.account_key for one in page.accounts) == ["h-1", "h-2"]
    assert list(readable) == ["old-1"]
    assert problems(page) == [("AccountGone", "account_unreadable", "h-2")]
    assert page.accounts_complete


def test_session_that_names_no_id_of_an_account_says_so_and_does_not_ask() -> None:
    page, readable = listed(Described("h-1", [], "old-1"), Described("h-3"))

    assert list(readable) == ["old-1"]
    assert problems(page) == [("BadPayload", "no_details:id_missing", "h-3")]
    assert not page.accounts_complete


def test_accounts_with_the_same_lasting_id_keep_the_keys_that_their_currencies_got() -> None:
    twins = [Described("h", [], "a", currency="EUR"), Described("h", [], "b", currency="USD")]
    first, _ = listed(*twins, kept=twins)
    again, readable = listed(*reversed(twins), kept=twins, cursor=first.cursor)

    assert {one.currency: one.account_key for one in first.accounts} == {"EUR": "h", "USD": "h@USD"}
    assert {uid: one.account_key for uid, one in readable.items()} == {"a": "h", "b": "h@USD"}
    assert again.cursor == first.cursor


def test_account_that_cannot_be_mapped_is_rejected_alone() -> None:
    page, readable = listed(
        Described("h-1", [], "old-1"), Described("h-2", [], "odd"), kept=[KEPT[0], Described("h-2", [], "odd")]
    )

    assert list(readable) == ["old-1"]
    assert [(one.reason, one.account_key) for one in page.rejects] == [("currency_missing", "h-2")]
    assert not page.accounts_complete


def test_number_is_kept_by_its_end_alone() -> None:
    one = Described("h").named("Account FI8821291587733400", "FI8821291587733400")

    assert (one.name, one.mask) == ("Account FI…3400", "3400")
    assert "21291587" not in msgspec.json.encode(one).decode()
    assert (Described("h").named(None, None).name, Described("h").named(None, "").mask) == ("", None)


def test_ids_that_last_are_named_once_without_characters_that_cannot_be_stored() -> None:
    assert Described("a\0", ["a", "b", "b"]).stable_keys == ("a", "b")

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from tests.integration.sync.conftest import Linked
from tests.integration.sync.feeds import DAY, ModelIntegration, Movement, read_movement
from worker.crud.sync import pages
from worker.crud.sync.nouns import raw_hasher
from worker.crud.sync.pages import PagesApplied
from worker.crud.sync.work import Rules, RunKey, prepare
from worker.errors import BadRecord
from worker.integrations.kit.base import Page, RawRecord, Removal, Window
from worker.models import SyncRun, new_id
from worker.models.records import AccountRecord, BalanceRecord, HoldingRecord, Reject, SecurityRecord, TransactionRecord
from worker.models.vocabulary import AccountType, RunStatus, SecurityType

NOW = datetime(2025, 3, 14, 12, tzinfo=UTC)


class Applying:
    """Pages into a provider's tables, as one run."""

    def __init__(self, linked: Linked, **rules: Any) -> None:
        self.linked = linked
        self.pages = 0
        self.rules = Rules(
            **{"content_hashes": raw_hasher("model", 1), "mask": lambda raw: {"bytes": len(raw)}}
            | {"mass_deletion_share": 0.5, "open_quarantine": True}
            | rules
        )
        self.run = RunKey(new_id(), new_id(), linked.provider_id, "model")
        with linked.runtime.transaction() as session:
            session.add(
                SyncRun(
                    id=self.run.id,
                    owner=self.run.owner,
                    provider_id=linked.provider_id,
                    trigger="schedule",
                    status=RunStatus.RUNNING,
                    started_at=NOW,
                    heartbeat_at=NOW,
                )
            )

    def __call__(self, *together: Page, now: datetime = NOW) -> PagesApplied:
        given: dict[str, Any] = {"run": self.run, "rules": self.rules, "now": now}
        given["pages"] = [(page, prepare(page, self.rules)) for page in together]
        given["progress"] = pages.Progress(pages=self.pages)
        try:
            with self.linked.runtime.transaction() as session:
                applied = pages.apply_pages(session, **given)
        except pages.PageRefused:
            with self.linked.runtime.transaction() as session:
                applied = pages.apply_pages(session, careful=True, **given)
        self.pages += len(together)
        return applied

    def list_accounts(self, *keys: str, complete: bool = True, **more: Any) -> PagesApplied:
        listed = [AccountRecord(account_key=k, name=k, type=AccountType.DEPOSITORY, subtype="checking") for k in keys]
        return self(Page(accounts=listed, accounts_complete=complete, **more))

    def rows(self, *movements: Movement, **more: Any) -> PagesApplied:
        return self(of(movements, **more))


def of(movements: Sequence[Movement], **more: Any) -> Page:
    page: dict[str, Any] = {"transactions": [one.raw() for one in movements], "map_transaction": read_movement}
    return Page(**page | more)


@pytest.fixture
def apply(linked: Linked) -> Applying:
    applying = Applying(linked)
    applying.list_accounts("A", "B")
    return applying


def kept(linked: Linked) -> list[tuple[Any, ...]]:
    return linked.rows(
        "SELECT kind, record_key, reason FROM quarantine WHERE provider_id = :id AND resolved_at IS NULL ORDER BY 1, 2"
    )


# Pages and cursors


@pytest.mark.deep
def test_unchanged_record_is_read_anew_when_what_it_is_read_with_changes(apply: Applying) -> None:
    movement = Movement("t1", "A", "1.00")

    def listed(security: str) -> Page:
        def read(raw: RawRecord) -> TransactionRecord:
            named = SecurityRecord(key=security, type=SecurityType.EQUITY)
            return msgspec.structs.replace(read_movement(raw), security=named)

        return replace(of([movement]), map_transaction=read, beside={("A", "t1"): security.encode()})

    done = [apply(listed(security)).tally for security in ("plaid:s", "cusip:037833100", "cusip:037833100")]

    assert [tally["transactions", "changed"] for tally in done] == [0, 1, 0]
    assert apply.linked.rows("SELECT s.key FROM transactions t JOIN securities s ON s.id = t.security_id") == [
        ("cusip:037833100",)
    ]


@pytest.mark.deep
def test_replaying_a_page_changes_and_writes_nothing(apply: Applying) -> None:
    page = of(
        [Movement("t1", "A", "1.00"), Movement("p1", "A", "2.00", "pending")],
        feed="feed",
        cursor="c1",
        balances=[BalanceRecord(account_key="A", current=Decimal(5), source="x")],
        removals=[Removal("gone", None)],
    )
    apply(page)
    before = apply.linked.versions()

    again = apply(page)

    assert apply.linked.versions() == before
    assert again.tally.nested() == {"balances": {"unchanged": 1}, "transactions": {"unchanged": 2}}


@pytest.mark.deep
def test_page_without_cursor_leaves_the_stored_one(apply: Applying) -> None:
    apply.rows(Movement("t1", "A", "1.00"), feed="feed", cursor="c1")

    apply.rows(Movement("t2", "A", "1.00"), feed="feed")

    assert apply.linked.rows("SELECT cursor FROM sync_cursors WHERE provider_id = :id") == [("c1",)]


def test_restarted_loop_leaves_rows_as_they_were_before_it(apply: Applying) -> None:
    old = Movement("old", "A", "1.00", description="before")
    pending = Movement("p1", "A", "2.00", "pending")
    gone = Movement("gone", "A", "3.00")
    apply.rows(old, pending, gone, feed="feed", cursor="c1")
    before = apply.linked.live()
    apply.rows(replace(old, amount="9.00"), Movement("new", "A", "4.00"), feed="feed", cursor="c2", more=True)
    apply.rows(
        replace(old, amount="10.00"),
        Movement("q1", "A", "2.00", pending_key="p1"),
        feed="feed",
        cursor="c3",
        more=True,
        removals=[Removal("gone", "A"), Removal("new", "A")],
    )

    with apply.linked.runtime.transaction() as session:
        assert pages.restart_loop(session, run=apply.run, feed="feed")

    assert apply.linked.live() == before
    assert apply.linked.rows("SELECT cursor, loop_id FROM sync_cursors WHERE provider_id = :id") == [("c1", None)]
    assert apply.linked.rows("SELECT 1 FROM sync_undo") == []
    assert apply.rows(old, pending, gone).tally["transactions", "unchanged"] == 3


@pytest.mark.deep
def test_new_mapping_version_reads_stored_rows_anew(apply: Applying) -> None:
    apply.rows(Movement("t1", "A", "1.00"))
    apply.rules = replace(apply.rules, content_hashes=raw_hasher("model", 2))

    applied = apply.rows(Movement("t1", "A", "1.00"))

    assert applied.tally["transactions", "changed"] == 1


# Transactions


@pytest.mark.deep
@pytest.mark.parametrize("removal_first", [True, False])
def test_posted_transaction_takes_the_row_of_its_pending_one(apply: Applying, removal_first: bool) -> None:
    apply.rows(Movement("p1", "A", "-5.00", "pending"))
    ((row_id,),) = apply.linked.rows("SELECT id FROM transactions")
    removal = Page(removals=[Removal("p1", "A")])
    posted = of([Movement("q1", "A", "-5.75", pending_key="p1")])

    for page in (removal, posted) if removal_first else (posted, removal):
        apply(page)

    assert apply.linked.rows("SELECT id, provider_transaction_id, status, amount FROM transactions") == [
        (row_id, "q1", "posted", Decimal("-5.75"))
    ]


@pytest.mark.deep
def test_pending_row_of_an_old_page_does_not_come_back_beside_its_successor(apply: Applying) -> None:
    pending = Movement("p1", "A", "-5.00", "pending")
    apply.rows(pending)
    apply.rows(Movement("q1", "A", "-5.00", pending_key="p1"))

    apply.rows(pending)

    assert apply.linked.live().keys() == {"q1"}


def test_withdrawn_pending_row_of_an_old_page_does_not_come_back_beside_its_successor(apply: Applying) -> None:
    apply.rows(Movement("p", "A", "-5.00", status="pending"))
    apply.rows(Movement("q", "A", "-5.00"))
    apply.rows(Movement("q", "A", "-5.00", pending_key="p"))

    apply.rows(Movement("p", "A", "-5.00", status="pending"))

    assert set(apply.linked.live()) == {"q"}


@pytest.mark.deep
def test_pending_and_posted_in_one_page_are_one_row(apply: Applying) -> None:
    apply.rows(Movement("p1", "A", "-5.00", "pending"), Movement("q1", "A", "-5.00", pending_key="p1"))

    assert apply.linked.live().keys() == {"q1"}


@pytest.mark.deep
def test_removal_before_addition_and_of_an_unknown_row_are_right_in_the_end(apply: Applying) -> None:
    apply(Page(removals=[Removal("t1", None), Removal("never", "A")]))

    apply.rows(Movement("t1", "A", "1.00"))

    assert apply.linked.live().keys() == {"t1"}


@pytest.mark.deep
def test_row_that_is_listed_again_after_its_removal_comes_back(apply: Applying) -> None:
    apply.rows(Movement("t1", "A", "1.00"))
    removed = apply(Page(removals=[Removal("t1", None)]))
    assert removed.tally.nested() == {"transactions": {"removed": 1}}
    assert apply.linked.live() == {}

    apply.rows(Movement("t1", "A", "1.00"))

    assert apply.linked.live().keys() == {"t1"}
    assert apply.linked.rows("SELECT count(*) FROM transactions") == [(1,)]


@pytest.mark.deep
def test_same_id_twice_with_the_same_content_is_one_row(apply: Applying) -> None:
    apply.rows(Movement("t1", "A", "1.00"), Movement("t1", "A", "1.00"))

    assert apply.linked.rows("SELECT amount, flags FROM transactions") == [(Decimal("1.00"), None)]


def test_same_id_twice_with_different_content_keeps_the_last_and_says_so(apply: Applying) -> None:
    apply.rows(Movement("t1", "A", "1.00"), Movement("t1", "A", "2.00"))

    assert apply.linked.rows("SELECT amount, flags FROM transactions") == [(Decimal("2.00"), ["duplicate_conflict"])]


@pytest.mark.deep
def test_amounts_are_exact(apply: Applying) -> None:
    apply.rows(
        Movement("t1", "A", "0.1"), Movement("t2", "A", "0.2"), Movement("t3", "A", "12345678901234567890.123456789")
    )

    assert apply.linked.rows("SELECT sum(amount) FROM transactions WHERE amount < 1") == [(Decimal("0.3"),)]
    assert apply.linked.live()["t3"][1] == Decimal("12345678901234567890.123456789")


def test_transaction_of_an_unknown_account_goes_to_quarantine_and_the_rest_lands(apply: Applying) -> None:
    applied = apply.rows(Movement("t1", "A", "1.00"), Movement("t2", "nobody", "1.00"))

    assert kept(apply.linked) == [("transaction", "t2", "unknown_account")]
    assert applied.tally.nested()["transactions"] == {"added": 1, "quarantined": 1}


@pytest.mark.deep
@pytest.mark.parametrize("key", ["", "a\x1fb", "a\x00b", "\ud800", "k" * 600])
def test_transaction_whose_key_cannot_be_stored_goes_to_quarantine(apply: Applying, key: str) -> None:
    bad = RawRecord(key, "A", b"{}")

    apply(Page(transactions=[Movement("t1", "A", "1.00").raw(), bad], map_transaction=read_movement))

    assert apply.linked.live().keys() == {"t1"}
    assert kept(apply.linked) == [("transaction", None, "bad_key")]


def test_record_that_cannot_be_read_goes_to_quarantine_masked_and_the_rest_lands(apply: Applying) -> None:
    def read(raw: RawRecord) -> TransactionRecord:
        if raw.key == "bad":
            raise BadRecord("amount_not_finite")
        return read_movement(raw)

    page = of([Movement("t1", "A", "1.00"), Movement("bad", "A", "NaN")], map_transaction=read)

    applied = apply(page)

    assert kept(apply.linked) == [("transaction", "bad", "amount_not_finite")]
    assert applied.tally.nested()["transactions"] == {"added": 1, "quarantined": 1}
    ((payload,),) = apply.linked.rows("SELECT payload FROM quarantine")
    assert payload.keys() == {"bytes"}


@pytest.mark.deep
@pytest.mark.parametrize("expect_new", [True, False])
def test_rows_that_no_column_takes_go_to_quarantine_and_the_rest_of_the_page_lands(
    linked: Linked, expect_new: bool
) -> None:
    apply = Applying(linked, expect_new=expect_new)
    apply.list_accounts("A")
    good = [Movement(f"t{number}", "A", "1.00") for number in range(20)]
    bad = [Movement("nul", "A", "1.00", description="a\x00b"), Movement("nan", "A", "NaN")]

    applied = apply.rows(*good[:10], *bad, *good[10:])

    assert linked.live().keys() == {movement.key for movement in good}
    assert [(row[1], row[2]) for row in kept(linked)] == [("nan", "not_storable"), ("nul", "not_storable")]
    assert applied.tally.nested()["transactions"] == {"added": 20, "quarantined": 2}


@pytest.mark.deep
def test_first_load_that_meets_a_stored_row_compares_after_all(linked: Linked) -> None:
    apply = Applying(linked, expect_new=True)
    apply.list_accounts("A")
    apply.rows(Movement("t1", "A", "1.00"), Movement("t2", "A", "1.00"))

    applied = apply.rows(Movement("t1", "A", "1.00"), Movement("t2", "A", "5.00"), Movement("t3", "A", "1.00"))

    assert applied.tally.nested()["transactions"] == {"added": 1, "changed": 1, "unchanged": 1}


@pytest.mark.deep
def test_quarantined_record_is_kept_once_and_settled_when_it_can_be_stored(apply: Applying) -> None:
    unknown = Movement("t2", "C", "1.00")
    apply.rows(unknown)
    apply.rows(unknown)
    assert len(kept(apply.linked)) == 1
    apply.list_accounts("A", "B", "C")

    apply.rows(unknown)

    assert kept(apply.linked) == []
    assert apply.linked.rows("SELECT resolution FROM quarantine") == [("stored",)]


# Windows


def window(first: int = 10, last: int = 0) -> list[Window]:
    return [Window("A", DAY - timedelta(days=first), DAY - timedelta(days=last))]


@pytest.mark.deep
def test_pending_row_that_its_window_lists_no_more_is_withdrawn(apply: Applying) -> None:
    apply.rows(Movement("p1", "A", "1.00", "pending"), Movement("t1", "A", "1.00"))

    apply.rows(windows=window())

    assert apply.linked.live().keys() == {"t1"}


@pytest.mark.deep
def test_pending_row_outside_of_the_window_stays(apply: Applying) -> None:
    apply.rows(Movement("p1", "A", "1.00", "pending", day="2025-02-01"))

    apply.rows(windows=window())

    assert apply.linked.live().keys() == {"p1"}


def test_vanished_pending_row_gives_its_row_to_the_only_exact_match(apply: Applying) -> None:
    apply.rows(Movement("p1", "A", "-5.00", "pending", description="SHOP"))
    ((row_id,),) = apply.linked.rows("SELECT id FROM transactions")

    apply.rows(Movement("q1", "A", "-5.00", description="SHOP"), windows=window())

    assert apply.linked.rows("SELECT id, provider_transaction_id, status FROM transactions") == [
        (row_id, "q1", "posted")
    ]


@pytest.mark.deep
def test_vanished_pending_rows_that_match_twice_are_not_guessed_at(apply: Applying) -> None:
    apply.rows(Movement("p1", "A", "-5.00", "pending"), Movement("p2", "A", "-5.00", "pending"))

    apply.rows(Movement("q1", "A", "-5.00"), windows=window())

    assert apply.linked.live().keys() == {"q1"}
    assert apply.linked.rows("SELECT count(*) FROM transactions") == [(3,)]


@pytest.mark.deep
def test_posted_row_under_a_new_id_keeps_its_row_in_a_window_that_says_so(apply: Applying) -> None:
    apply.rows(Movement("t1", "A", "-5.00", description="SHOP"), Movement("t2", "A", "7.00"))
    before = dict(apply.linked.rows("SELECT amount, id FROM transactions"))

    apply.rows(
        Movement("again-1", "A", "-5.00", description="SHOP"),
        windows=[one._replace(posted=True) for one in window()],
    )

    assert apply.linked.live().keys() == {"again-1"}
    assert apply.linked.rows("SELECT id FROM transactions WHERE status = 'posted'") == [(before[Decimal("-5.00")],)]


@pytest.mark.deep
def test_posted_row_that_a_window_of_pending_rows_lists_no_more_stays(apply: Applying) -> None:
    apply.rows(Movement("t1", "A", "-5.00"))

    apply.rows(windows=window())

    assert apply.linked.live().keys() == {"t1"}


@pytest.mark.deep
def test_unreadable_record_in_a_window_withdraws_nothing(apply: Applying) -> None:
    apply.rows(Movement("p1", "A", "1.00", "pending"))

    apply(Page(windows=window(), rejects=[Reject(kind="transaction", reason="unreadable", account_key="A")]))

    assert apply.linked.live().keys() == {"p1"}


@pytest.mark.deep
def test_window_that_would_withdraw_most_rows_is_not_believed(apply: Applying) -> None:
    apply.rows(*(Movement(f"p{number}", "A", "1.00", "pending") for number in range(12)))

    applied = apply.rows(windows=window())

    assert len(apply.linked.live()) == 12
    assert [(problem.reason, problem.account_key) for problem in applied.problems] == [("mass_deletion", "A")]


# Accounts, balances, holdings


def statuses(linked: Linked) -> dict[str, str]:
    return dict(linked.rows("SELECT provider_account_id, status FROM accounts WHERE provider_id = :id"))


def test_account_missing_from_a_complete_listing_becomes_inaccessible_and_comes_back(apply: Applying) -> None:
    apply.list_accounts("A")
    assert statuses(apply.linked) == {"A": "active", "B": "inaccessible"}

    apply.list_accounts("A", "B")

    assert statuses(apply.linked) == {"A": "active", "B": "active"}


@pytest.mark.deep
def test_account_missing_from_an_incomplete_listing_stays(apply: Applying) -> None:
    apply.list_accounts("A", complete=False)

    assert statuses(apply.linked) == {"A": "active", "B": "active"}


def test_empty_account_list_deletes_nothing_and_is_a_problem(apply: Applying) -> None:
    applied = apply.list_accounts()

    assert statuses(apply.linked) == {"A": "active", "B": "active"}
    assert [problem.reason for problem in applied.problems] == ["mass_deletion"]


@pytest.mark.deep
def test_account_that_could_not_be_read_has_not_vanished(apply: Applying) -> None:
    apply.list_accounts("A", rejects=[Reject(kind="account", reason="odd", record_key="B")])

    assert statuses(apply.linked) == {"A": "active", "B": "active"}


def balance(current: str, **more: Any) -> Page:
    return Page(balances=[BalanceRecord(account_key="A", current=Decimal(current), source="x", **more)])


@pytest.mark.deep
def test_balance_is_a_snapshot_when_it_changed_or_once_a_day(apply: Applying) -> None:
    apply(balance("1.00", as_of=NOW))
    apply(balance("1.00", as_of=NOW + timedelta(hours=1)))
    apply(balance("2.00"))
    apply(balance("2.00"), now=NOW + timedelta(days=1))

    found = apply.linked.rows("SELECT current, taken_at FROM balances ORDER BY taken_at, current")

    assert found == [
        (Decimal("1.00"), NOW),
        (Decimal("2.00"), NOW),
        (Decimal("2.00"), NOW + timedelta(days=1)),
    ]


@pytest.mark.deep
def test_quarantined_change_is_settled_when_the_provider_takes_it_back_or_withdraws_the_record(apply: Applying) -> None:
    good, other = Movement("t1", "A", "1.00"), Movement("t2", "A", "1.00")
    apply.rows(good, other)
    for bad in (replace(good, amount="NaN"), replace(other, amount="NaN")):
        apply.rows(bad)
    assert len(kept(apply.linked)) == 2

    apply.rows(good, removals=[Removal("t2", "A")])

    resolved = apply.linked.rows("SELECT record_key, resolution FROM quarantine ORDER BY 1")
    assert resolved == [("t1", "stored"), ("t2", "withdrawn")]


def test_balance_of_an_unknown_account_goes_to_quarantine(apply: Applying) -> None:
    apply(Page(balances=[BalanceRecord(account_key="nobody", current=Decimal(1), source="x")]))

    assert kept(apply.linked) == [("balance", None, "unknown_account")]


def holding(symbol: str, quantity: str, *, name: str = "") -> HoldingRecord:
    security = SecurityRecord(key=f"cusip:{symbol}", type=SecurityType.EQUITY, symbol=symbol, name=name or symbol)
    return HoldingRecord(account_key="A", holding_key=symbol, security=security, quantity=Decimal(quantity))


def held(linked: Linked) -> list[tuple[Any, ...]]:
    return linked.rows("SELECT holding_key, quantity, closed_at IS NULL FROM holdings ORDER BY 1")


@pytest.mark.deep
def test_vanished_holding_is_closed_and_opens_again(apply: Applying) -> None:
    everything = frozenset({"A"})
    apply(Page(holdings=[holding("X", "1"), holding("Y", "2")], holdings_complete_for=everything))
    apply(Page(holdings=[holding("X", "1")], holdings_complete_for=everything))
    assert held(apply.linked) == [("X", Decimal(1), True), ("Y", Decimal(0), False)]

    apply(Page(holdings=[holding("X", "1"), holding("Y", "2")], holdings_complete_for=everything))

    assert held(apply.linked) == [("X", Decimal(1), True), ("Y", Decimal(2), True)]


@pytest.mark.deep
def test_holding_is_not_closed_by_a_listing_that_is_not_complete_or_has_a_bad_record(apply: Applying) -> None:
    apply(Page(holdings=[holding("X", "1")], holdings_complete_for=frozenset({"A"})))

    apply(Page(holdings=[]))
    bad = Reject(kind="holding", reason="odd", account_key="A")
    apply(Page(holdings_complete_for=frozenset({"A"}), rejects=[bad]))

    assert held(apply.linked) == [("X", Decimal(1), True)]


@pytest.mark.deep
def test_holding_has_one_row_of_history_a_day(apply: Applying) -> None:
    for quantity, day in (("1", 0), ("2", 0), ("2", 1)):
        apply(Page(holdings=[holding("X", quantity)]), now=NOW + timedelta(days=day))

    assert apply.linked.rows("SELECT day, quantity FROM holding_days ORDER BY day") == [
        (date(2025, 3, 14), Decimal(2)),
        (date(2025, 3, 15), Decimal(2)),
    ]


@pytest.mark.deep
def test_security_keeps_the_words_of_the_integration_that_named_it_first(apply: Applying) -> None:
    apply(Page(holdings=[holding("X", "1", name="First")]))
    apply.run = replace(apply.run, provider_key="other")

    apply(Page(holdings=[holding("X", "1", name="Other")]))

    assert apply.linked.rows("SELECT name, source FROM securities WHERE key = 'cusip:X'") == [("First", "model")]
    apply.run = replace(apply.run, provider_key="model")
    apply(Page(holdings=[holding("X", "1", name="Renamed")]))
    assert apply.linked.rows("SELECT name FROM securities WHERE key = 'cusip:X'") == [("Renamed",)]


@pytest.mark.deep
def test_pages_stored_together_have_the_last_ones_cursor_and_count_one_by_one(apply: Applying) -> None:
    first = of([Movement("t1", "A", "1.00")], feed="feed", cursor="c1", more=True)
    second = of([Movement("t2", "A", "2.00")], feed="feed", cursor="c2", more=True)

    applied = apply(first, second)

    assert set(apply.linked.live()) == {"t1", "t2"}
    assert apply.linked.rows("SELECT cursor, loop_cursor FROM sync_cursors WHERE feed = 'feed'") == [("c2", "")]
    assert apply.linked.rows("SELECT pages FROM sync_runs") == [(3,)]
    assert applied.tally["transactions", "added"] == 2


@pytest.mark.deep
def test_later_page_of_those_stored_together_wins(apply: Applying) -> None:
    apply(
        of([Movement("t1", "A", "1.00"), Movement("t2", "A", "1.00")], feed="feed", cursor="c1", more=True),
        of([Movement("t1", "A", "2.00")], feed="feed", cursor="c2", removals=[Removal("t2", None)]),
    )

    assert {key: row[1] for key, row in apply.linked.live().items()} == {"t1": Decimal("2.00")}


@pytest.mark.deep
def test_loop_that_is_stored_at_once_leaves_nothing_to_undo(apply: Applying) -> None:
    apply.rows(Movement("t1", "A", "1.00"), feed="feed", cursor="c0")

    applied = apply(
        of([Movement("t1", "A", "2.00")], feed="feed", cursor="c1", more=True),
        of([Movement("t2", "A", "3.00")], feed="feed", cursor="c2"),
    )

    assert applied.loop is None
    assert apply.linked.rows("SELECT cursor, loop_id FROM sync_cursors WHERE feed = 'feed'") == [("c2", None)]
    assert apply.linked.rows("SELECT 1 FROM sync_undo") == []


@pytest.mark.deep
def test_what_one_page_cannot_store_keeps_none_of_those_stored_with_it_out(apply: Applying) -> None:

    applied = apply(
        of([Movement("t1", "A", "1.00")], feed="feed", cursor="c1", more=True),
        of([Movement("t2", "A", "NaN"), Movement("t3", "A", "3.00")], feed="feed", cursor="c2"),
    )

    assert set(apply.linked.live()) == {"t1", "t3"}
    assert applied.tally["transactions", "quarantined"] == 1


P1 = Movement("p1", "A", "2.00", "pending")
LINKED_PAGES = {
    "posted after its pending row": [[P1], [Movement("t1", "A", "2.00", pending_key="p1")]],
    "chain of pending rows": [
        [Movement("p2", "A", "2.50", "pending", pending_key="p1")],
        [Movement("t1", "A", "2.50", pending_key="p2")],
    ],
    "pending row that settles under its own key": [
        [replace(P1, status="posted")],
        [Movement("t1", "A", "2.00", pending_key="p1")],
    ],
    "old page again": [[Movement("t1", "A", "2.00", pending_key="p1")], [P1]],
}


@pytest.mark.deep
@pytest.mark.parametrize("stored_first", [True, False], ids=["pending stored", "nothing stored"])
@pytest.mark.parametrize("listed", LINKED_PAGES.values(), ids=LINKED_PAGES.keys())
def test_pages_stored_together_leave_the_rows_that_they_leave_one_by_one(
    link_model: Callable[..., Linked], listed: list[list[Movement]], stored_first: bool
) -> None:
    left = []
    for together in (True, False):
        apply = Applying(link_model(ModelIntegration()))
        apply.list_accounts("A")
        if stored_first:
            apply.rows(P1)
        ids = dict(apply.linked.rows(_IDS))
        pages_ = [of(rows, feed="feed", cursor=str(place), more=not place) for place, rows in enumerate(listed)]
        for group in [pages_] if together else [[page] for page in pages_]:
            apply(*group)
        kept_ids = {key for key, id_ in apply.linked.rows(_IDS) if id_ in ids.values()}
        left.append((apply.linked.live(), kept_ids))

    assert left[0] == left[1]


_IDS = (
    "SELECT t.provider_transaction_id, t.id FROM transactions t JOIN accounts a ON a.id = t.account_id"
    " WHERE a.provider_id = :id AND t.status <> 'removed'"
)

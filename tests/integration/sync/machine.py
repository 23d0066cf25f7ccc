"""Any sequence of changes, restarts, refused tokens and kills: after it, tables equal books."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from sqlalchemy import text

from tests.factories import make_linked_provider
from tests.integration.sync.feeds import (
    CURSOR_ACCOUNTS,
    WINDOW_ACCOUNT,
    Books,
    Killed,
    ModelIntegration,
    Movement,
    Plan,
    changed,
)
from tests.support.feed_copy import Copy, differences, stored
from worker.models import SyncRun
from worker.models.vocabulary import RunStatus, Trigger
from worker.runtime import Runtime
from worker.services import feed
from worker.services.sync import batch
from worker.services.sync import run as sync_run

amounts = st.sampled_from(["-1.00", "2.50", "-3.33", "0.10", "1000000.01"])
cursor_accounts = st.sampled_from(CURSOR_ACCOUNTS)
places = st.integers(0, 10**6)


class SyncMachine(RuleBasedStateMachine):
    """Syncs a model provider into real tables; after every sync that ends well the two are equal."""

    runtime: Runtime
    integration: ModelIntegration

    def __init__(self) -> None:
        super().__init__()
        self.serial = 0
        self.lingering: set[str] = set()  # lost without a word after it was synced: stays until a full sync
        self.integration.books = self.books = Books()
        self.integration.plan = Plan()

    @initialize(rows_ahead=st.sampled_from([1, sync_run.ROWS_AHEAD]))
    def link(self, rows_ahead: int) -> None:
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(sync_run, "ROWS_AHEAD", rows_ahead)  # page by page, or as many together as there are
        with self.runtime.transaction() as session:
            provider = make_linked_provider(session, self.runtime.encryption, provider_key="model")
            self.provider_id: UUID = provider.id
            self.user_id: UUID = provider.user_id
        self.copy = Copy()

    def teardown(self) -> None:
        self.patch.undo()

    # The books move

    def key(self) -> str:
        self.serial += 1
        return f"t{self.serial}"

    def pick(self, rows: dict[str, Movement], place: int, only: Callable[[Movement], bool] = bool) -> Movement | None:
        found = [row for _, row in sorted(rows.items()) if only(row)]
        return found[place % len(found)] if found else None

    @rule(account=cursor_accounts, amount=amounts, pending=st.booleans())
    def add(self, account: str, amount: str, pending: bool) -> None:
        self.books.put(Movement(self.key(), account, amount, "pending" if pending else "posted"))

    @rule(count=st.integers(4, 12), account=cursor_accounts)
    def add_many(self, count: int, account: str) -> None:
        for _ in range(count):
            self.books.put(Movement(self.key(), account, "-7.00"))

    @rule(place=places, amount=amounts)
    def modify(self, place: int, amount: str) -> None:
        row = self.pick(self.books.live, place)
        if row:
            self.books.put(changed(row, amount=amount))

    @rule(place=places)
    def remove(self, place: int) -> None:
        row = self.pick(self.books.live, place)
        if row:
            self.books.remove(row.key)

    @rule(place=places)
    def list_again_after_removal(self, place: int) -> None:
        replaced = {row.pending_key or "" for row in self.books.live.values()}
        gone = sorted({key for key, _ in self.books.log} - set(self.books.live) - replaced)
        if gone:
            key = gone[place % len(gone)]
            self.books.put(next(row for k, row in reversed(self.books.log) if k == key and row is not None))

    @rule(place=places, amount=amounts, removal_first=st.booleans(), linked=st.booleans())
    def post(self, place: int, amount: str, removal_first: bool, linked: bool) -> None:
        row = self.pick(self.books.live, place, lambda row: row.status == "pending")
        if row is None:
            return
        posted = Movement(self.key(), row.account, amount, "posted", row.key if linked else None)
        if removal_first:
            self.books.remove(row.key)
        self.books.put(posted)
        if not removal_first:
            self.books.remove(row.key)

    @rule(place=places)
    def repeat(self, place: int) -> None:
        row = self.pick(self.books.live, place)
        if row:
            self.books.repeats.add(row.key)

    @rule(place=places)
    def lose_without_a_word(self, place: int) -> None:
        row = self.pick(self.books.live, place, lambda row: row.pending_key is None and row.status == "posted")
        if row and not self.in_loop():
            stored = {key for _, key, _, _ in self.stored()}
            self.books.forget(row.key)
            if row.key in stored:
                self.lingering.add(row.key)
            self.start_over()

    @rule(amount=amounts, pending=st.booleans())
    def add_in_window(self, amount: str, pending: bool) -> None:
        status = "pending" if pending else "posted"
        self.books.put(Movement(self.key(), WINDOW_ACCOUNT, amount, status))

    @rule(place=places, linked=st.booleans(), replaced=st.booleans())
    def pending_in_window_goes(self, place: int, linked: bool, replaced: bool) -> None:
        row = self.pick(self.books.windowed, place, lambda row: row.status == "pending")
        if row:
            self.books.remove(row.key)
            if replaced:
                link = row.key if linked else None
                self.books.put(changed(row, key=self.key(), status="posted", pending_key=link))  # type: ignore[arg-type]

    @rule(place=places, amount=amounts)
    def modify_in_window(self, place: int, amount: str) -> None:
        row = self.pick(self.books.windowed, place)
        if row:
            self.books.put(changed(row, amount=amount))

    @rule(account=cursor_accounts, symbol=st.sampled_from("XYZ"), quantity=st.integers(0, 3))
    def trade(self, account: str, symbol: str, quantity: int) -> None:
        if quantity:
            self.books.holdings[account, symbol] = Decimal(quantity)
        else:
            self.books.holdings.pop((account, symbol), None)

    @rule()
    def close_or_open_account(self) -> None:
        self.books.closed ^= {"C"}

    # Syncs

    @rule(page_size=st.integers(1, 4))
    def sync(self, page_size: int) -> None:
        self.run_sync(Plan(page_size=page_size))

    @rule(page_size=st.integers(1, 3), restarts=st.integers(1, 3))
    def sync_with_restarts(self, page_size: int, restarts: int) -> None:
        self.run_sync(Plan(page_size=page_size, restarts=restarts))

    @rule(page_size=st.integers(1, 3), at=st.integers(0, 9))
    def sync_with_a_refused_token(self, page_size: int, at: int) -> None:
        self.run_sync(Plan(page_size=page_size, refuse_access_before={at}))

    @rule(
        page_size=st.integers(1, 2),
        at=st.integers(1, 5),
        place=places,
        what=st.sampled_from(["remove", "modify", "modify_back", "post", "add_many"]),
    )
    def sync_while_books_change(self, page_size: int, at: int, place: int, what: str) -> None:
        def mutate() -> None:
            if what == "remove":
                self.remove(place)
            elif what == "modify":
                self.modify(place, "5.55")
            elif what == "modify_back":
                self.as_before(place)
            elif what == "post":
                self.post(place, "9.99", removal_first=bool(place % 2), linked=True)
            else:
                self.add_many(4, "A")

        self.run_sync(Plan(page_size=page_size, mutate_before={at: mutate}), settled=False)
        self.run_sync(Plan(page_size=page_size))

    def as_before(self, place: int) -> None:
        """Puts a changed row back to its first version: the feed has nothing to say of it any more."""
        row = self.pick(self.books.live, place)
        if row:
            self.books.put(next(old for key, old in self.books.log if key == row.key and old is not None))

    @rule(page_size=st.integers(1, 3), at=st.integers(0, 6), within=st.booleans())
    def sync_is_killed(self, page_size: int, at: int, within: bool) -> None:
        plan = Plan(page_size=page_size, die_within=at) if within else Plan(page_size=page_size, die_before=at)
        self.run_sync(plan, may_die=True)

    @rule()
    def sync_fully(self) -> None:
        self.run_sync(Plan(page_size=4), mode="full")

    def run_sync(self, plan: Plan, *, may_die: bool = False, settled: bool = True, mode: str = "incremental") -> None:
        self.integration.plan, self.integration.asked, self.integration.served = plan, 0, []
        try:
            run_id = self.runtime.run(
                batch.sync_provider(self.runtime, self.provider_id, trigger=Trigger.SCHEDULE, mode=mode)
            )
        except Killed:
            assert may_die
            note("killed")
            self.bury()
            self.assert_no_row_twice()
            return
        self.books.repeats.clear()
        with self.runtime.transaction() as session:
            run = session.get_one(SyncRun, run_id)
        assert run.status == RunStatus.COMPLETED, (run.error, run.error_reason, run.problems)
        if run.mode == "full":
            nothing_listed = not self.books.live and not self.books.windowed
            self.lingering = {key for _, key, _, _ in self.stored()} if nothing_listed else set()
        self.assert_no_row_twice()
        if settled:
            self.assert_equal()

    def bury(self) -> None:
        """The dead run's heartbeat is long ago."""
        with self.runtime.transaction() as session:
            for table in ("sync_runs", "unsettled_runs"):
                earlier = f"UPDATE {table} SET heartbeat_at = heartbeat_at - interval '1 hour' WHERE provider_id = :id"  # noqa: S608 - constants
                session.execute(text(earlier), {"id": self.provider_id})

    def start_over(self) -> None:
        """The log has lost entries, so the committed place in it has moved."""
        with self.runtime.transaction() as session:
            session.execute(
                text("UPDATE sync_cursors SET cursor = :end WHERE provider_id = :id AND feed = 'feed'"),
                {"id": self.provider_id, "end": f"{len(self.books.log)}::0"},
            )

    def in_loop(self) -> bool:
        """Whether a loop is open, or changes have not been read yet."""
        (rows,) = self.select("SELECT cursor, loop_id FROM sync_cursors WHERE provider_id = :id AND feed = 'feed'")
        return not rows or rows[0][1] is not None or rows[0][0] != f"{len(self.books.log)}::0"

    # What holds

    def assert_equal(self) -> None:
        rows = [*self.books.live.values(), *self.books.windowed.values()]
        expected = Counter((row.account, row.key, Decimal(row.amount), row.status) for row in rows)
        transactions, holdings, balances, accounts_, loops, drifts = self.select(
            _TRANSACTIONS, _HOLDINGS, _BALANCES, _ACCOUNTS, _LOOPS, DRIFTS
        )
        assert Counter(row for row in transactions if row[1] not in self.lingering) == expected
        held = {place: quantity for place, quantity in self.books.holdings.items() if place[0] not in self.books.closed}
        assert {(a, k): q for a, k, q in holdings} == held
        stated = {key: self.integration.balance(key) for key in "ABW"}
        assert {key: current for key, current in balances if key in stated} == stated
        statuses = dict(accounts_)
        assert statuses["C"] == ("inaccessible" if "C" in self.books.closed else "active") if "C" in statuses else True
        assert loops == []
        if not self.lingering and not self.books.windowed:
            assert drifts == []

    def assert_no_row_twice(self) -> None:
        assert all(count == 1 for count in Counter(key for _, key, _, _ in self.stored()).values())
        self.assert_feed_has_told_all()

    def assert_feed_has_told_all(self) -> None:
        """A reader of the change feed has the rows that the tables have, whatever the sync did with them."""

        async def read() -> None:
            async for found in feed.changes(self.runtime, user_id=self.user_id, cursor=self.copy.cursor, limit=7):
                self.copy.apply(found.items)
                self.copy.cursor = found.cursor

        self.runtime.run(read())
        with self.runtime.transaction() as session:
            assert differences(self.copy.rows, stored(session, user_id=self.user_id)) == {}

    def stored(self) -> list[tuple[Any, ...]]:
        return self.select(_TRANSACTIONS)[0]

    def select(self, *queries: str) -> list[list[tuple[Any, ...]]]:
        """Rows of each query, read in one transaction."""
        with self.runtime.transaction() as session:
            return [[tuple(row) for row in session.execute(text(query), {"id": self.provider_id})] for query in queries]


_TRANSACTIONS = """
    SELECT a.provider_account_id, t.provider_transaction_id, t.amount, t.status
    FROM transactions t JOIN accounts a ON a.id = t.account_id
    WHERE a.provider_id = :id AND t.status <> 'removed'
"""
_HOLDINGS = """
    SELECT a.provider_account_id, h.holding_key, h.quantity FROM holdings h JOIN accounts a ON a.id = h.account_id
    WHERE a.provider_id = :id AND h.closed_at IS NULL AND a.status = 'active'
"""
_BALANCES = """
    SELECT DISTINCT ON (a.id) a.provider_account_id, b.current FROM balances b JOIN accounts a ON a.id = b.account_id
    WHERE a.provider_id = :id ORDER BY a.id, b.taken_at DESC, b.id DESC
"""
# Positions of the model move without trades: their drift is told, and rightly so.
DRIFTS = """
    SELECT a.provider_account_id, d.stated, d.stored FROM book_drifts d JOIN accounts a ON a.id = d.account_id
    WHERE a.provider_id = :id AND d.figure = 'balance'
"""
_ACCOUNTS = "SELECT provider_account_id, status FROM accounts WHERE provider_id = :id"
_LOOPS = "SELECT 1 FROM sync_cursors WHERE provider_id = :id AND loop_id IS NOT NULL"

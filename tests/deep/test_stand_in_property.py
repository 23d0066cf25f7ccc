"""Any changes in the books of a stand-in, with faults between: after it, tables equal books. For each integration.

`tests/deep/test_sync_property.py` does the same with a model, which can die between any two pages. Files have no
stand-in: `tests/integration/sync/test_random_histories.py` has their property.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, Phase, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from sqlalchemy import Engine

from tests.integration.sync import books as compare
from tests.integration.sync.test_sandbox_sync import PROFILES, link
from tests.support.fixtures import MakeRuntime
from tests.support.sandbox import SandboxAdmin
from tests.support.waiting import wait_for
from worker.models import SyncRun
from worker.models.vocabulary import RunStatus, Trigger
from worker.runtime import Runtime, use_runtime
from worker.services.availability.quotas import HELD
from worker.services.sync import batch

EXAMPLES = int(os.environ.get("DEEP_EXAMPLES", "40"))
_PENDING = {"plaid", "simplefin", "enable_banking"}
"""Integrations whose accounts have pending transactions."""

places = st.integers(0, 10**6)
amounts = st.sampled_from(["-1.00", "2.50", "-3.33", "0.10", "1000.01"])
_WARNING = '{"code": "gen.api", "msg": "Too many requests today"}'
faults = st.sampled_from(
    [
        {"do": "answer", "status": 500, "body": "oops"},
        {"do": "answer", "status": 502, "body": "<html>bad gateway</html>"},
        {"do": "answer", "status": 503, "body": "{}", "headers": {"retry-after": "1"}},
        {"do": "answer", "status": 403, "body": "<html>blocked</html>"},
        {"do": "rate_limit"},
        {"do": "rate_limit", "retry_after": "1"},
        {"do": "rate_limit", "retry_after": "+1"},
        {"do": "edit", "append": {"errlist": [_WARNING]}},  # SimpleFIN's warning; the others have no such list
        {"do": "cut"},
        {"do": "reset"},
        {"do": "truncate", "bytes": 40},
    ]
)


class StandInMachine(RuleBasedStateMachine):
    """One login of one integration."""

    runtime: Runtime
    engine: Engine
    sandbox: SandboxAdmin
    key: str

    def __init__(self) -> None:
        super().__init__()
        self.sandbox.reset(1)
        # A posted row that a provider without removals does not list any more is withdrawn by a full sync alone.
        self.is_lost = False

    @initialize(rows=st.sampled_from([0, 7, 60]))
    def begin(self, rows: int) -> None:
        self.login = self.sandbox.create_logins(self.key, transactions=rows, history_days=50)[-1]
        self.provider_id = link(self.runtime, self.sandbox, self.key, self.login)

    # The books move

    def pick(self, place: int, *, status: str = "") -> str | None:
        rows = [row for row in self.sandbox.books(self.login)["transactions"] if status in ("", row["status"])]
        return rows[place % len(rows)]["id"] if rows else None

    def oldest(self) -> set[str]:
        """The rows of each account's oldest day."""
        rows = self.sandbox.books(self.login)["transactions"]
        first = {row["account"]: row["date"] for row in sorted(rows, key=lambda row: row["date"], reverse=True)}
        return {row["id"] for row in rows if row["date"] == first[row["account"]]}

    @rule(amount=amounts, pending=st.booleans(), count=st.integers(1, 3))
    def add(self, amount: str, pending: bool, count: int) -> None:
        status = "pending" if pending and self.key in _PENDING else "posted"
        self.sandbox.mutate(self.login, *[{"op": "add", "amount": amount, "status": status}] * count)

    @rule(place=places, amount=amounts)
    def modify(self, place: int, amount: str) -> None:
        row = self.pick(place)
        if row:
            self.sandbox.modify_transaction(self.login, row, amount=amount)
            self.is_lost = True  # a row that is older than what a sync reads again

    @rule(place=places, status=st.sampled_from(["pending", "posted"]))
    def remove(self, place: int, status: str) -> None:
        row = self.pick(place, status=status)
        if row and row not in self.oldest():  # what may be older than the listing is never withdrawn
            self.sandbox.remove_transaction(self.login, row)
            self.is_lost |= status == "posted"

    @rule(place=places)
    def post(self, place: int) -> None:
        row = self.pick(place, status="pending")
        if row:
            self.sandbox.post_transaction(self.login, row)

    @rule(steps=st.integers(1, 3))
    def days_pass(self, steps: int) -> None:
        self.sandbox.advance(steps, [self.login])

    # Syncs

    @rule()
    def sync(self) -> None:
        self.must_end_well("incremental")

    @rule(fault=faults, skip=st.integers(0, 6), times=st.sampled_from([1, 9]))
    def sync_with_a_fault(self, fault: dict[str, Any], skip: int, times: int) -> None:
        self.sandbox.inject(**fault, login=self.login, kind="data", skip=skip, times=times)
        run = self.run("incremental")
        note(f"{run.status} {run.error} {run.problems}")
        self.sandbox.clear_faults()
        self.assert_no_row_twice()

    @rule()
    def sync_with_an_expired_token(self) -> None:
        self.sandbox.expire_access_tokens(self.login)
        self.must_end_well("incremental")

    @rule()
    def sync_fully(self) -> None:
        self.must_end_well("full")

    def run(self, mode: str) -> SyncRun:
        working = batch.sync_provider(self.runtime, self.provider_id, trigger=Trigger.MANUAL, mode=mode, force=True)
        run_id: UUID = self.runtime.run(working)
        with self.runtime.transaction() as session:
            return session.get_one(SyncRun, run_id)

    def run_when_allowed(self, mode: str) -> SyncRun:
        """Runs again while a rate limit of the whole application stops all calls: a second, by `retry_after_max`."""
        runs: list[SyncRun] = []

        def was_allowed() -> bool:
            runs.append(self.run(mode))
            return runs[-1].error_reason != HELD

        wait_for(was_allowed, every=0.2, what="the end of a rate limit")
        return runs[-1]

    def must_end_well(self, mode: str) -> None:
        run = self.run_when_allowed(mode)
        assert run.status == RunStatus.COMPLETED, (run.error, run.error_reason, run.problems)
        self.is_lost &= run.mode != "full"
        self.assert_no_row_twice()
        if not self.is_lost:
            self.assert_equal()

    def teardown(self) -> None:
        if hasattr(self, "provider_id"):
            self.sandbox.clear_faults()
            self.must_end_well("full")
            again = self.run("full")
            assert (again.added, again.changed, again.removed, again.quarantined) == (0, 0, 0, 0)
            self.assert_equal()

    # What holds

    def assert_equal(self) -> None:
        books = self.sandbox.books(self.login)
        assert compare.stored_transactions(self.engine, self.provider_id) == compare.booked_transactions(books)
        assert compare.stored_holdings(self.engine, self.provider_id) == compare.booked_holdings(books)
        assert compare.stored_balances(self.engine, self.provider_id) == compare.booked_balances(books)

    def assert_no_row_twice(self) -> None:
        keys = Counter(row[:2] for row in compare.stored_transactions(self.engine, self.provider_id).elements())
        assert all(count == 1 for count in keys.values())


@pytest.fixture
def machine(make_runtime: MakeRuntime, engine: Engine, sandbox: SandboxAdmin) -> Any:
    """Makes the machine of an integration."""
    more = {"quota_scale": 1000, "breaker_failures": 10**6, "retry_after_max": 1}

    def make(key: str) -> type[StandInMachine]:
        members = {"runtime": runtime, "engine": engine, "sandbox": sandbox, "key": key}
        return type("Machine", (StandInMachine,), members)

    with use_runtime(make_runtime(**more)) as runtime:
        yield make


def tell(machine: type[StandInMachine], *, examples: int, steps: int) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.deep
@pytest.mark.parametrize("key", PROFILES)
def test_books_of_a_stand_in_are_in_the_tables(machine: Callable[[str], Any], key: str) -> None:
    tell(machine(key), examples=2, steps=8)


@pytest.mark.deep
@pytest.mark.release
@pytest.mark.parametrize("key", PROFILES)
def test_books_of_a_stand_in_are_in_the_tables_after_any_sequence(machine: Callable[[str], Any], key: str) -> None:
    tell(machine(key), examples=EXAMPLES, steps=15)

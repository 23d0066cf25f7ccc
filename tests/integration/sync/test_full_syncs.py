from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest

from tests.integration.sync.conftest import Linked
from tests.integration.sync.feeds import ModelIntegration, Movement, Plan
from worker.errors import BadPayload
from worker.integrations.kit.base import Page, SyncRequest
from worker.models.records import Reject
from worker.models.vocabulary import RunStatus

pytestmark = pytest.mark.deep


@pytest.fixture
def synced(linked: Linked) -> Linked:
    """Six rows of one account, stored."""
    for number in range(6):
        linked.integration.books.put(Movement(f"t{number}", "A", "1.00"))
    linked.sync()
    linked.integration.asked = 0
    return linked


def test_full_sync_withdraws_what_the_provider_lists_no_more(synced: Linked) -> None:
    synced.integration.books.forget("t0")

    run = synced.sync(mode="full")

    assert sorted(synced.live()) == ["t1", "t2", "t3", "t4", "t5"]
    assert run.removed == 1


def test_row_that_a_full_sync_met_before_its_loop_was_restarted_counts_as_unseen(synced: Linked) -> None:
    def lose_first() -> None:
        synced.integration.books.forget("t0")
        synced.integration.books.put(Movement("u0", "A", "1.00"))
        synced.integration.books.put(Movement("u1", "A", "1.00"))

    synced.integration.plan = Plan(page_size=2, mutate_before={3: lose_first})

    synced.sync(mode="full")

    assert sorted(synced.live()) == ["t1", "t2", "t3", "t4", "t5", "u0", "u1"]


def test_full_sync_leaves_the_rows_of_an_account_that_is_listed_no_more(synced: Linked) -> None:
    synced.integration.books.put(Movement("b0", "B", "1.00"))
    for number in range(6):
        synced.integration.books.forget(f"t{number}")
    synced.integration.books.closed.add("A")

    synced.sync(mode="full")

    assert sorted(synced.live()) == ["b0", "t0", "t1", "t2", "t3", "t4", "t5"]


class DoubtfulIntegration(ModelIntegration):
    """Cannot tell once whether its listing is whole; the listing has a feed of its own."""

    doubtful = False

    memory_feeds = frozenset({"accounts"})

    async def pages(self, request: SyncRequest) -> AsyncIterator[Page]:
        async for page in super().pages(request):
            if page.accounts:
                page.feed, page.cursor = "accounts", "remembered"
                page.problems = [BadPayload("mass_deletion")] if self.doubtful else []
            yield page


def test_full_sync_ends_once_the_listing_is_whole_again(link_model: Callable[..., Linked]) -> None:
    integration = DoubtfulIntegration()
    linked = link_model(integration)
    integration.books.put(Movement("t0", "A", "1.00"))
    integration.books.put(Movement("t1", "A", "1.00"))
    linked.sync()
    integration.books.forget("t0")
    integration.doubtful = True
    assert linked.sync(mode="full").status == RunStatus.PARTIAL
    integration.doubtful = False

    run = linked.sync()

    assert (run.mode, run.status) == ("full", RunStatus.COMPLETED)
    assert sorted(linked.live()) == ["t1"]


class BlurringIntegration(ModelIntegration):
    """Sends one row so that not even its ids can be read, once it is told to."""

    blurred: str | None = None

    async def pages(self, request: SyncRequest) -> AsyncIterator[Page]:
        async for page in super().pages(request):
            if any(raw.key == self.blurred for raw in page.transactions):
                page.transactions = [raw for raw in page.transactions if raw.key != self.blurred]
                page.rejects = [Reject(kind="transaction", reason="transaction_id_unreadable")]
            yield page


def test_record_that_cannot_be_named_keeps_a_full_sync_from_withdrawing(link_model: Callable[..., Linked]) -> None:
    integration = BlurringIntegration()
    linked = link_model(integration)
    for number in range(6):
        integration.books.put(Movement(f"t{number}", "A", "1.00"))
    linked.sync()
    integration.blurred = "t3"

    run = linked.sync(mode="full")

    assert "t3" in linked.live()
    assert run.status == RunStatus.PARTIAL
    assert [problem["reason"] for problem in (run.problems or {})["problems"]] == ["unnamed_records"]


def test_cancelled_full_sync_leaves_nothing_behind_once_another_run_has_begun(synced: Linked) -> None:
    def ask() -> None:
        synced.execute("UPDATE sync_runs SET cancel_requested = true WHERE provider_id = :id")

    synced.integration.plan = Plan(page_size=2, mutate_before={2: ask})
    assert synced.sync(mode="full").status == RunStatus.CANCELLED
    synced.integration.plan = Plan()

    assert synced.sync().status == RunStatus.COMPLETED

    assert synced.rows("SELECT * FROM sync_seen") == []


def test_full_sync_begun_within_a_loop_leaves_nothing_to_undo(synced: Linked) -> None:
    for number in range(6):
        synced.integration.books.put(Movement(f"t{number}", "A", "2.00"))
    synced.integration.plan = Plan(page_size=2, refuse_access_before=set(range(2, 99)))
    assert synced.sync().status == RunStatus.FAILED
    assert synced.rows("SELECT 1 FROM sync_undo") != []
    synced.integration.plan = Plan()

    synced.sync(mode="full")

    assert synced.rows("SELECT 1 FROM sync_undo") == []


def test_what_a_broken_off_sync_keeps_for_later_goes_with_its_provider(synced: Linked) -> None:
    for number in range(6):
        synced.integration.books.put(Movement(f"t{number}", "A", "2.00"))
    synced.integration.plan = Plan(page_size=2, refuse_access_before=set(range(2, 99)))
    assert synced.sync(mode="full").status == RunStatus.FAILED
    assert synced.rows("SELECT 1 FROM sync_undo") != []
    assert synced.rows("SELECT 1 FROM sync_seen") != []

    synced.execute("DELETE FROM providers WHERE id = :id")

    assert synced.rows("SELECT 1 FROM sync_undo") == []
    assert synced.rows("SELECT 1 FROM sync_seen") == []


class SmudgingIntegration(ModelIntegration):
    """Lists one account so that it cannot be read, while it is told to."""

    smudged: str | None = "B"

    async def pages(self, request: SyncRequest) -> AsyncIterator[Page]:
        async for page in super().pages(request):
            if page.accounts and self.smudged is not None:
                page.accounts = [account for account in page.accounts if account.account_key != self.smudged]
                page.balances = [balance for balance in page.balances if balance.account_key != self.smudged]
                page.accounts_complete = False
                page.rejects = [Reject(kind="account", reason="name_unreadable")]
            yield page


@pytest.fixture
def smudged(link_model: Callable[..., Linked]) -> Linked:
    """Two rows of an account that could be read, two of one that could not: synced once."""
    integration = SmudgingIntegration()
    linked = link_model(integration)
    for key, account in (("a0", "A"), ("a1", "A"), ("b0", "B"), ("b1", "B")):
        integration.books.put(Movement(key, account, "1.00"))
    run = linked.sync()
    assert (run.status, run.quarantined) == (RunStatus.PARTIAL, 3)
    assert [problem["reason"] for problem in (run.problems or {})["problems"]] == ["account_unreadable"]
    assert sorted(linked.live()) == ["a0", "a1"]
    return linked


def test_account_that_is_read_at_last_brings_the_transactions_that_were_refused(smudged: Linked) -> None:
    smudged.integration.smudged = None  # type: ignore[attr-defined]
    smudged.integration.books.remove("a0")
    smudged.integration.books.remove("b0")

    found = smudged.sync()
    ((due_at,),) = smudged.rows("SELECT sync_due_at FROM providers WHERE id = :id")
    assert (found.status, found.mode, due_at) == (RunStatus.PARTIAL, "incremental", found.finished_at)
    read_again = smudged.sync()

    assert (read_again.status, read_again.mode) == (RunStatus.COMPLETED, "full")
    assert sorted(smudged.live()) == ["a1", "b1"]
    assert smudged.rows("SELECT 1 FROM quarantine WHERE provider_id = :id AND resolved_at IS NULL") == []
    assert smudged.sync().mode == "incremental"


def test_account_that_stays_unreadable_keeps_no_full_sync_from_its_end(smudged: Linked) -> None:
    run = smudged.sync(mode="full")

    assert (run.status, run.reading_id) == (RunStatus.PARTIAL, None)
    assert smudged.sync().mode == "incremental"
    assert len(smudged.rows("SELECT 1 FROM quarantine WHERE provider_id = :id AND resolved_at IS NULL")) == 3


def test_account_found_during_a_full_sync_that_never_ends_is_read_from_the_beginning_once(smudged: Linked) -> None:
    smudged.integration.plan = Plan(page_size=2, refuse_access_before=set(range(3, 99)))
    smudged.integration.asked = 0
    assert smudged.sync(mode="full").status == RunStatus.FAILED
    smudged.integration.smudged = None  # type: ignore[attr-defined]
    smudged.integration.plan = Plan()

    modes = [smudged.sync().mode for _ in range(3)]

    assert modes == ["full", "full", "incremental"]
    assert sorted(smudged.live()) == ["a0", "a1", "b0", "b1"]


def test_account_that_stays_unreadable_keeps_the_books_of_no_other_from_being_checked(smudged: Linked) -> None:
    smudged.sync()  # brings nothing new: opening figures
    smudged.integration.books.forget("a1")  # from now on a row of ours that nothing states

    run = smudged.sync()

    assert run.status == RunStatus.PARTIAL
    assert smudged.rows("SELECT figure, stated, stored FROM book_drifts") == [("balance", 101, 102)]


def test_account_that_is_read_at_last_leaves_the_drifts_of_the_others(
    smudged: Linked, monkeypatch: pytest.MonkeyPatch
) -> None:
    smudged.sync()
    honest = smudged.integration.balance
    monkeypatch.setattr(smudged.integration, "balance", lambda key: honest(key) + (50 if key == "A" else 0))
    smudged.sync()
    drifts = "SELECT a.provider_account_id, stated, stored FROM book_drifts d JOIN accounts a ON a.id = d.account_id"
    assert smudged.rows(drifts) == [("A", 152, 102)]
    smudged.integration.smudged = None  # type: ignore[attr-defined]
    assert smudged.sync().mode == "incremental"
    smudged.integration.asked, smudged.integration.plan = 0, Plan(refuse_access_before=set(range(2, 99)))
    assert smudged.sync().status == RunStatus.FAILED
    smudged.integration.plan = Plan()

    assert [smudged.sync().mode for _ in range(2)] == ["full", "incremental"]

    assert smudged.rows(drifts) == [("A", 152, 102)]


def test_full_sync_of_which_no_account_could_be_read_has_failed_and_goes_on(link_model: Callable[..., Linked]) -> None:
    integration = SmudgingIntegration()
    integration.smudged = None
    integration.books.closed |= {"A", "W", "C"}
    linked = link_model(integration)
    integration.books.put(Movement("b0", "B", "1.00"))
    integration.books.put(Movement("b1", "B", "1.00"))
    linked.sync()
    integration.books.forget("b0")
    integration.smudged = "B"

    assert linked.sync(mode="full").status == RunStatus.FAILED
    integration.smudged = None

    assert linked.sync().mode == "full"
    assert sorted(linked.live()) == ["b1"]


@pytest.mark.parametrize(
    ("smudged", "left"), [("B", ["balance of B", "account of nobody"]), (None, [])], ids=["one unreadable", "all well"]
)
def test_entries_that_a_reading_did_not_meet_again_are_closed_but_for_accounts_in_trouble(
    link_model: Callable[..., Linked], smudged: str | None, left: list[str]
) -> None:
    integration = SmudgingIntegration()
    integration.smudged = smudged
    linked = link_model(integration)
    linked.sync()
    for account in ("A", "B", "gone"):
        linked.execute(
            "INSERT INTO quarantine (id, provider_id, run_id, kind, account_key, reason, fingerprint) VALUES"
            " (gen_random_uuid(), :id, gen_random_uuid(), 'balance', cast(:account AS text), 'odd',"
            " uuid_send(gen_random_uuid()))",
            account=account,
        )

    linked.sync()

    entries = "SELECT kind || ' of ' || coalesce(account_key, 'nobody') FROM quarantine WHERE resolved_at IS NULL"
    open_entries = {entry for (entry,) in linked.rows(entries)}
    assert open_entries - {"balance of gone"} == set(left)
    assert ("balance of gone" in open_entries) is (smudged is not None)


def test_account_found_while_a_first_sync_begins_again_is_read_from_the_beginning(
    link_model: Callable[..., Linked],
) -> None:
    integration = SmudgingIntegration()
    linked = link_model(integration)
    integration.books.put(Movement("b0", "B", "1.00"))

    def mend() -> None:
        integration.smudged = None

    integration.plan = Plan(mutate_before={1: mend}, refuse_access_before={2})

    assert linked.sync().status == RunStatus.PARTIAL
    assert linked.sync().mode == "full"
    assert sorted(linked.live()) == ["b0"]


def test_account_that_becomes_unreadable_within_a_full_sync_keeps_the_rows_that_were_not_read(
    link_model: Callable[..., Linked],
) -> None:
    integration = SmudgingIntegration()
    integration.smudged = None
    linked = link_model(integration)
    for number in range(4):
        integration.books.put(Movement(f"b{number}", "B", "1.00"))
    linked.sync()

    def smudge() -> None:
        integration.smudged = "B"
        for number in range(2, 4):
            integration.books.forget(f"b{number}")  # as a feed that is not asked for an account that is not listed

    integration.asked = 0
    integration.plan = Plan(page_size=2, mutate_before={1: smudge}, refuse_access_before={2})

    linked.sync(mode="full")

    assert sorted(linked.live()) == ["b0", "b1", "b2", "b3"]


class TroubledIntegration(ModelIntegration):
    """Says that one account is in trouble, and not how far that reaches."""

    async def pages(self, request: SyncRequest) -> AsyncIterator[Page]:
        async for page in super().pages(request):
            if page.accounts:
                page.problems = [BadPayload("odd", account_key="A")]
            yield page


def test_account_in_trouble_keeps_no_full_sync_from_its_end(link_model: Callable[..., Linked]) -> None:
    linked = link_model(TroubledIntegration())

    run = linked.sync(mode="full")

    assert (run.status, run.reading_id) == (RunStatus.PARTIAL, None)

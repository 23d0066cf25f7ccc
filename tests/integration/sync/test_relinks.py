"""A login is linked anew, or another one in its place, while it is synced; a provider that forgets a cursor."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from uuid import uuid4

import pytest
from sqlalchemy.orm import Session

from tests.integration.sync.conftest import Linked
from tests.integration.sync.feeds import Books, ModelIntegration, Movement, Plan
from tests.support.scripted import answer
from tests.support.waiting import wait_for
from worker.crud import links
from worker.errors import CursorRefused, Fenced
from worker.integrations.kit.base import Page, SyncRequest
from worker.models.vocabulary import RunStatus
from worker.services.refresh.plan import seal_answer


def relink(session: Session, linked: Linked, external_id: str | None) -> None:
    """What a completed link does in its transaction."""
    target = links.target_of_login(session, provider_id=linked.provider_id, external_id=external_id)
    grant = answer(target.generation + 10, external_id=external_id)
    encryption, now = linked.runtime.encryption, datetime.now(UTC)
    sealed = seal_answer(
        encryption,
        linked.integration.refresh_policy,
        grant,
        provider_id=target.provider_id,
        generation=target.generation,
        issued_at=now,
        new_grant=True,
    )
    links.store_grant(session, token=sealed, owner=uuid4())


def relinked(linked: Linked, external_id: str | None, books: Books | None = None) -> None:
    with linked.runtime.transaction() as session:
        relink(session, linked, external_id)
    if books is not None:
        linked.integration.books = books


def other_books() -> Books:
    books = Books()
    for number in range(4):
        books.put(Movement(f"other-{number}", "B", "2.00"))
    books.closed = {"A", "W", "C"}
    return books


@pytest.fixture
def login(linked: Linked) -> Linked:
    """A login of five rows that the provider calls `item-1`."""
    linked.execute("UPDATE providers SET external_id = 'item-1' WHERE id = :id")
    for number in range(5):
        linked.integration.books.put(Movement(f"t{number}", "A", "1.00"))
    return linked


def last_run(linked: Linked) -> tuple[str, str | None]:
    rows = linked.rows("SELECT status, error FROM sync_runs WHERE provider_id = :id ORDER BY started_at DESC LIMIT 1")
    return rows[0][0], rows[0][1]


@pytest.mark.deep
@pytest.mark.parametrize("page", [1, 2, 3], ids=["before_the_first_cursor", "in_a_loop", "after_the_loop"])
def test_run_of_a_replaced_login_writes_nothing_more_and_the_other_login_is_read_from_its_beginning(
    login: Linked, page: int
) -> None:
    login.integration.plan = Plan(mutate_before={page: lambda: relinked(login, "item-2")})

    with pytest.raises(Fenced):
        login.sync()

    assert last_run(login) == ("failed", "relinked")
    assert login.rows("SELECT 1 FROM sync_cursors WHERE provider_id = :id") == []
    ((due,),) = login.rows("SELECT sync_due_at <= now() FROM providers WHERE id = :id")
    assert due
    login.integration.books, login.integration.plan = other_books(), Plan()

    run = login.sync()

    assert (run.status, run.cursor_before) == (RunStatus.COMPLETED, {})
    assert {f"other-{number}" for number in range(4)} <= set(login.live())
    assert login.sync().status == RunStatus.COMPLETED


@pytest.mark.deep
def test_accounts_of_a_replaced_login_are_out_of_reach_however_many_they_are(login: Linked) -> None:
    login.sync()

    relinked(login, "item-2", other_books())
    run = login.sync()

    assert run.status == RunStatus.COMPLETED  # three of four accounts gone would else be a mass deletion
    status = "SELECT provider_account_id, status FROM accounts WHERE provider_id = :id ORDER BY 1"
    assert login.rows(status) == [("A", "inaccessible"), ("B", "active"), ("C", "inaccessible"), ("W", "inaccessible")]


@pytest.mark.deep
def test_full_sync_of_a_replaced_login_is_not_gone_on_with(login: Linked) -> None:
    login.integration.plan = Plan(mutate_before={2: lambda: relinked(login, "item-2")})
    with pytest.raises(Fenced):
        login.sync(mode="full")
    login.integration.books, login.integration.plan = other_books(), Plan()

    run = login.sync()

    assert (run.status, run.mode) == (RunStatus.COMPLETED, "incremental")
    assert login.rows("SELECT 1 FROM sync_seen WHERE provider_id = :id") == []


@pytest.mark.deep
@pytest.mark.parametrize("external_id", ["item-1", None], ids=["named", "unnamed"])
def test_run_of_a_login_that_is_linked_anew_ends_and_the_next_one_goes_on_from_its_cursors(
    login: Linked, external_id: str | None
) -> None:
    login.integration.plan = Plan(mutate_before={2: lambda: relinked(login, external_id)}, page_size=2)

    with pytest.raises(Fenced):
        login.sync(mode="full")
    run = login.sync()

    assert (run.status, run.mode) == (RunStatus.COMPLETED, "full")
    assert set(login.live()) == {f"t{number}" for number in range(5)}


@pytest.mark.deep
def test_run_that_begins_while_another_login_is_linked_waits_for_it_and_reads_that_one(login: Linked) -> None:
    login.sync()
    waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    with ThreadPoolExecutor(1) as thread:
        with login.runtime.transaction() as session:
            relink(session, login, "item-2")
            login.integration.books = other_books()
            syncing = thread.submit(login.sync)
            wait_for(lambda: login.rows(waiting), what="the run to wait")
        run = syncing.result()

    assert (run.status, run.cursor_before) == (RunStatus.COMPLETED, {})


@pytest.mark.deep
def test_unlinking_ends_the_run_that_is_under_way(login: Linked) -> None:
    def unlink() -> None:
        with login.runtime.transaction() as session:
            links.end_link(session, provider_id=login.provider_id, actor="user", revoked=True)

    login.integration.plan = Plan(mutate_before={2: unlink})

    with pytest.raises(Fenced):
        login.sync()
    assert last_run(login) == ("failed", "unlinked")


class ForgetfulIntegration(ModelIntegration):
    """Refuses the cursor of its feed until all is read from the beginning; `times` limits how often."""

    times = 0

    async def pages(self, request: SyncRequest) -> AsyncIterator[Page]:
        if request.cursors.get("feed") and self.times:
            self.times -= 1
            yield self._serve(request, self._listing())
            raise CursorRefused("INVALID_FIELD", feed="feed")
        async for page in super().pages(request):
            yield page


@pytest.fixture
def forgotten(link_model: Callable[..., Linked]) -> Linked:
    """A synced login whose provider has since lost a row, got another one and forgotten the cursor."""
    linked = link_model(ForgetfulIntegration())
    for number in range(5):
        linked.integration.books.put(Movement(f"t{number}", "A", "1.00"))
    linked.sync()
    linked.integration.books.forget("t3")
    linked.integration.books.put(Movement("t9", "A", "9.00"))
    return linked


@pytest.mark.deep
def test_refused_cursor_makes_the_run_a_full_sync_and_is_a_problem_of_it(forgotten: Linked) -> None:
    forgotten.integration.times = 1  # type: ignore[attr-defined]

    run = forgotten.sync()

    assert (run.status, run.mode) == (RunStatus.PARTIAL, "full")
    assert run.problems is not None
    assert [problem["reason"] for problem in run.problems["problems"]] == ["cursor_refused"]
    assert set(forgotten.live()) == {"t0", "t1", "t2", "t4", "t9"}
    assert forgotten.sync().status == RunStatus.COMPLETED


def test_full_sync_after_a_refused_cursor_that_broke_off_is_gone_on_with(forgotten: Linked) -> None:
    forgotten.integration.times = 1  # type: ignore[attr-defined]
    asked = forgotten.integration.asked
    forgotten.integration.plan = Plan(mutate_before={asked + 3: lambda: relinked(forgotten, None)})
    with pytest.raises(Fenced):
        forgotten.sync()
    forgotten.integration.plan = Plan()

    run = forgotten.sync()

    assert (run.status, run.mode) == (RunStatus.PARTIAL, "full")
    assert set(forgotten.live()) == {"t0", "t1", "t2", "t4", "t9"}


@pytest.mark.deep
def test_cursor_that_is_refused_again_within_a_run_ends_it(forgotten: Linked) -> None:
    class Stubborn(ForgetfulIntegration):
        async def pages(self, request: SyncRequest) -> AsyncIterator[Page]:
            yield self._listing()
            raise CursorRefused("INVALID_FIELD", feed="feed")

    forgotten.runtime.integrations["model"] = Stubborn()  # type: ignore[index]

    run = forgotten.sync()

    assert (run.status, run.error) == (RunStatus.FAILED, "cursor_refused")

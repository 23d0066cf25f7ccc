"""Syncs in which the provider says nothing new."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import text

from tests.factories import make_linked_provider
from tests.integration.sync.conftest import Linked
from tests.integration.sync.feeds import ModelIntegration, Movement, Plan
from worker.crud.fleet import history
from worker.crud.sync import pages, runs
from worker.errors import Fenced
from worker.integrations.kit.base import Page, SyncRequest
from worker.models import Quarantine, new_id
from worker.models.vocabulary import RunStatus, Trigger
from worker.services.sync import batch, reading


@pytest.fixture
def quiet(linked: Linked) -> Linked:
    """A login whose last sync found every row as it was stored."""
    linked.integration.books.put(Movement("t1", "A", "5.00"))
    linked.integration.books.holdings["B", "X"] = Decimal(3)
    for _ in range(3):
        linked.sync()
    assert answers(linked) is not None
    return linked


def answers(linked: Linked) -> Any:
    """What the last run has heard."""
    query = """
        SELECT heard.answers FROM sync_runs r JOIN sync_runs heard ON heard.id = coalesce(r.repeats, r.id)
        WHERE r.provider_id = :id ORDER BY r.started_at DESC LIMIT 1
    """
    return linked.rows(query)[0][0]


@pytest.fixture
def applied(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Grows by one with each transaction that stores pages."""
    calls: list[Any] = []
    real = pages.apply_pages

    def apply_pages(session: Any, **given: Any) -> Any:
        calls.append(given["pages"])
        return real(session, **given)

    monkeypatch.setattr(pages, "apply_pages", apply_pages)
    return calls


@pytest.mark.deep
def test_repeat_applies_no_page_and_its_run_says_the_same(quiet: Linked, applied: list[Any]) -> None:
    before = quiet.sync(trigger=Trigger.MANUAL, force=True)  # a person's sync compares everything
    assert len(applied) == 3
    versions = quiet.versions()
    applied.clear()

    run = quiet.sync()

    assert applied == []
    assert quiet.versions() == versions
    assert (run.status, run.mode, run.error, run.problems) == (RunStatus.COMPLETED, "incremental", None, None)
    assert (run.pages, run.unchanged, run.repeats) == (before.pages, before.unchanged, before.id)
    with quiet.runtime.transaction() as session:
        told, of_before = history.runs(session, provider_ids=[quiet.provider_id], limit=2)
    assert (told.counts, told.cursor_before, told.cursor_after) == (
        of_before.counts,
        of_before.cursor_after,
        of_before.cursor_after,
    )
    assert of_before.cursor_after is not None
    assert answers(quiet) == before.answers
    assert run.finished_at is not None
    ((synced_at, due_at, failures),) = quiet.rows(
        "SELECT synced_at, sync_due_at, sync_failures FROM providers WHERE id = :id"
    )
    assert (synced_at, failures) == (run.finished_at, 0)
    assert timedelta(hours=3) < due_at - synced_at < timedelta(hours=5)


@pytest.mark.parametrize(
    "what", [*(pytest.param(one, marks=pytest.mark.deep) for one in ("row", "balance", "position")), "gone"]
)
def test_what_differs_is_stored_at_once(quiet: Linked, what: str) -> None:
    books = quiet.integration.books
    if what == "row":
        books.put(Movement("t2", "A", "1.00"))
    elif what == "balance":
        books.windowed["w"] = Movement("w", "W", "2.00")
    elif what == "position":
        books.holdings["B", "X"] = Decimal(4)
    else:
        books.holdings.clear()

    run = quiet.sync()

    assert run.status == RunStatus.COMPLETED
    assert run.added + run.changed + run.removed > 0
    assert answers(quiet) is None


@pytest.mark.deep
def test_pages_that_were_read_while_looking_are_not_asked_for_again(quiet: Linked) -> None:
    quiet.integration.books.put(Movement("t2", "A", "1.00"))
    quiet.integration.served.clear()

    quiet.sync()

    assert [page.feed for page in quiet.integration.served] == ["", "feed", "account:W"]
    assert set(quiet.live()) == {"t1", "t2"}


@pytest.mark.deep
def test_refused_token_while_looking_is_renewed_once(quiet: Linked) -> None:
    quiet.integration.books.put(Movement("t2", "A", "1.00"))
    quiet.integration.plan = Plan(refuse_access_before={quiet.integration.asked + 1})

    run = quiet.sync()

    assert run.status == RunStatus.COMPLETED, run.error_reason
    assert set(quiet.live()) == {"t1", "t2"}


@pytest.mark.deep
def test_another_day_compares_all_rows(quiet: Linked, applied: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    async def tomorrow() -> datetime:
        return datetime.now(UTC) + timedelta(days=1)

    monkeypatch.setattr(quiet.runtime, "now", tomorrow)
    balances = len(quiet.rows("SELECT id FROM balances"))

    quiet.sync()

    assert applied != []
    assert len(quiet.rows("SELECT id FROM balances")) > balances  # each day has its snapshot


@pytest.mark.deep
def test_another_release_compares_all_rows(quiet: Linked, applied: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_release", lambda: "next")

    quiet.sync()

    assert applied != []


def test_open_quarantine_is_looked_at_by_every_run(quiet: Linked, applied: list[Any]) -> None:
    with quiet.runtime.transaction() as session:
        session.add(
            Quarantine(
                id=new_id(),
                provider_id=quiet.provider_id,
                run_id=new_id(),
                kind="holding",
                reason="odd",
                fingerprint=b"0" * 16,
            )
        )

    run = quiet.sync()

    assert applied != []
    assert quiet.rows("SELECT resolution FROM quarantine") == [("listed no more",)]
    assert run.answers is None


def test_drift_is_looked_at_by_every_run(quiet: Linked, applied: list[Any]) -> None:
    quiet.execute("UPDATE accounts SET opening = opening + 1 WHERE provider_account_id = 'A'")
    quiet.sync()
    applied.clear()

    quiet.sync()

    assert len(quiet.rows("SELECT id FROM book_drifts")) == 1
    assert applied != []


@pytest.mark.deep
def test_new_link_compares_all_rows(quiet: Linked) -> None:
    with quiet.runtime.transaction() as session:
        runs.end_running(session, provider_id=quiet.provider_id, error="relinked", reason="linked anew")

    assert answers(quiet) is None


@pytest.mark.deep
def test_cancelled_while_it_looks(quiet: Linked) -> None:
    def ask() -> None:
        with quiet.runtime.transaction() as session:
            assert runs.request_cancel(session, provider_id=quiet.provider_id) is not None

    quiet.integration.plan = Plan(mutate_before={quiet.integration.asked + 1: ask})

    assert quiet.sync().status == RunStatus.CANCELLED


def test_taken_over_while_it_looks(quiet: Linked) -> None:
    def take_over() -> None:
        with quiet.runtime.transaction() as session:
            runs.end_running(session, provider_id=quiet.provider_id, error="relinked", reason="linked anew")

    quiet.integration.plan = Plan(mutate_before={quiet.integration.asked + 1: take_over})

    with pytest.raises(Fenced):
        quiet.sync()

    assert quiet.rows("SELECT count(*) FROM sync_runs WHERE status = 'running'") == [(0,)]
    assert quiet.rows("SELECT count(*) FROM unsettled_runs") == [(0,)]


@pytest.mark.deep
def test_hook_that_comes_while_it_looks_makes_the_login_due_again(quiet: Linked) -> None:
    def come() -> None:
        with quiet.runtime.transaction() as session:
            session.execute(
                text("UPDATE providers SET hook_sync_at = clock_timestamp() + interval '5 seconds' WHERE id = :id"),
                {"id": quiet.provider_id},
            )

    quiet.integration.plan = Plan(mutate_before={quiet.integration.asked + 1: come})

    run = quiet.sync()

    assert run.repeats is not None
    assert quiet.rows("SELECT sync_due_at = hook_sync_at FROM providers WHERE id = :id") == [(True,)]


@pytest.mark.deep
def test_run_of_another_worker_in_between_compares_all_rows(quiet: Linked, applied: list[Any]) -> None:
    """A worker of an older release keeps no answers."""
    with quiet.runtime.transaction() as session:
        session.execute(
            text(
                "INSERT INTO sync_runs (id, provider_id, status, trigger, owner, started_at, heartbeat_at)"
                " VALUES (gen_random_uuid(), :id, 'completed', 'schedule', :id, clock_timestamp(), clock_timestamp())"
            ),
            {"id": quiet.provider_id},
        )

    quiet.sync()

    assert applied != []


class Failing(ModelIntegration):
    """Comes to an error in each reading."""

    async def pages(self, request: SyncRequest) -> AsyncIterator[Page]:
        async for page in super().pages(request):
            yield page
        raise ValueError("ours")


@pytest.mark.deep
def test_error_while_it_looks_ends_the_run_like_any_other(quiet: Linked) -> None:
    failing = Failing(quiet.integration.books)
    quiet.runtime.integrations["model"] = failing  # type: ignore[index]

    run = quiet.sync()

    assert (run.status, run.error) == (RunStatus.FAILED, "ValueError")
    assert len(failing.served) == 3


@pytest.mark.deep
def test_many_end_in_one_transaction_and_one_that_differs_is_stored(
    link_model: Callable[..., Linked], monkeypatch: pytest.MonkeyPatch
) -> None:
    linked = link_model(sync_in_flight=3)
    linked.integration.books.put(Movement("t1", "A", "5.00"))
    ids = [linked.provider_id]
    with linked.runtime.transaction() as session:
        made = (make_linked_provider(session, linked.runtime.encryption, provider_key="model") for _ in range(6))
        ids += [provider.id for provider in made]
    for _ in range(3):
        linked.runtime.run(batch.sync_providers(linked.runtime, ids))
    with linked.runtime.transaction() as session:
        runs.end_running(session, provider_id=ids[3], error="", reason="")  # its answers are forgotten
    ended: list[int] = []
    real = batch.repeats.repeats.end_repeats

    def end_repeats(session: Any, **given: Any) -> Any:
        ended.append(len(given["ends"]))
        return real(session, **given)

    monkeypatch.setattr(batch.repeats.repeats, "end_repeats", end_repeats)

    summary = linked.runtime.run(batch.sync_providers(linked.runtime, ids))

    assert set(summary.runs) == set(ids)
    assert ended == [6]
    assert linked.rows("SELECT count(*) FROM sync_runs WHERE status = 'completed'") == [(28,)]

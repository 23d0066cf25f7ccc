from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, ClassVar

import pytest

from tests.integration.sync.conftest import Linked
from tests.integration.sync.feeds import Killed, ModelIntegration, Movement, Plan
from worker.crud.sync import pages, runs
from worker.crud.sync.work import Rules, RunKey, prepare
from worker.errors import (
    AccessExpired,
    AppMisconfigured,
    BadPayload,
    Fenced,
    Forbidden,
    NotReady,
    ProviderError,
    RateLimited,
    ReauthRequired,
    Refused,
    Transient,
    Unavailable,
)
from worker.integrations.kit.base import Page, SyncRequest
from worker.models import new_id
from worker.models.vocabulary import RunStatus, Trigger
from worker.services.sync import batch
from worker.services.sync import run as sync_run

SOON = timedelta(minutes=7)


class FailingIntegration(ModelIntegration):
    """Raises after its first page, or states a problem there."""

    def __init__(self, error: ProviderError | None = None, problems: tuple[ProviderError, ...] = ()) -> None:
        super().__init__()
        self.error, self.problems = error, problems

    async def pages(self, request: SyncRequest) -> AsyncIterator[Page]:
        yield self._listing()
        if self.problems:
            yield Page(problems=self.problems)
        if self.error:
            raise self.error


def due_in(linked: Linked) -> timedelta:
    ((due_at,),) = linked.rows("SELECT sync_due_at FROM providers WHERE id = :id")
    return due_at - datetime.now(UTC)


def status_of(linked: Linked) -> tuple[Any, ...]:
    return linked.rows("SELECT status, status_reason, sync_failures FROM providers WHERE id = :id")[0]


@pytest.mark.deep
def test_second_run_is_refused_while_one_is_running(linked: Linked) -> None:
    linked.integration.plan = Plan(die_before=1)
    with pytest.raises(Killed):
        linked.sync()

    with pytest.raises(Refused, match="being synced already"):
        linked.sync()


@pytest.mark.deep
def test_dead_run_is_taken_over_and_its_late_page_is_refused(linked: Linked) -> None:
    linked.integration.books.put(Movement("t1", "A", "1.00"))
    linked.integration.plan = Plan(die_before=1)
    with pytest.raises(Killed):
        linked.sync()
    ((dead, owner),) = linked.rows("SELECT id, owner FROM sync_runs WHERE provider_id = :id")
    linked.execute("UPDATE sync_runs SET heartbeat_at = now() - interval '1 hour' WHERE provider_id = :id")
    linked.integration.plan = Plan()

    after = linked.sync()

    assert after.status == RunStatus.COMPLETED
    assert linked.rows("SELECT status, error FROM sync_runs WHERE id = :dead", dead=dead) == [("failed", "abandoned")]
    before = linked.versions()
    late = Page(feed="feed", cursor="late", removals=())
    rules = Rules(content_hashes=lambda raws: [], mask=lambda raw: {}, mass_deletion_share=0.5)
    with pytest.raises(Fenced), linked.runtime.transaction() as session:
        pages.apply_pages(
            session,
            run=RunKey(dead, owner, linked.provider_id, "model"),
            pages=[(late, prepare(late, rules))],
            rules=rules,
            progress=pages.Progress(pages=1),
            now=datetime.now(UTC),
        )
    assert linked.versions() == before
    assert linked.rows("SELECT 1 FROM sync_cursors WHERE cursor = 'late'") == []


@pytest.mark.deep
def test_run_keeps_counts_pages_trigger_and_cursors(linked: Linked) -> None:
    for number in range(5):
        linked.integration.books.put(Movement(f"t{number}", "A", "1.00"))

    run = linked.sync(trigger=Trigger.MANUAL)

    assert run.counts["transactions"] == {"added": 5}
    assert (run.trigger, run.mode, run.added) == ("manual", "incremental", 5 + 4 + 4)
    assert run.pages == 4  # listing, two of the feed by cursor, one window
    assert run.cursor_before == {}
    assert run.cursor_after == {"feed": "5::0", "account:W": "2025-03-14"}
    assert run.finished_at is not None


@pytest.mark.deep
@pytest.mark.parametrize(("own", "seconds"), [(None, 3600), (600, 600)])
def test_next_sync_is_due_after_the_providers_own_interval_or_the_usual_one(
    link_model: Callable[..., Linked], own: int | None, seconds: int
) -> None:
    linked = link_model(sync_interval=3600)
    linked.execute("UPDATE providers SET sync_interval = :own WHERE id = :id", own=own)

    run = linked.sync()

    ((due_at,),) = linked.rows("SELECT sync_due_at FROM providers WHERE id = :id")
    assert run.finished_at is not None
    assert 0.89 * seconds < (due_at - run.finished_at).total_seconds() < 1.11 * seconds


@pytest.mark.deep
def test_interval_that_is_set_while_a_run_goes_on_counts_from_its_end(link_model: Callable[..., Linked]) -> None:
    linked = link_model(sync_interval=3600)
    linked.integration.plan = Plan(
        mutate_before={1: lambda: linked.execute("UPDATE providers SET sync_interval = 600 WHERE id = :id")}
    )

    run = linked.sync()

    ((due_at,),) = linked.rows("SELECT sync_due_at FROM providers WHERE id = :id")
    assert run.finished_at is not None
    assert (due_at - run.finished_at).total_seconds() < 700


@pytest.mark.deep
def test_manual_sync_waits_for_the_least_interval_unless_forced(linked: Linked) -> None:
    linked.sync()

    with pytest.raises(Refused, match="was synced a moment ago; wait 60 s"):
        linked.sync(trigger=Trigger.MANUAL)

    assert linked.sync(trigger=Trigger.MANUAL, force=True).status == RunStatus.COMPLETED
    assert linked.sync().status == RunStatus.COMPLETED  # the schedule has its own interval


@pytest.mark.deep
@pytest.mark.parametrize("status", ["pending", "needs_reauth", "paused", "unlinked"])
def test_provider_that_is_not_active_is_refused_with_what_to_do(linked: Linked, status: str) -> None:
    linked.execute("UPDATE providers SET status = :status WHERE id = :id", status=status)

    with pytest.raises(Refused, match="dashtam"):
        linked.sync()

    assert linked.rows("SELECT 1 FROM sync_runs WHERE provider_id = :id") == []


def test_provider_whose_integration_is_not_enabled_is_refused(linked: Linked) -> None:
    linked.execute("UPDATE providers SET provider_key = 'elsewhere' WHERE id = :id")

    with pytest.raises(Refused, match="INTEGRATIONS"):
        linked.sync()


@pytest.fixture
def page_by_page(monkeypatch: Any) -> None:
    """No page is stored together with another one."""
    monkeypatch.setattr(sync_run, "ROWS_AHEAD", 1)


@pytest.mark.deep
@pytest.mark.usefixtures("page_by_page")
def test_cancel_stops_after_the_page_and_keeps_what_was_committed(linked: Linked) -> None:
    for number in range(15):
        linked.integration.books.put(Movement(f"t{number}", "A", "1.00"))

    def ask() -> None:
        linked.execute("UPDATE sync_runs SET cancel_requested = true WHERE provider_id = :id")

    linked.integration.plan = Plan(page_size=3, mutate_before={3: ask})

    run = linked.sync()

    assert run.status == RunStatus.CANCELLED
    assert 3 <= len(linked.live()) < 15
    linked.integration.plan = Plan()
    assert linked.sync().status == RunStatus.COMPLETED
    assert len(linked.live()) == 15


@pytest.mark.deep
def test_request_cancel_names_the_run_or_nothing(linked: Linked) -> None:
    with linked.runtime.transaction() as session:
        assert runs.request_cancel(session, provider_id=linked.provider_id) is None
    linked.integration.plan = Plan(die_before=1)
    with pytest.raises(Killed):
        linked.sync()

    with linked.runtime.transaction() as session:
        run_id = runs.request_cancel(session, provider_id=linked.provider_id)

    assert linked.rows("SELECT id FROM sync_runs WHERE cancel_requested") == [(run_id,)]


@pytest.mark.deep
@pytest.mark.usefixtures("page_by_page")
def test_run_whose_time_is_up_goes_on_from_its_cursor(link_model: Callable[..., Linked], monkeypatch: Any) -> None:
    linked = link_model(sync_budget_seconds=1)
    for number in range(9):
        linked.integration.books.put(Movement(f"t{number}", "A", "1.00"))
    linked.integration.plan = Plan(page_size=3)
    monkeypatch.setattr(sync_run.RunUnderWay, "_out_of_time", _always_out_of_time)
    linked.execute(
        "INSERT INTO quarantine (id, provider_id, run_id, kind, reason, fingerprint)"
        " VALUES (gen_random_uuid(), :id, gen_random_uuid(), 'holding', 'odd', 'fingerprint')"
    )

    run = linked.sync()

    assert run.status == RunStatus.PARTIAL
    assert linked.rows("SELECT resolved_at FROM quarantine") == [(None,)]  # its noun was not read
    assert len(linked.live()) == 3
    assert due_in(linked) <= timedelta(0)
    monkeypatch.undo()
    assert linked.sync().counts["transactions"] == {"added": 6}


class ManyAccounts(ModelIntegration):
    """A feed for each account, read in one page.

    Attributes:
        requests: to which day each reading was to go back, and what it was to leave out.
    """

    requests: ClassVar[list[tuple[date | None, frozenset[str]]]] = []

    async def pages(self, request: SyncRequest) -> AsyncIterator[Page]:
        self.requests.append((request.since, request.done))
        yield self._listing()
        for account in ("A", "B", "C"):
            feed = f"account:{account}"
            if feed not in request.done:
                rows = [Movement(f"t{account}", account, "1.00").raw()]
                yield self._serve(request, Page(feed=feed, cursor="c", transactions=rows, map_transaction=self._read))


@pytest.mark.deep
def test_accounts_that_one_runs_time_is_not_enough_for_are_read_by_the_next_ones(
    link_model: Callable[..., Linked], monkeypatch: pytest.MonkeyPatch
) -> None:
    linked = link_model(ManyAccounts())
    monkeypatch.setattr(sync_run, "ROWS_AHEAD", 1)  # a page at a time
    with monkeypatch.context() as late:
        late.setattr(sync_run.TimeLimit, "late", lambda _: 1.0)
        runs_ = []
        for expected in ("A", "B", "C"):
            runs_.append(linked.sync())
            assert runs_[-1].counts.get("transactions") == {"added": 1}, expected

    assert [run.status for run in runs_] == [RunStatus.PARTIAL, RunStatus.PARTIAL, RunStatus.COMPLETED]
    assert set(linked.live()) == {"tA", "tB", "tC"}
    assert linked.sync().counts["transactions"] == {"unchanged": 3}  # which begins with the first account again


def test_day_to_which_a_run_goes_back_is_kept_until_every_account_was_read(
    link_model: Callable[..., Linked], monkeypatch: pytest.MonkeyPatch
) -> None:
    linked = link_model(ManyAccounts())
    monkeypatch.setattr(sync_run, "ROWS_AHEAD", 1)  # a page at a time
    first_day = date(2020, 1, 1)
    with monkeypatch.context() as late:
        late.setattr(sync_run.TimeLimit, "late", lambda _: 1.0)
        linked.sync()
        ManyAccounts.requests.clear()
        linked.sync(since=first_day)
        linked.sync()
        linked.sync()

    assert ManyAccounts.requests == [
        (first_day, frozenset()),  # what the run before has read does not go back so far
        (first_day, frozenset({"account:A"})),
        (first_day, frozenset({"account:A", "account:B"})),
    ]
    ManyAccounts.requests.clear()
    linked.sync()
    assert ManyAccounts.requests == [(None, frozenset())]


@pytest.mark.deep
def test_run_that_gets_no_feed_further_ends_when_twice_its_time_is_up(
    link_model: Callable[..., Linked], monkeypatch: pytest.MonkeyPatch
) -> None:
    linked = link_model(FailingIntegration(problems=(Transient("timeout", account_key="A"),)))
    monkeypatch.setattr(sync_run.TimeLimit, "late", lambda _: 201.0)

    run = linked.sync()

    assert (run.status, run.error, run.error_reason) == (RunStatus.FAILED, "transient", "time_is_up")
    assert due_in(linked) > timedelta(0)


def _always_out_of_time(self: Any, page: Page) -> bool:
    self._found.goes_on = page.more
    return bool(page.more)


@pytest.mark.deep
@pytest.mark.parametrize(
    ("error", "status", "failures"),
    [
        (Transient("reset"), RunStatus.FAILED, 1),
        (BadPayload("not_json"), RunStatus.FAILED, 1),
        (NotReady("preparing"), RunStatus.PARTIAL, 0),
        (RateLimited("quota"), RunStatus.PARTIAL, 0),
        (AppMisconfigured("bad_client"), RunStatus.FAILED, 0),
    ],
)
def test_error_ends_the_run_and_schedules_the_next(
    link_model: Callable[..., Linked], error: ProviderError, status: RunStatus, failures: int
) -> None:
    deferred = isinstance(error, NotReady | RateLimited)
    error.retry_after = SOON if deferred else None
    linked = link_model(FailingIntegration(error))

    run = linked.sync()

    assert (run.status, run.error, run.error_reason, run.error_scope) == (
        status,
        error.kind,
        error.reason,
        error.scope,
    )
    assert status_of(linked) == ("active", None, failures)
    if deferred:
        assert abs(due_in(linked) - SOON) < timedelta(seconds=30)
    else:
        assert timedelta(0) < due_in(linked) < timedelta(minutes=2)


@pytest.mark.deep
def test_what_a_strangers_exception_says_is_not_kept(link_model: Callable[..., Linked]) -> None:
    linked = link_model(FailingIntegration(ValueError("account 123456789012 of Ann, token SECRETWORD")))  # type: ignore[arg-type]

    run = linked.sync()

    assert (run.status, run.error, run.error_reason) == (RunStatus.FAILED, "ValueError", runs.UNEXPECTED)


def test_run_whose_accounts_are_all_refused_counts_as_a_refusal_of_the_login(link_model: Callable[..., Linked]) -> None:
    linked = link_model(FailingIntegration(problems=tuple(Forbidden("http_403", account_key=key) for key in "ABWC")))

    assert linked.sync().status == RunStatus.FAILED

    assert linked.rows("SELECT refused, paused_at FROM integration_states WHERE CAST(:id AS uuid) IS NOT NULL") == [
        ([f"sync:{linked.provider_id}"], None)
    ]


@pytest.mark.deep
def test_run_with_one_refused_account_among_others_accuses_nobody(link_model: Callable[..., Linked]) -> None:
    linked = link_model(FailingIntegration(problems=(Forbidden("http_403", account_key="A"),)))

    assert linked.sync().status == RunStatus.PARTIAL

    assert linked.rows("SELECT refused FROM integration_states WHERE CAST(:id AS uuid) IS NOT NULL") in ([], [([],)])


def test_dead_grant_met_by_a_data_call_stops_the_provider_with_audit_and_notice(
    link_model: Callable[..., Linked],
) -> None:
    linked = link_model(FailingIntegration(ReauthRequired("ITEM_LOGIN_REQUIRED")))

    run = linked.sync()

    assert run.status == RunStatus.FAILED
    assert status_of(linked)[:2] == ("needs_reauth", "ITEM_LOGIN_REQUIRED")
    assert linked.rows("SELECT sync_due_at, refresh_due_at FROM providers WHERE id = :id") == [(None, None)]
    assert linked.rows("SELECT action, reason FROM provider_audit_logs WHERE provider_id = :id") == [
        ("needs_reauth", "ITEM_LOGIN_REQUIRED")
    ]
    assert linked.rows("SELECT DISTINCT stage FROM notices WHERE provider_id = :id") == [("needs_reauth",)]
    with pytest.raises(Refused):
        linked.sync()


@pytest.mark.deep
def test_dead_grant_of_an_older_token_does_not_stop_a_provider_that_was_linked_anew(
    link_model: Callable[..., Linked],
) -> None:
    linked = link_model(FailingIntegration(ReauthRequired("revoked")))

    def relink() -> None:
        linked.execute("UPDATE provider_tokens SET generation = 2 WHERE provider_id = :id")

    linked.integration._listing, listing = lambda: (relink(), listing())[1], linked.integration._listing  # type: ignore[method-assign]

    linked.sync()

    assert status_of(linked)[0] == "active"
    assert due_in(linked) > timedelta(0)


@pytest.mark.deep
def test_problem_of_one_account_makes_the_run_partial(link_model: Callable[..., Linked]) -> None:
    linked = link_model(FailingIntegration(problems=(BadPayload("odd", account_key="A"),)))

    run = linked.sync()

    assert run.status == RunStatus.PARTIAL
    assert run.problems == {"problems": [{"kind": "bad_payload", "scope": "request", "reason": "odd", "account": "A"}]}
    assert len(linked.rows("SELECT 1 FROM accounts WHERE provider_id = :id")) == 4


@pytest.mark.deep
def test_run_in_which_every_account_failed_is_no_success(link_model: Callable[..., Linked]) -> None:
    linked = link_model(FailingIntegration(problems=tuple(BadPayload("odd", account_key=key) for key in "ABWC")))

    assert linked.sync().status == RunStatus.FAILED


@pytest.mark.deep
@pytest.mark.parametrize("reason", ["mass_deletion", "unnamed_records", "day_with_3000_rows"])
def test_run_that_withheld_something_of_every_account_has_stored_the_rest(
    link_model: Callable[..., Linked], reason: str
) -> None:
    linked = link_model(FailingIntegration(problems=tuple(BadPayload(reason, account_key=key) for key in "ABWC")))

    assert linked.sync().status == RunStatus.PARTIAL


@pytest.mark.deep
def test_part_that_is_not_ready_is_scheduled_and_no_failure(link_model: Callable[..., Linked]) -> None:
    linked = link_model(FailingIntegration(problems=(NotReady("preparing", retry_after=SOON),)))

    assert linked.sync().status == RunStatus.COMPLETED
    assert abs(due_in(linked) - SOON) < timedelta(seconds=30)


@pytest.mark.deep
def test_refused_token_is_renewed_once_and_the_sync_goes_on(linked: Linked) -> None:
    for number in range(6):
        linked.integration.books.put(Movement(f"t{number}", "A", "1.00"))
    linked.integration.plan = Plan(page_size=2, refuse_access_before={3})

    run = linked.sync()

    assert run.status == RunStatus.COMPLETED
    assert len(linked.live()) == 6
    assert linked.rows("SELECT generation FROM provider_tokens WHERE provider_id = :id") == [(2,)]


def test_token_refused_twice_in_a_row_fails_without_demanding_a_new_grant(linked: Linked) -> None:
    linked.integration.plan = Plan(refuse_access_before={0, 1})

    run = linked.sync()

    assert (run.status, run.error) == (RunStatus.FAILED, "access_expired")
    assert status_of(linked)[0] == "active"


@pytest.mark.deep
def test_tokens_refused_after_every_first_page_are_not_renewed_for_ever(linked: Linked) -> None:
    linked.integration.plan = Plan(refuse_access_before=set(range(1, 99, 2)))

    run = linked.sync()

    assert (run.status, run.error) == (RunStatus.FAILED, "access_expired")
    assert linked.rows("SELECT generation FROM provider_tokens WHERE provider_id = :id") == [(2,)]


def test_run_goes_on_when_postgres_is_still_away_after_the_first_wait(linked: Linked, monkeypatch: Any) -> None:
    linked.integration.books.put(Movement("t", "A", "1.00"))
    monkeypatch.setattr(sync_run, "_RESUME_PAUSE", 0.001)
    db, away = linked.runtime.db, iter([True, True])

    async def failing_twice(step: Any, *args: Any, **kwargs: Any) -> Any:
        if step in (pages.apply_pages, runs.read_progress) and next(away, False):
            raise Unavailable("Postgres is away")
        return await db(step, *args, **kwargs)

    monkeypatch.setattr(linked.runtime, "db", failing_twice)

    assert linked.sync().status == RunStatus.COMPLETED
    assert set(linked.live()) == {"t"}


@pytest.mark.deep
def test_endless_restarts_end_the_run_with_the_loop_undone(linked: Linked) -> None:
    for number in range(6):
        linked.integration.books.put(Movement(f"t{number}", "A", "1.00"))
    linked.integration.plan = Plan(page_size=2, restarts=99)

    run = linked.sync()

    assert (run.status, run.error) == (RunStatus.FAILED, "paging_restart")
    linked.integration.plan = Plan()
    assert linked.sync().counts["transactions"] == {"added": 6}


class PagingIntegration(ModelIntegration):
    """One feed with a row a page."""

    def __init__(self, *cursors: tuple[str, bool]) -> None:
        super().__init__()
        self.cursors = cursors

    async def pages(self, request: SyncRequest) -> AsyncIterator[Page]:
        yield self._listing()
        for number, (cursor, more) in enumerate(self.cursors):
            rows = [Movement(f"t{number}", "A", "1.00").raw()]
            yield Page(feed="paged", cursor=cursor, more=more, transactions=rows, map_transaction=self._read)


@pytest.mark.deep
def test_cursor_that_leads_back_to_itself_ends_the_run_and_nothing_of_its_page_is_kept(
    link_model: Callable[..., Linked],
) -> None:
    linked = link_model(PagingIntegration(("c1", True), ("c1", True)))

    run = linked.sync()

    assert (run.status, run.error, run.error_reason) == (RunStatus.FAILED, "bad_payload", "cursor_loop")
    assert set(linked.live()) == {"t0"}


@pytest.mark.deep
def test_cursors_that_lead_back_to_each_other_end_the_run(link_model: Callable[..., Linked]) -> None:
    linked = link_model(PagingIntegration(*[("c1", True), ("c2", True)] * 20))

    run = linked.sync()

    assert (run.status, run.error, run.error_reason) == (RunStatus.FAILED, "bad_payload", "cursor_loop")


@pytest.mark.deep
def test_place_that_comes_again_because_offsets_shifted_is_no_loop(link_model: Callable[..., Linked]) -> None:
    linked = link_model(PagingIntegration(*[("c1", True), ("c2", True)] * 4, ("c3", False)))

    assert linked.sync().status == RunStatus.COMPLETED


@pytest.mark.deep
def test_overlap_that_is_read_again_may_end_where_the_stored_cursor_stands(link_model: Callable[..., Linked]) -> None:
    linked = link_model(PagingIntegration(("2025-03-08", False)))
    linked.sync()
    linked.integration.cursors = (("2025-03-08", True), ("2025-03-10", False))  # type: ignore[attr-defined]

    run = linked.sync()

    assert (run.status, run.cursor_after) == (RunStatus.COMPLETED, {"paged": "2025-03-10"})


@pytest.mark.deep
def test_one_bad_provider_does_not_delay_the_others(link_model: Callable[..., Linked]) -> None:
    linked = link_model()
    unknown = new_id()

    async def both() -> batch.SyncSummary:
        return await asyncio.wait_for(
            batch.sync_providers(linked.runtime, [unknown, linked.provider_id, linked.provider_id]), 10
        )

    summary = linked.runtime.run(both())

    assert list(summary.runs) == [linked.provider_id]
    assert "no provider has the id" in summary.refused[unknown]


def test_claim_hands_out_what_is_due_once(linked: Linked) -> None:
    now = datetime.now(UTC)

    first = linked.runtime.run(batch.claim_sync_due(linked.runtime, now))
    second = linked.runtime.run(batch.claim_sync_due(linked.runtime, now))

    assert (first, second) == ([[linked.provider_id]], [])


def test_claimed_sync_that_found_no_postgres_is_due_again_as_soon_as_it_answers(
    linked: Linked, monkeypatch: Any
) -> None:
    db, away = linked.runtime.db, iter([True, True, True])
    linked.execute("UPDATE providers SET sync_due_at = now() + interval '9 minutes' WHERE id = :id")
    monkeypatch.setattr(batch, "_HAND_BACK_PAUSE_S", 0.01)

    async def failing(step: Any, *args: Any, **kwargs: Any) -> Any:
        if next(away, False):
            raise Unavailable("Postgres is away")
        return await db(step, *args, **kwargs)

    monkeypatch.setattr(linked.runtime, "db", failing)

    with pytest.raises(Unavailable):
        linked.runtime.run(batch.sync_providers(linked.runtime, [linked.provider_id], hand_back=True))

    assert linked.rows("SELECT sync_due_at <= now() FROM providers WHERE id = :id") == [(True,)]


class RefusedAtTheEnd(ModelIntegration):
    """Refuses the access token at the end of the first reading, when a pending row has been booked under a new id."""

    async def pages(self, request: SyncRequest) -> AsyncIterator[Page]:
        async for page in super().pages(request):
            yield page
        if "pending" in self.books.windowed:
            self.books.remove("pending")
            self.books.put(Movement("booked", "W", "-5.00"))
            raise AccessExpired("model")


@pytest.mark.deep
def test_first_sync_that_reads_again_compares_with_what_it_has_stored(link_model: Callable[..., Linked]) -> None:
    linked = link_model(RefusedAtTheEnd())
    linked.integration.books.put(Movement("pending", "W", "-5.00", "pending"))

    run = linked.sync()

    assert run.status == RunStatus.COMPLETED
    assert linked.live() == {"booked": ("posted", Decimal("-5.00"), "")}

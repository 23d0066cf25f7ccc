"""Pages of several feeds that arrive while earlier ones are stored: they are stored in one transaction."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest

from tests.integration.sync.conftest import Linked
from tests.integration.sync.feeds import ModelIntegration, Movement
from tests.integration.sync.test_pages import NOW, Applying, of
from worker.crud.sync import pages
from worker.crud.sync.pages import PagesApplied
from worker.crud.sync.work import prepare
from worker.integrations.kit.base import Page, SyncRequest
from worker.models.vocabulary import RunStatus
from worker.services.sync.time_limit import TimeLimit

FIRST = of([Movement("t1", "A", "1.00")], feed="first", cursor="c1")
SECOND = of([Movement("t2", "B", "2.00")], feed="second", cursor="c2")
REFUSED = of([Movement("t3", "B", "NaN"), Movement("t4", "B", "4.00")], feed="refused", cursor="c3")


@pytest.fixture
def apply(linked: Linked) -> Applying:
    applying = Applying(linked)
    applying.list_accounts("A", "B")
    return applying


def together(apply: Applying, *feeds: Page) -> list[PagesApplied]:
    with apply.linked.runtime.transaction() as session:
        return pages.apply_feeds(
            session,
            run=apply.run,
            feeds=[[(page, prepare(page, apply.rules))] for page in feeds],
            rules=apply.rules,
            progress=pages.Progress(pages=apply.pages),
            now=NOW,
        )


def cursors_of(linked: Linked) -> dict[str, str]:
    return dict(linked.rows("SELECT feed, cursor FROM sync_cursors WHERE provider_id = :id AND feed <> 'accounts'"))


def test_each_feed_has_its_rows_its_cursor_and_its_counts(apply: Applying) -> None:
    results = together(apply, FIRST, SECOND)

    assert [one.tally["transactions", "added"] for one in results] == [1, 1]
    assert set(apply.linked.live()) == {"t1", "t2"}
    assert cursors_of(apply.linked) == {"first": "c1", "second": "c2"}
    assert apply.linked.rows("SELECT pages, added FROM sync_runs") == [(3, 2)]


def test_feed_that_is_refused_leaves_nothing_of_the_others(apply: Applying) -> None:
    with pytest.raises(pages.PageRefused):
        together(apply, FIRST, REFUSED, SECOND)

    assert (apply.linked.live(), cursors_of(apply.linked)) == ({}, {})


def test_feeds_after_the_one_at_which_a_run_is_cancelled_are_not_stored(apply: Applying) -> None:
    apply.linked.execute("UPDATE sync_runs SET cancel_requested = true")

    (result,) = together(apply, FIRST, SECOND)

    assert result.cancel_requested
    assert cursors_of(apply.linked) == {"first": "c1"}


class ThreeFeeds(ModelIntegration):
    """Pages of three feeds, all at once; the first feed would go on."""

    async def pages(self, request: SyncRequest) -> AsyncIterator[Page]:
        yield self._listing()
        for page in (of([Movement("t1", "A", "1.00")], feed="first", cursor="c1", more=True), REFUSED, SECOND):
            yield self._serve(request, page)


def test_run_stores_a_refused_feed_row_by_row_and_remembers_that_another_one_goes_on(
    link_model: Callable[..., Linked], monkeypatch: pytest.MonkeyPatch
) -> None:
    linked = link_model(ThreeFeeds())
    monkeypatch.setattr(TimeLimit, "late", lambda _: 0.5)
    monkeypatch.setattr(TimeLimit, "is_over", lambda _: False)

    run = linked.sync()

    assert run.status == RunStatus.PARTIAL
    assert set(linked.live()) == {"t1", "t2", "t4"}
    assert run.counts["transactions"] == {"added": 3, "quarantined": 1}
    assert cursors_of(linked) == {"first": "c1", "refused": "c3", "second": "c2"}
    assert linked.rows("SELECT sync_due_at <= clock_timestamp() FROM providers WHERE id = :id") == [(True,)]

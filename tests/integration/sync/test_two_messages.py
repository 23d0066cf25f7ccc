"""With a long queue a login is claimed twice: the second message finds nothing to do."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.integration.sync.conftest import Linked
from worker.models.vocabulary import Trigger
from worker.runtime import use_runtime
from worker.services.sync import batch
from worker.tasks import accounts


class TwoMessages:
    """A login that was claimed twice, because the first message waited longer than its claim."""

    def __init__(self, linked: Linked) -> None:
        self.linked = linked
        self.sent_at = datetime.now(UTC) - timedelta(minutes=10)

    def take(self) -> batch.SyncSummary:
        """A worker takes one of the two messages."""
        ids = [self.linked.provider_id]
        work = batch.sync_providers(self.linked.runtime, ids, hand_back=True, asked_at=self.sent_at)
        return self.linked.runtime.run(work)

    def claim(self, *, until: timedelta) -> None:
        self.linked.execute(
            f"UPDATE providers SET sync_due_at = now() + interval '{until.total_seconds()} s',"  # noqa: S608 - a number
            " sync_claimed_until = now() + interval '9 minutes' WHERE id = :id"
        )


def test_of_two_messages_for_one_login_the_first_does_the_work_of_both(linked: Linked) -> None:
    messages = TwoMessages(linked)
    messages.claim(until=timedelta(minutes=9))

    first, second = messages.take(), messages.take()

    assert (list(first.runs), list(second.runs)) == ([linked.provider_id], [])
    assert second.refused == {linked.provider_id: "synced since this was asked for"}


@pytest.mark.deep
@pytest.mark.parametrize("until", [timedelta(minutes=9), timedelta(minutes=-1)], ids=["claimed", "due"])
def test_message_that_waited_is_done_if_its_login_is_wanted_again(linked: Linked, until: timedelta) -> None:
    messages = TwoMessages(linked)
    messages.take()
    messages.claim(until=until)

    assert list(messages.take().runs) == [linked.provider_id]


@pytest.mark.deep
def test_message_that_was_sent_after_the_last_run_is_done_although_its_login_is_not_due(linked: Linked) -> None:
    messages = TwoMessages(linked)
    messages.take()
    linked.execute("UPDATE sync_runs SET started_at = started_at - interval '1 hour' WHERE provider_id = :id")

    assert list(messages.take().runs) == [linked.provider_id]


def test_task_tells_when_a_tick_sent_it(linked: Linked, monkeypatch: Any) -> None:
    sent_at = datetime(2026, 3, 4, 12, 30, tzinfo=UTC)
    given: list[datetime | None] = []

    async def noted(*_: Any, asked_at: datetime | None, **__: Any) -> batch.SyncSummary:
        given.append(asked_at)
        return batch.SyncSummary()

    monkeypatch.setattr(batch, "sync_providers", noted)
    with use_runtime(linked.runtime):
        for trigger in (Trigger.SCHEDULE, Trigger.MANUAL):
            accounts.sync_providers.push_request(published_at=sent_at.timestamp())
            accounts.sync_providers.run([str(linked.provider_id)], trigger=trigger)
            accounts.sync_providers.pop_request()

    assert given == [sent_at, None]

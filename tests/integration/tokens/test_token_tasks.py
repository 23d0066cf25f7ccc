from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import SecretStr

from tests.integration.tokens.conftest import Desk, MakeDesk
from worker.runtime import use_runtime
from worker.tasks import tokens as tasks


@pytest.fixture
def current(desk: Desk) -> Iterator[Desk]:
    with use_runtime(desk.runtime):
        yield desk


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Messages that would have gone to the broker."""
    messages: list[dict[str, Any]] = []
    monkeypatch.setattr(tasks.refresh_providers, "apply_async", lambda **message: messages.append(message))
    return messages


@pytest.mark.deep
def test_tick_sends_ids_alone_after_the_claim_is_committed(current: Desk, sent: list[dict[str, Any]]) -> None:
    id_ = current.link(refresh_due_at=datetime.now(UTC) - timedelta(minutes=1))

    tasks.refresh_due()

    assert sent == [{"args": [[str(id_)]], "countdown": None}]
    assert current.provider(id_)["refresh_due_at"] > datetime.now(UTC)
    assert current.schwab.presented == []


def test_second_tick_sends_nothing_twice(current: Desk, sent: list[dict[str, Any]]) -> None:
    current.link(refresh_due_at=datetime.now(UTC) - timedelta(minutes=1))

    tasks.refresh_due()
    tasks.refresh_due()

    assert len(sent) == 1


@pytest.mark.deep
def test_large_claim_is_spread_over_the_tick(current: Desk, sent: list[dict[str, Any]]) -> None:
    for _ in range(30):
        current.link(refresh_due_at=datetime.now(UTC) - timedelta(minutes=1))

    tasks.refresh_due()

    assert [message["countdown"] for message in sent] == [None, 5.0, 10.0]


@pytest.mark.deep
def test_nothing_waits_for_its_time_in_the_few_places_of_a_worker_with_rabbitmq(
    make_desk: MakeDesk, sent: list[dict[str, Any]]
) -> None:
    desk = make_desk(broker_url=SecretStr("amqp://127.0.0.1"))
    due_at = datetime.now(UTC) - timedelta(minutes=1)
    ids = [desk.link(refresh_due_at=due_at + timedelta(seconds=number)) for number in range(30)]

    with use_runtime(desk.runtime):
        tasks.refresh_due()

    assert [message["countdown"] for message in sent] == [None] * 3
    assert [id_ for message in sent for id_ in message["args"][0]] == [str(id_) for id_ in ids]


@pytest.mark.deep
def test_tick_takes_no_more_than_its_limit_earliest_first(make_desk: MakeDesk, sent: list[dict[str, Any]]) -> None:
    desk = make_desk(refresh_claim_limit=2, claim_limit=1)
    due_at = datetime.now(UTC) - timedelta(minutes=1)
    ids = [desk.link(refresh_due_at=due_at - timedelta(seconds=number)) for number in range(3)]

    with use_runtime(desk.runtime):
        tasks.refresh_due()

    assert sent == [{"args": [[str(ids[2]), str(ids[1])]], "countdown": None}]


@pytest.mark.deep
def test_batch_task_refreshes_and_counts(current: Desk) -> None:
    first, second = current.link(), current.link()

    counts = tasks.refresh_providers([str(first), str(second), "../../x", "-1"])

    assert counts == {"refreshed": 2}


@pytest.mark.deep
def test_manual_trigger_may_use_the_manual_share(current: Desk) -> None:
    id_ = current.link()

    tasks.refresh_providers([str(id_)], trigger="manual", force=True)

    assert current.schwab.callers[0].manual
    assert current.attempts(id_)[0]["trigger"] == "manual"


@pytest.mark.deep
def test_same_message_twenty_times_presents_the_token_once(current: Desk) -> None:
    id_ = current.link()

    for _ in range(20):
        tasks.refresh_providers([str(id_)])

    assert current.schwab.presented == ["refresh-1"]


def test_drain_task_has_nothing_to_do(current: Desk) -> None:
    tasks.drain_journal()

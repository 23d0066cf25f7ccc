"""Servers that go away between the steps of one batch."""

from __future__ import annotations

import asyncio
import signal
import time
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
import structlog
from sqlalchemy import text

from tests.integration.tokens.conftest import Desk, MakeDesk
from tests.support.scripted import answer
from worker.crud.refresh import tokens as token_rows
from worker.errors import Fenced, ReauthRequired, Transient, Unavailable
from worker.integrations.kit.base import Caller, TokenAnswer
from worker.process import failpoints
from worker.services.availability import breaker
from worker.services.refresh import journal, lease
from worker.services.refresh.access_token import access_token
from worker.services.refresh.results import Outcome


def _raising(error: Exception) -> Any:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


def _raising_async(error: Exception) -> Any:
    async def fail(*_: object, **__: object) -> None:
        raise error

    return fail


@pytest.mark.parametrize("error", [Unavailable("Postgres: gone"), RuntimeError("a fault of ours")])
def test_recovery_that_cannot_be_written_holds_up_nobody_else(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    left_behind, other = desk.link(refresh_token="a-1"), desk.link(refresh_token="b-1")
    desk.leave_behind(left_behind)
    monkeypatch.setattr(token_rows, "mark_unknown", _raising(error))

    outcomes = desk.refresh(left_behind, other)

    assert outcomes == {left_behind: Outcome.DEFERRED, other: Outcome.REFRESHED}
    assert desk.schwab.presented == ["b-1"]


def test_journal_that_is_away_is_asked_once_for_all_of_a_batch(
    make_desk: MakeDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = make_desk(refresh_concurrency=1)
    ids = [desk.link() for _ in range(3)]
    for id_ in ids:
        desk.leave_behind(id_)
    asked: list[UUID] = []

    async def away(_: object, id_: UUID, generation: int) -> None:
        asked.append(id_)
        raise Unavailable("journal: gone")

    monkeypatch.setattr(journal, "find", away)

    assert desk.refresh(*ids) == dict.fromkeys(ids, Outcome.DEFERRED)
    assert len(asked) == 1


def test_journal_that_takes_so_long_that_the_lease_nearly_ends_leaves_the_retry_for_later(
    make_desk: MakeDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = make_desk(http_total_seconds=0.01, lease_seconds=0.02)
    id_ = desk.link()
    desk.leave_behind(id_)

    async def answer_late(*_: object) -> None:
        await asyncio.sleep(0.03)

    monkeypatch.setattr(journal, "find", answer_late)

    assert desk.refresh(id_) == {id_: Outcome.DEFERRED}
    assert desk.schwab.presented == []
    assert [row["status"] for row in desk.attempts(id_)] == ["sent"]
    assert desk.token(id_)["lease_owner"] is None


def test_retry_whose_token_cannot_be_read_is_not_sent_and_not_given_up(desk: Desk) -> None:
    id_ = desk.link(token={"refresh_token": "gAAAAA"})
    desk.leave_behind(id_)

    assert desk.refresh(id_) == {id_: Outcome.FAILED}
    assert desk.schwab.presented == []
    assert desk.provider(id_)["status"] == "active"
    assert desk.provider(id_)["refresh_failures"] == 1


@pytest.mark.deep
def test_journal_entry_that_another_worker_stores_first_is_left_to_it(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    id_ = desk.link()
    desk.leave_behind(id_)

    async def found(*_: object) -> object:
        return object()

    monkeypatch.setattr(journal, "find", found)
    monkeypatch.setattr(journal, "apply", _raising_async(Fenced("taken over")))

    assert desk.refresh(id_) == {id_: Outcome.BUSY}
    assert desk.schwab.presented == []


def test_refused_retry_ends_even_when_the_journal_goes_away_meanwhile(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    id_ = desk.link()
    desk.leave_behind(id_)

    def refuse(token: str) -> TokenAnswer:
        monkeypatch.setattr(journal, "find", _raising_async(Unavailable("journal: gone")))
        raise ReauthRequired("invalid_grant")

    desk.schwab.script = [refuse]

    assert desk.refresh(id_) == {id_: Outcome.NEEDS_REAUTH}


def test_report_that_cannot_be_made_costs_nothing(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    id_ = desk.link()
    monkeypatch.setattr(breaker, "report", _raising_async(Unavailable("Postgres: gone")))

    assert desk.refresh(id_) == {id_: Outcome.REFRESHED}


def test_cancelled_wait_for_a_token_still_stores_the_answer(desk: Desk) -> None:
    id_ = desk.link()

    async def cancel_in_mid_call() -> None:
        called = asyncio.Event()

        async def slowly(token: str) -> TokenAnswer:
            called.set()
            await asyncio.sleep(0.02)
            return answer()

        desk.schwab.script = [slowly]
        wanted = asyncio.create_task(access_token(desk.runtime, id_, caller=Caller()))
        await called.wait()
        wanted.cancel()
        with pytest.raises(asyncio.CancelledError):
            await wanted

    desk.runtime.run(cancel_in_mid_call())

    assert desk.plain(id_, "refresh") == "refresh-2"


def test_process_that_is_told_to_end_stores_what_is_in_flight_and_begins_nothing_new(make_desk: MakeDesk) -> None:
    desk = make_desk(refresh_concurrency=1)
    first, second = desk.link(refresh_token="a-1"), desk.link(refresh_token="b-1")
    asked: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: asked.append(number))

    def end(token: str) -> TokenAnswer:
        signal.raise_signal(signal.SIGTERM)
        return answer()

    desk.schwab.script = [end]
    try:
        outcomes = desk.refresh(first, second)
    finally:
        signal.signal(signal.SIGTERM, before)

    assert outcomes == {first: Outcome.REFRESHED, second: Outcome.DEFERRED}
    assert desk.schwab.presented == ["a-1"]
    assert desk.plain(first, "refresh") == "refresh-2"
    assert desk.attempts(second) == []
    assert asked == [signal.SIGTERM]


@pytest.mark.deep
def test_journal_that_does_not_answer_keeps_no_answer_and_no_call_waiting(
    make_desk: MakeDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = make_desk()
    left_behind = [desk.link() for _ in range(5)]
    for id_ in left_behind:
        desk.leave_behind(id_)
    other = desk.link(refresh_token="b-1")
    sent = asyncio.Event()

    async def hang(*_: object) -> None:
        await asyncio.wait_for(sent.wait(), 10)
        raise Unavailable("journal: Redis is away")

    def note(token: str) -> TokenAnswer:
        sent.set()
        return answer()

    monkeypatch.setattr(journal, "find", hang)
    desk.schwab.script = [note]

    outcomes = desk.refresh(*left_behind, other)

    assert outcomes == {other: Outcome.REFRESHED} | dict.fromkeys(left_behind, Outcome.DEFERRED)


@pytest.mark.deep
def test_nothing_is_sent_when_the_lease_may_end_during_the_call(
    make_desk: MakeDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = make_desk(http_total_seconds=0.1, lease_seconds=0.3)
    id_ = desk.link()

    def stop_for_a_while(_: object, place: str) -> None:
        if place == "before_send":
            time.sleep(0.3)

    monkeypatch.setattr(failpoints, "reach", stop_for_a_while)

    assert desk.refresh(id_) == {id_: Outcome.FAILED}
    assert desk.schwab.presented == []
    assert [row["status"] for row in desk.attempts(id_)] == ["not_sent"]
    assert desk.provider(id_)["status"] == "active"


@pytest.mark.deep
def test_answer_goes_to_the_journal_when_postgres_hangs(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "STORE_SECONDS", 0.2)
    id_ = desk.link()
    with desk.engine.connect() as other:

        def lock(token: str) -> TokenAnswer:
            other.execute(text("SET idle_in_transaction_session_timeout = '3s'"))  # it does not hang for ever
            other.execute(text("LOCK TABLE provider_tokens"))
            return answer()

        desk.schwab.script = [lock]

        assert desk.refresh(id_) == {id_: Outcome.JOURNALED}

        other.rollback()
    # What hung was given up with its connection.
    assert desk.token(id_)["generation"] == 1
    assert desk.runtime.run(journal.drain(desk.runtime)) == 1
    assert desk.token(id_)["generation"] == 2
    assert desk.runtime.run(journal.entries(desk.runtime)) == []
    assert desk.plain(id_, "refresh") == "refresh-2"


def test_token_that_never_lives_long_enough_is_not_refreshed_for_ever(desk: Desk) -> None:
    id_ = desk.link()

    async def too_late(token: str) -> TokenAnswer:
        await asyncio.sleep(0.02)
        return answer(lifetime=timedelta(milliseconds=10))

    desk.schwab.script = [too_late] * 50

    with pytest.raises(Transient):
        desk.runtime.run(access_token(desk.runtime, id_, caller=Caller()))

    assert len(desk.schwab.presented) <= 3


def test_end_of_a_lost_rotation_is_audited_with_its_task(desk: Desk) -> None:
    id_ = desk.link()
    desk.leave_behind(id_)
    desk.leave_behind(id_)

    with structlog.contextvars.bound_contextvars(task_id="task-1"):
        assert desk.refresh(id_) == {id_: Outcome.NEEDS_REAUTH}

    assert desk.rows("SELECT task_id FROM provider_audit_logs WHERE provider_id = :id", id=id_) == [
        {"task_id": "task-1"}
    ]

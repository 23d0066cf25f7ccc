"""What was sent, what may be sent again, and when: the cases in which a token might be presented once too often."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.orm import Session

from tests.integration.tokens.conftest import Desk, MakeDesk
from tests.support.waiting import wait_for
from worker.crud.refresh import records as token_records
from worker.crud.refresh import tokens as token_rows
from worker.errors import GatewayError, OutcomeUnknown, RateLimited, ReauthRequired, Transient, Unavailable, Unsent
from worker.integrations.kit.base import Caller, TokenAnswer
from worker.models import new_id
from worker.process import clocks, redis_names
from worker.services.refresh import unsent
from worker.services.refresh.access_token import access_token
from worker.services.refresh.results import Outcome


def _statuses(desk: Desk, id_: Any) -> list[str]:
    return [row["status"] for row in desk.attempts(id_)]


# Attempts whose commit was not acknowledged


@contextmanager
def _acknowledgements_lost(desk: Desk, *, times: int) -> Iterator[None]:
    """The next commits that write attempts are durable, and the worker is told that Postgres has gone."""
    left = [times]
    begin = token_rows.begin_attempts

    def begin_and_lose(session: Session, *, attempts: Any) -> None:
        begin(session, attempts=attempts)
        if attempts and left[0]:
            left[0] -= 1

            @event.listens_for(session, "after_commit", once=True)
            def lose(_: Session) -> None:
                raise Unavailable("Postgres: the acknowledgement did not come")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(token_rows, "begin_attempts", begin_and_lose)
        yield


@pytest.mark.deep
@pytest.mark.parametrize("told", [True, False], ids=["told by itself", "told by another worker"])
def test_unacknowledged_attempts_are_no_presentations(
    make_desk: MakeDesk, monkeypatch: pytest.MonkeyPatch, told: bool
) -> None:
    desk = make_desk()
    id_ = desk.link()
    with _acknowledgements_lost(desk, times=2), monkeypatch.context() as patch:
        if not told:
            patch.setattr(unsent, "tell", _nothing)
        for _ in range(2):
            with suppress(Unavailable):
                desk.refresh(id_)
            desk.let_lease_end(id_)
    if not told:
        desk.runtime.unsent.clear()  # the process has died; what it noted is in Redis

    assert desk.schwab.presented == []
    assert desk.refresh(id_) == {id_: Outcome.REFRESHED}
    assert _statuses(desk, id_) == ["not_sent", "not_sent", "done"]
    assert desk.runtime.redis.hgetall(redis_names.UNSENT) == {}


async def _nothing(_: object) -> None:
    return None


@pytest.mark.deep
def test_refusal_after_an_unacknowledged_attempt_is_the_provider_s_own_word(desk: Desk) -> None:
    id_ = desk.link()
    with _acknowledgements_lost(desk, times=1), pytest.raises(Unavailable):
        desk.refresh(id_)
    desk.let_lease_end(id_)
    desk.schwab.script = [ReauthRequired("invalid_grant")]

    assert desk.refresh(id_) == {id_: Outcome.NEEDS_REAUTH}
    assert desk.provider(id_)["status_reason"] == "invalid_grant"


def test_attempt_that_is_given_up_cannot_be_written_afterwards(desk: Desk) -> None:
    id_ = desk.link()
    attempt = token_records.AttemptBegun(
        id=new_id(), provider_id=id_, generation=1, trigger="schedule", owner=desk.runtime.owner
    )
    with desk.runtime.transaction() as session:
        token_rows.mark_not_sent(session, attempts=[attempt])

    with pytest.raises(Exception, match="pk_token_refreshes"), desk.runtime.transaction() as session:
        token_rows.begin_attempts(session, attempts=[attempt])

    assert _statuses(desk, id_) == ["not_sent"]


@pytest.mark.deep
def test_call_that_is_given_up_while_it_waits_for_its_quota_was_not_sent(make_desk: MakeDesk) -> None:
    desk = make_desk(http_total_seconds=0.05, lease_seconds=0.3)
    id_ = desk.link()

    async def wait_for_the_gate(token: str) -> TokenAnswer:
        departure = desk.schwab.callers[-1].departure
        assert departure is not None
        departure.held = True  # as `Api` says while it waits
        await asyncio.Event().wait()
        raise AssertionError

    desk.schwab.script = [wait_for_the_gate]

    assert desk.refresh(id_) == {id_: Outcome.FAILED}
    assert _statuses(desk, id_) == ["not_sent"]


@pytest.mark.parametrize("why", ["too late", "our own budget"])
def test_call_that_never_left_is_no_presentation_although_its_end_cannot_be_stored(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    id_ = desk.link()

    async def stay(token: str) -> TokenAnswer:
        departure = desk.schwab.callers[-1].departure
        assert departure is not None
        departure.held = True  # as `Api` says while it waits
        raise Unsent("lease_nearly_over") if why == "too late" else RateLimited("over_budget")

    def away(*_: Any, **__: Any) -> set[Any]:
        raise Unavailable("Postgres: OperationalError")

    desk.schwab.script = [stay]
    with monkeypatch.context() as patch:
        patch.setattr(token_rows, "store", away)
        desk.refresh(id_)
    assert _statuses(desk, id_) == ["sent"]
    desk.let_lease_end(id_)

    desk.refresh(id_)

    assert _statuses(desk, id_) == ["not_sent", "done"]


@pytest.mark.deep
def test_call_that_was_sent_is_a_presentation_when_its_end_cannot_be_stored(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    id_ = desk.link()

    def away(*_: Any, **__: Any) -> set[Any]:
        raise Unavailable("Postgres: OperationalError")

    desk.schwab.script = [RateLimited("http_429")]
    with monkeypatch.context() as patch:
        patch.setattr(token_rows, "store", away)
        desk.refresh(id_)

    assert desk.runtime.unsent == {}
    assert _statuses(desk, id_) == ["sent"]


# Time


@pytest.mark.deep
def test_machine_that_was_suspended_sends_nothing_after_its_lease(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    id_ = desk.link()
    begin = token_rows.begin_attempts
    real = clocks.time.clock_gettime

    def suspend(session: Session, **values: Any) -> None:
        begin(session, **values)
        # Hours pass on the clock that counts them; Python's monotonic clock has not noticed.
        monkeypatch.setattr(
            clocks, "time", type("Clock", (), {"clock_gettime": staticmethod(lambda clock: real(clock) + 7200)})
        )

    monkeypatch.setattr(token_rows, "begin_attempts", suspend)

    assert desk.refresh(id_) == {id_: Outcome.FAILED}
    assert desk.schwab.presented == []
    assert _statuses(desk, id_) == ["not_sent"]


@pytest.mark.deep
@pytest.mark.parametrize(
    "error",
    [
        Transient("http_503"),
        RateLimited("http_429", retry_after=timedelta(hours=2)),
        OutcomeUnknown("timeout"),
        GatewayError("http_502"),
    ],
    ids=repr,
)
def test_batch_that_is_delivered_again_keeps_to_the_wait(desk: Desk, error: Exception) -> None:
    id_ = desk.link()
    desk.schwab.script = [error]
    desk.refresh(id_)
    due_at = desk.provider(id_)["refresh_due_at"]
    desk.rows("UPDATE providers SET refresh_due_at = now() + interval '2 minutes'")  # as a claim does

    assert desk.refresh(id_, waits=True) == {id_: Outcome.DEFERRED}

    assert desk.schwab.presented == ["refresh-1"]
    assert desk.provider(id_)["refresh_due_at"] == due_at
    assert desk.token(id_)["lease_owner"] is None


@pytest.mark.deep
def test_sync_that_needs_the_token_keeps_to_the_wait_and_learns_how_long_it_is(desk: Desk) -> None:
    id_ = desk.link()
    desk.schwab.script = [RateLimited("http_429", retry_after=timedelta(hours=2))]
    desk.refresh(id_)

    with pytest.raises(RateLimited, match="refresh_waits") as waits:
        desk.runtime.run(access_token(desk.runtime, id_, caller=Caller()))

    assert waits.value.retry_after is not None
    assert timedelta(hours=1) < waits.value.retry_after <= timedelta(hours=2)
    assert desk.schwab.presented == ["refresh-1"]


@pytest.mark.deep
def test_wait_ends_with_the_next_token(desk: Desk) -> None:
    id_ = desk.link()
    desk.schwab.script = [Transient("http_503")]
    desk.refresh(id_)
    desk.refresh(id_)

    assert desk.provider(id_)["refresh_not_before"] is None


# Gateways


@pytest.mark.deep
def test_hour_of_gateways_errors_costs_no_user_anything(desk: Desk) -> None:
    id_ = desk.link()
    desk.schwab.script = [GatewayError("http_502"), GatewayError("http_504")] * 3
    waits = []
    for _ in range(6):
        assert desk.refresh(id_) == {id_: Outcome.UNKNOWN}
        waits.append(desk.provider(id_)["refresh_due_at"] - desk.now())

    assert desk.provider(id_)["status"] == "active"
    assert waits[0] < timedelta(seconds=31)  # 30, by a clock that may be some milliseconds ahead of this one
    assert min(waits[1:]) > timedelta(minutes=14)
    assert desk.refresh(id_) == {id_: Outcome.REFRESHED}


@pytest.mark.deep
def test_rotation_behind_a_gateway_s_error_that_is_not_forgiven_is_a_lost_rotation(desk: Desk) -> None:
    id_ = desk.link()
    desk.schwab.script = [GatewayError("http_502"), ReauthRequired("invalid_grant")]

    outcomes = [desk.refresh(id_)[id_] for _ in range(3)]

    assert outcomes == [Outcome.UNKNOWN, Outcome.NEEDS_REAUTH, Outcome.INACTIVE]
    assert desk.provider(id_)["status_reason"] == "lost_rotation"
    assert len(desk.schwab.presented) == 2


# A backend of Postgres that stands still


@pytest.mark.deep
def test_lease_that_was_held_up_within_postgres_decides_by_what_is_true_when_it_is_given(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    id_ = desk.link()
    desk.schwab.script = [OutcomeUnknown("timeout"), OutcomeUnknown("timeout")]
    # Between its snapshot and the row's lock, this statement waits for an advisory lock.
    wait = "AND (SELECT count(*) FROM (SELECT pg_advisory_xact_lock(42)) AS held_up) = 1 FOR UPDATE OF t"
    held_up = text(str(token_rows._LEASE).replace("FOR UPDATE OF t", wait))
    leased: list[Any] = []

    def lease() -> None:
        with desk.runtime.transaction() as session:
            leased.extend(token_rows.lease(session, ids=[id_], owner=desk.runtime.owner, seconds=30))

    with desk.engine.connect() as other:
        other.execute(text("SELECT pg_advisory_lock(42)"))
        thread = threading.Thread(target=lease)
        with monkeypatch.context() as patch:
            patch.setattr(token_rows, "_LEASE", held_up)
            thread.start()
            waiting = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
            wait_for(lambda: desk.rows(waiting), what="the statement that stands still")
        assert [desk.refresh(id_)[id_] for _ in range(2)] == [Outcome.UNKNOWN, Outcome.NEEDS_REAUTH]
        other.execute(text("SELECT pg_advisory_unlock(42)"))
        thread.join()

    assert leased == []
    assert desk.token(id_)["lease_owner"] is None

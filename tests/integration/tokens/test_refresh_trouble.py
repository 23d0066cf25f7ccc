"""Servers that go away between the steps of one batch."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.integration.tokens.conftest import Desk
from tests.support.scripted import answer
from worker.crud import tokens as token_rows
from worker.errors import Fenced, ReauthRequired, Unavailable
from worker.integrations.base import Caller, TokenAnswer
from worker.services import availability, journal, tokens
from worker.services.token_results import Outcome


def _raising(error: Exception) -> Any:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


def _raising_async(error: Exception) -> Any:
    async def fail(*_: object, **__: object) -> None:
        raise error

    return fail


def test_recovery_that_cannot_be_written_holds_up_nobody_else(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    left_behind, other = desk.link(refresh_token="a-1"), desk.link(refresh_token="b-1")
    desk.leave_behind(left_behind)
    monkeypatch.setattr(token_rows, "mark_unknown", _raising(Unavailable("Postgres: gone")))

    outcomes = desk.refresh(left_behind, other)

    assert outcomes == {left_behind: Outcome.DEFERRED, other: Outcome.REFRESHED}
    assert desk.schwab.presented == ["b-1"]


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
    monkeypatch.setattr(availability, "report", _raising_async(Unavailable("Postgres: gone")))

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
        wanted = asyncio.create_task(tokens.access_token(desk.runtime, id_, caller=Caller()))
        await called.wait()
        wanted.cancel()
        with pytest.raises(asyncio.CancelledError):
            await wanted

    desk.runtime.run(cancel_in_mid_call())

    assert desk.plain(id_, "refresh") == "refresh-2"

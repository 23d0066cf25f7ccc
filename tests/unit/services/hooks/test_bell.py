"""The bell that tells the workers of work that hooks have made due."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.support.waiting import wait_for
from worker.errors import Unavailable
from worker.models.hooks import Ask
from worker.services.hooks import bell
from worker.services.hooks.bell import TASKS, Bell

BOTH = frozenset({Ask.SYNC, Ask.CHECK})
SYNC = frozenset({Ask.SYNC})


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bell, "_LATER_S", 0.02)


class Sent:
    """Takes the place of the broker."""

    def __init__(self, error: Exception | None = None) -> None:
        self.tasks: list[str] = []
        self._error = error

    def __call__(self, task: str, *_: Any, **__: Any) -> str:
        self.tasks.append(task)
        if self._error is not None:
            raise self._error
        return "message-1"


async def _until(sent: Sent, count: int) -> None:
    await asyncio.to_thread(wait_for, lambda: len(sent.tasks) >= count, what="the messages")


def test_thousand_hooks_at_once_ring_once_for_each_kind_of_work() -> None:
    async def ring() -> list[str]:
        sent = Sent()
        own = Bell(sent)
        for _ in range(1000):
            own.ring(BOTH, after_s=0.0)
        await _until(sent, 2)
        await own.aclose()
        return sent.tasks

    assert sorted(asyncio.run(ring())) == sorted(TASKS.values())


def test_work_that_is_due_later_rings_again() -> None:
    async def ring() -> list[str]:
        sent = Sent()
        own = Bell(sent)
        own.ring(SYNC, after_s=0.0)
        own.ring(SYNC, after_s=0.1)
        await _until(sent, 2)
        await own.aclose()
        return sent.tasks

    assert asyncio.run(ring()) == [TASKS[Ask.SYNC]] * 2


def test_broker_that_is_away_costs_a_tick_and_nothing_else() -> None:
    async def ring() -> list[str]:
        sent = Sent(Unavailable("Redis is away"))
        own = Bell(sent)
        own.ring(SYNC, after_s=0.0)
        await _until(sent, 1)
        await own.aclose()
        return sent.tasks

    assert asyncio.run(ring()) == [TASKS[Ask.SYNC]]


@pytest.mark.deep
def test_bell_that_is_closed_rings_no_more() -> None:
    async def ring() -> list[str]:
        sent = Sent()
        own = Bell(sent)
        own.ring(SYNC, after_s=0.05)
        await own.aclose()
        await asyncio.sleep(0.1)
        return sent.tasks

    assert asyncio.run(ring()) == []

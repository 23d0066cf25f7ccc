"""Steps on threads: whoever waits is told when a thread does not come back, and nobody else is."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Iterator

import pytest

from tests.support.waiting import wait_for
from worker.errors import Unavailable
from worker.process.loop import Threads

FAR = 1000.0


class Step:
    """Stands still until it is let go."""

    def __init__(self) -> None:
        self.has_begun, self.goes_on = threading.Event(), threading.Event()

    def __call__(self, answer: int = 0) -> int:
        self.has_begun.set()
        assert self.goes_on.wait(60)
        return answer

    def let_go(self) -> int:
        self.goes_on.set()
        return 0


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[Threads]:
    monkeypatch.setattr("worker.process.loop.GRACE_S", 0.0)
    made = Threads(2)
    yield made
    made.close()


def later(seconds: float) -> float:
    return time.monotonic() + seconds


def test_results_of_steps_are_freed_without_the_collector_of_circles(threads: Threads) -> None:
    class Result:
        pass

    async def ask() -> list[weakref.ref[Result]]:
        return [weakref.ref(await threads.run(later(FAR), Result)) for _ in range(5)]

    gc.disable()
    try:
        left = asyncio.run(ask())
        wait_for(lambda: not any(one() for one in left), what="the results to be freed")
    finally:
        gc.enable()


def test_answer_and_error_of_a_step_are_its_caller_s(threads: Threads) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    async def use() -> int:
        with pytest.raises(ZeroDivisionError):
            await threads.run(later(FAR), fail)
        return await threads.run(later(FAR), max, 3, 4)

    assert asyncio.run(use()) == 4
    assert not threads.are_stuck


def test_step_whose_time_is_over_is_told_while_others_go_on(threads: Threads) -> None:
    patient, impatient = Step(), Step()

    async def use() -> int:
        waits = asyncio.ensure_future(threads.run(later(FAR), patient, 7))
        with pytest.raises(Unavailable, match="did not come back"):
            await threads.run(later(0.02), impatient)
        assert threads.are_stuck
        patient.let_go()
        return await waits

    assert asyncio.run(use()) == 7
    impatient.let_go()
    wait_for(lambda: not threads.are_stuck, what="the thread's return")


@pytest.mark.deep
def test_end_of_a_step_that_has_come_back_is_no_later_one_s(threads: Threads) -> None:
    slow, stuck = Step(), Step()

    async def use() -> int:
        first_end = later(0.02)
        await threads.run(first_end, int)
        waits = asyncio.ensure_future(threads.run(later(FAR), slow, 7))
        await asyncio.sleep(0.05)
        assert time.monotonic() > first_end
        assert not waits.done()
        with pytest.raises(Unavailable):  # the timer has gone off, and is set anew
            await threads.run(later(0.02), stuck)
        slow.let_go()
        return await waits

    assert asyncio.run(use()) == 7
    stuck.let_go()


@pytest.mark.parametrize("is_cancelled", [False, True])
def test_step_that_found_no_thread_never_begins(threads: Threads, is_cancelled: bool) -> None:
    busy, late = [Step(), Step()], Step()

    async def use() -> None:
        waits = [asyncio.ensure_future(threads.run(later(FAR), step)) for step in busy]
        third = asyncio.ensure_future(threads.run(later(FAR if is_cancelled else 0.02), late))
        await asyncio.sleep(0)
        if is_cancelled:
            third.cancel()
            with pytest.raises(asyncio.CancelledError):
                await third
        else:
            with pytest.raises(Unavailable, match="are busy"):
                await third
        for step in busy:
            step.let_go()
        await asyncio.gather(*waits)
        await threads.run(later(FAR), int)

    asyncio.run(use())
    assert not late.has_begun.is_set()
    assert not threads.are_stuck


def test_thread_of_a_cancelled_step_is_missed_when_its_time_is_over(threads: Threads) -> None:
    step = Step()

    async def use() -> None:
        waits = asyncio.ensure_future(threads.run(later(0.02), step))
        await asyncio.sleep(0)
        waits.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waits

    asyncio.run(use())
    wait_for(lambda: threads.are_stuck, what="the thread to be missed")
    step.let_go()  # its loop is closed by now, and that harms nobody
    wait_for(lambda: not threads.are_stuck, what="the thread's return")


def test_loop_that_begins_later_has_a_timer_of_its_own(threads: Threads) -> None:
    step = Step()
    asyncio.run(threads.run(later(FAR), int))

    with pytest.raises(Unavailable, match="did not come back"):
        asyncio.run(threads.run(later(0.02), step))

    step.let_go()

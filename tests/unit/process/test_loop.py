"""What runs on the process's event loop ends with its task, and nothing of it goes on inside the next one."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Iterator

import pytest

from worker.process import ending
from worker.process.loop import Loop


class TimeIsUpError(Exception):
    """What the pool's handler of the soft time limit raises."""


@pytest.fixture
def loop() -> Iterator[Loop]:
    made = Loop(grace_s=20)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def handler() -> Iterator[None]:
    """As in a pool process: the signal of the time limit raises."""

    def raise_it(*_: object) -> None:
        raise TimeIsUpError

    before = signal.signal(signal.SIGUSR1, raise_it)
    yield
    signal.signal(signal.SIGUSR1, before)


def time_is_up() -> None:
    signal.raise_signal(signal.SIGUSR1)


def left(loop: Loop) -> int:
    async def count() -> int:
        return len(asyncio.all_tasks()) - 1

    return loop.run(count())


def test_time_limit_ends_all_that_the_task_began_and_is_raised_then(loop: Loop) -> None:
    ended: list[str] = []

    async def wait_for_ever(name: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(name)

    async def work() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(wait_for_ever("one"))
            group.create_task(wait_for_ever("two"))
            await asyncio.sleep(0)
            time_is_up()

    with pytest.raises(TimeIsUpError):
        loop.run(work())

    assert sorted(ended) == ["one", "two"]
    assert left(loop) == 0


def test_time_limit_reaches_a_task_that_takes_every_error_for_its_own(loop: Loop) -> None:
    async def work() -> None:
        for _ in range(3):
            try:
                time_is_up()
                await asyncio.sleep(20)
            except Exception:
                pytest.fail("the limit came as an error")

    with pytest.raises(TimeIsUpError):
        loop.run(work())


@pytest.mark.deep
def test_what_must_not_be_interrupted_comes_to_its_end_first(loop: Loop) -> None:
    told: list[str] = []

    async def work() -> None:
        with ending.unfinished():
            time_is_up()
            await asyncio.sleep(0.1)
            assert ending.is_near()
            told.append("begins nothing new")
            await asyncio.sleep(0.2)
            told.append("kept the answer")
        await asyncio.sleep(20)
        told.append("went on")

    with pytest.raises(TimeIsUpError):
        loop.run(work())

    assert told == ["begins nothing new", "kept the answer"]
    assert not ending.is_held_up()
    assert not ending.is_near()


def test_what_must_not_be_interrupted_is_not_waited_for_for_ever() -> None:
    impatient = Loop(grace_s=0.1)

    async def work() -> None:
        with ending.unfinished():
            time_is_up()
            await asyncio.sleep(20)

    with pytest.raises(TimeIsUpError):
        impatient.run(work())

    assert not ending.is_held_up()
    impatient.close()


def test_work_that_ends_within_its_grace_is_late_all_the_same(loop: Loop) -> None:
    async def work() -> int:
        with ending.unfinished():
            time_is_up()
            return 42

    with pytest.raises(TimeIsUpError):
        loop.run(work())


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, MemoryError])
def test_nothing_is_left_after_an_error_that_leaves_the_loop(loop: Loop, error: type[BaseException]) -> None:
    beside: list[str] = []

    async def go_on() -> None:
        try:
            with ending.unfinished():
                await asyncio.sleep(0.1)
            await asyncio.sleep(20)
        finally:
            beside.append("ended")

    async def work() -> None:
        other = asyncio.ensure_future(go_on())
        await asyncio.sleep(0)
        assert not other.done()
        raise error

    with pytest.raises(error):
        loop.run(work())

    assert beside == ["ended"]
    assert not ending.is_held_up()
    assert left(loop) == 0
    assert not loop.is_clogged


def test_task_that_does_not_end_is_known(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.process.loop._PUT_AWAY_S", 0.05)
    may_end = asyncio.Event()

    async def refuse() -> None:
        while not may_end.is_set():
            try:
                await may_end.wait()
            except asyncio.CancelledError:
                continue

    async def work() -> None:
        asyncio.ensure_future(refuse())  # noqa: RUF006 - that nobody holds it is the point
        await asyncio.sleep(0)

    loop.run(work())
    assert loop.is_clogged

    may_end.set()
    left(loop)
    assert not loop.is_clogged


def test_handler_of_the_pool_is_there_again_afterwards(loop: Loop) -> None:
    before = signal.getsignal(signal.SIGUSR1)

    async def work() -> object:
        return signal.getsignal(signal.SIGUSR1)

    assert loop.run(work()) is not before
    assert signal.getsignal(signal.SIGUSR1) is before


def test_process_without_time_limits_keeps_its_signals(loop: Loop) -> None:
    signal.signal(signal.SIGUSR1, signal.SIG_DFL)

    async def work() -> object:
        return signal.getsignal(signal.SIGUSR1)

    assert loop.run(work()) is signal.SIG_DFL


def test_other_threads_set_no_signals() -> None:
    results: list[int] = []

    async def work() -> int:
        return 42

    def run() -> None:
        own = Loop(grace_s=1)
        results.append(own.run(work()))
        own.close()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()

    assert results == [42]

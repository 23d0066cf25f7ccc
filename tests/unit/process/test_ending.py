from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Iterator

import pytest

from worker.process import ending

numbers = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT])


@pytest.fixture
def ended() -> Iterator[list[int]]:
    """Signals that reached the handlers that the process had."""
    ended: list[int] = []
    before = {
        number: signal.signal(number, lambda reached, frame: ended.append(reached))
        for number in (signal.SIGTERM, signal.SIGQUIT)
    }
    yield ended
    for number, handler in before.items():
        signal.signal(number, handler)


@numbers
def test_end_waits_for_the_outermost_block(ended: list[int], number: signal.Signals) -> None:
    with ending.unfinished():
        with ending.unfinished():
            signal.raise_signal(number)
            signal.raise_signal(number)
            assert ending.is_near()
        assert ended == []

    assert ended == [number]
    assert not ending.is_near()


@numbers
def test_process_with_nothing_unfinished_ends_at_once(ended: list[int], number: signal.Signals) -> None:
    with ending.unfinished():
        assert not ending.is_near()

    assert ended == []
    signal.raise_signal(number)
    assert ended == [number]


def test_end_waits_for_blocks_that_overlap(ended: list[int]) -> None:
    async def block(enter: asyncio.Event, leave: asyncio.Event) -> None:
        await enter.wait()
        with ending.unfinished():
            await leave.wait()

    async def both() -> None:
        events = [asyncio.Event() for _ in range(4)]
        first = asyncio.create_task(block(events[0], events[1]))
        second = asyncio.create_task(block(events[2], events[3]))
        for event in (events[0], events[2]):
            event.set()
            await asyncio.sleep(0)
        signal.raise_signal(signal.SIGTERM)
        events[1].set()
        await first
        assert ended == []
        events[3].set()
        await second

    asyncio.run(both())

    assert ended == [signal.SIGTERM]


def test_other_threads_leave_the_signals_alone(ended: list[int]) -> None:
    def block() -> None:
        with ending.unfinished():
            pass

    thread = threading.Thread(target=block)
    thread.start()
    thread.join()

    signal.raise_signal(signal.SIGTERM)
    assert ended == [signal.SIGTERM]

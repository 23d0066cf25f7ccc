from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from worker import ending


@pytest.fixture
def ended() -> Iterator[list[int]]:
    """Signals that reached the handlers below ours; ours are on top, as in a pool process."""
    ended: list[int] = []
    numbers = (signal.SIGTERM, signal.SIGQUIT)
    before = {number: signal.signal(number, lambda reached, frame: ended.append(reached)) for number in numbers}
    ending.wait_for_answers()
    yield ended
    for number, handler in before.items():
        signal.signal(number, handler)
    ending._asked = None


def test_process_with_nothing_unfinished_ends_at_once(ended: list[int]) -> None:
    signal.raise_signal(signal.SIGTERM)

    assert ended == [signal.SIGTERM]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT])
def test_end_waits_for_the_outermost_block(ended: list[int], number: signal.Signals) -> None:
    with ending.unfinished():
        with ending.unfinished():
            signal.raise_signal(number)
            assert ending.is_near()
        assert ended == []

    assert ended == [number]


def test_nothing_ends_that_was_not_asked_to(ended: list[int]) -> None:
    with ending.unfinished():
        assert not ending.is_near()

    assert ended == []


def test_forked_child_waits_for_its_own_blocks_alone(ended: list[int]) -> None:
    with ending.unfinished():
        ending.wait_for_answers()
        signal.raise_signal(signal.SIGTERM)
        assert ended == [signal.SIGTERM]
        ending._unfinished = 1
        ending._asked = None

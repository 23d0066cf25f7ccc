from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from worker.crud.sync.work import Prepared
from worker.models.pages import Page, RawRecord
from worker.services.sync.prefetch import read_ahead
from worker.services.sync.run import ROWS_AHEAD, weight


class Source:
    """Counts up to `count`, then ends, or fails where it is told to."""

    def __init__(self, count: int, *, fails: BaseException | None = None) -> None:
        self.count, self.fails = count, fails
        self.read = 0
        self.closed = False

    async def items(self) -> AsyncGenerator[int, None]:
        try:
            while self.read < self.count:
                self.read += 1
                yield self.read
            if self.fails is not None:
                raise self.fails
        finally:
            self.closed = True


def each(item: int) -> int:
    return 1


async def settle() -> None:
    """Lets everything run that can run without the caller."""
    for _ in range(50):
        await asyncio.sleep(0)


def test_what_came_while_the_caller_was_busy_comes_together_and_in_order() -> None:
    source = Source(10)

    async def use() -> list[list[int]]:
        taken = []
        async for group in read_ahead(source.items(), most=4, size=each):
            taken.append(group)
            await settle()
        return taken

    taken = asyncio.run(use())

    assert [item for group in taken for item in group] == list(range(1, 11))
    assert max(map(len, taken)) == 4
    assert source.closed


def test_no_more_is_read_ahead_than_there_is_room_for() -> None:
    source = Source(100)

    async def use() -> None:
        async with aclosing(read_ahead(source.items(), most=3, size=each)) as groups:
            await anext(groups)
            await settle()

    asyncio.run(use())

    assert source.read <= 3 + 3
    assert source.closed


class Died(BaseException):
    pass


@pytest.mark.parametrize("fault", [ValueError("bad"), Died()], ids=["an error", "the end of the process"])
def test_what_ends_the_items_is_raised_after_those_that_came_before(fault: BaseException) -> None:
    source = Source(3, fails=fault)
    taken: list[int] = []

    async def use() -> None:
        async for group in read_ahead(source.items(), most=8, size=each):
            taken.extend(group)

    with pytest.raises(type(fault)):
        asyncio.run(use())
    assert taken == [1, 2, 3]
    assert source.closed


def test_nothing_to_read_yields_nothing() -> None:
    async def use() -> list[list[int]]:
        return [group async for group in read_ahead(Source(0).items(), most=2, size=each)]

    assert asyncio.run(use()) == []


@pytest.mark.deep
@pytest.mark.parametrize(
    ("rows", "size", "expected"),
    [(0, 0, 500), (500, 600, 500), (900, 600, 900), (1, 32 * 2**20, 16384)],
    ids=["empty", "usual", "many_rows", "large"],
)
def test_page_counts_for_its_rows_or_for_its_bytes(rows: int, size: int, expected: int) -> None:
    page = Page(transactions=[RawRecord(str(number), "A", b"x" * size) for number in range(rows)])

    assert weight((page, Prepared((), (), (), (), set()))) == expected
    assert (expected >= ROWS_AHEAD) == (size > 16 * 2**20)

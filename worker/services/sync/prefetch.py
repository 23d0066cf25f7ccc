"""Reads the next pages while earlier ones are being stored."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import TypeVar

from worker.crud.sync.work import Prepared
from worker.models.pages import Page

T = TypeVar("T")

ROWS_AHEAD = 8000
"""About how many rows are read ahead, and so how many are stored together: sixteen pages of usual size."""
_BYTES_A_ROW = 2048
"""A longer row counts as several, so that what is read ahead is also limited in bytes (16 MiB and one page)."""


def weight(found: tuple[Page, Prepared]) -> int:
    """How many rows a page counts as in `ROWS_AHEAD`: by its rows or its bytes; an empty page counts, too."""
    page = found[0]
    rows = len(page.transactions) + len(page.holdings) + len(page.accounts)
    size = sum([len(raw.raw) for raw in page.transactions])
    return max(rows, size // _BYTES_A_ROW, ROWS_AHEAD // 16)


async def read_ahead(
    items: AsyncGenerator[T, None], *, most: int, size: Callable[[T], int]
) -> AsyncGenerator[list[T], None]:
    """Reads items while the caller works, and yields a list of those that have arrived since, at least one.

    Reading pauses when the sizes of the unread items add up to `most`; `size` is called once for each item. An error
    in `items` is raised after the items that came before it. `items` is closed at the end.
    """
    come: list[T] = []
    sizes: list[int] = []
    news, room = asyncio.Event(), asyncio.Event()

    async def read() -> None:
        async for item in items:
            come.append(item)
            sizes.append(size(item))
            del item  # this task must not keep it in memory while it waits for the next one
            news.set()
            while sum(sizes) >= most:
                room.clear()
                await room.wait()

    reading = asyncio.create_task(read())
    reading.add_done_callback(lambda _: news.set())
    try:
        while True:
            if come:
                taken = come.copy()
                come.clear()
                sizes.clear()
                room.set()
                yield taken
            elif reading.done():
                await reading  # raises the error that ended it, if any
                return
            else:
                news.clear()
                await news.wait()
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        del reading  # its exception's traceback would keep this frame in memory, with all items in it
        come.clear()
        await items.aclose()

"""Reads the next pages while earlier ones are being stored."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import TypeVar

T = TypeVar("T")


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

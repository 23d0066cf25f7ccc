"""Reading ahead of those who use what is read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import TypeVar

T = TypeVar("T")


async def read_ahead(items: AsyncGenerator[T, None], *, depth: int) -> AsyncGenerator[list[T], None]:
    """Goes on reading while its caller is busy, and yields all that has come since: one to `depth` items.

    Whatever ends `items` is raised after the items that came before it. `items` are closed at the end.
    """
    come: list[T] = []
    room, news = asyncio.Semaphore(depth - 1), asyncio.Event()

    async def read() -> None:
        async for item in items:
            come.append(item)
            news.set()
            await room.acquire()

    reading = asyncio.create_task(read())
    reading.add_done_callback(lambda _: news.set())
    try:
        while True:
            if come:
                taken = come.copy()
                come.clear()
                for _ in taken:
                    room.release()
                yield taken
            elif reading.done():
                await reading  # raises what ended it
                return
            else:
                news.clear()
                await news.wait()
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        await items.aclose()

"""Pages are fetched while earlier ones are stored."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import TypeVar

T = TypeVar("T")


async def read_ahead(
    items: AsyncGenerator[T, None], *, most: int, size: Callable[[T], int]
) -> AsyncGenerator[list[T], None]:
    """Goes on reading while its caller is busy, and yields all that has come since, at least one item.

    Reading pauses when the sizes of what has come add up to `most`; each item's is asked for once. Whatever ends
    `items` is raised after the items that came before it. `items` are closed at the end.
    """
    come: list[T] = []
    sizes: list[int] = []
    news, room = asyncio.Event(), asyncio.Event()

    async def read() -> None:
        async for item in items:
            come.append(item)
            sizes.append(size(item))
            del item  # while waiting for the next one, it is its user's alone
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
                await reading  # raises what ended it
                return
            else:
                news.clear()
                await news.wait()
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        del reading  # its exception's traceback would keep this frame, and all that has come with it
        come.clear()
        await items.aclose()

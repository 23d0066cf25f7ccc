"""A TCP proxy that a test can stall, cut and slow down: a network that misbehaves while both ends are well."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

_BYTES = 65_536


@dataclass(eq=False, slots=True)
class _Link:
    """One connection through the proxy.

    Attributes:
        dead: what is sent over it is taken, and goes nowhere.
        marked: the words that are looked for were sent over it.
        loses: the next answer is not passed on; the connection is reset instead.
    """

    dead: bool = False
    marked: bool = False
    loses: bool = False


class Proxy:
    """Forwards connections to a port of this machine, from a thread of its own.

    Args:
        upstream: the port to forward to, asked at every connection: a server may come back on another.

    Attributes:
        port: where it listens, once started.
    """

    def __init__(self, upstream: Callable[[], int]) -> None:
        self._upstream = upstream
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._flowing = asyncio.Event()
        self._refusing = False
        self._delay_s = 0.0
        self._vanished = False
        self._marker: bytes | None = None
        self._links: set[_Link] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server
        self.port = 0

    def start(self) -> None:
        self._flowing.set()
        self._thread.start()
        listening = asyncio.start_server(self._serve, "127.0.0.1", 0)
        self._server = asyncio.run_coroutine_threadsafe(listening, self._loop).result()
        self.port = self._server.sockets[0].getsockname()[1]

    def stop(self) -> None:
        self.cut()
        self._call(self._end)
        self._thread.join()
        self._loop.close()

    def cut(self) -> None:
        """Resets every connection; new ones are welcome."""
        self._call(self._cut)

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Every connection is reset, new ones too."""
        self._refusing = True
        self.cut()
        try:
            yield
        finally:
            self._refusing = False

    @contextmanager
    def stalled(self) -> Iterator[None]:
        """Connections stay open and nothing comes through, as when a cable is pulled."""
        self._call(self._flowing.clear)
        try:
            yield
        finally:
            self._call(self._flowing.set)

    @contextmanager
    def vanished(self) -> Iterator[None]:
        """The other host is gone, and nobody says so: whatever is sent is acknowledged, and goes nowhere.

        Connections of before and of meanwhile stay open and dead for ever, also when the block is over; those that are
        made afterwards work.
        """
        self._call(self._vanish)
        try:
            yield
        finally:
            self._vanished = False

    @contextmanager
    def losing_commits(self, marker: bytes) -> Iterator[None]:
        """Transactions in which `marker` was sent are committed, and the client is reset before it knows."""
        self._marker = marker
        try:
            yield
        finally:
            self._marker = None

    @contextmanager
    def slow(self, seconds: float) -> Iterator[None]:
        """Every packet takes so much longer, either way."""
        self._delay_s = seconds
        try:
            yield
        finally:
            self._delay_s = 0.0

    def _call(self, function: Callable[[], object]) -> None:
        async def call() -> None:
            function()

        asyncio.run_coroutine_threadsafe(call(), self._loop).result()

    def _cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    def _vanish(self) -> None:
        self._vanished = True
        for link in self._links:
            link.dead = True

    def _end(self) -> None:
        self._server.close()
        for task in asyncio.all_tasks():
            if task is not asyncio.current_task():
                task.cancel()
        self._loop.call_later(0.05, self._loop.stop)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        behind: asyncio.StreamWriter | None = None
        link = _Link(dead=self._vanished)
        self._links.add(link)
        try:
            if self._refusing:
                return
            if link.dead:
                await _swallow(reader)
                return
            answers, behind = await asyncio.open_connection("127.0.0.1", self._upstream())
            self._writers.add(behind)
            asks = asyncio.ensure_future(self._pump(reader, behind, link, asks=True))
            is_answered = asyncio.ensure_future(self._pump(answers, writer, link))
            await asyncio.wait([asks, is_answered], return_when=asyncio.FIRST_COMPLETED)
            if link.dead:  # a host that is gone closes nothing
                await asks
            for pump in (asks, is_answered):
                pump.cancel()
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._links.discard(link)
            for end in filter(None, (writer, behind)):
                self._writers.discard(end)
                end.transport.abort()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, link: _Link, *, asks: bool = False
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(_BYTES):
                if self._delay_s:
                    await asyncio.sleep(self._delay_s)
                await self._flowing.wait()
                if link.dead:
                    continue
                if asks:
                    self._look_for_commit(link, data)
                elif link.loses:
                    return
                writer.write(data)
                await writer.drain()

    def _look_for_commit(self, link: _Link, data: bytes) -> None:
        if self._marker is None:
            return
        link.marked = link.marked or self._marker in data
        link.loses = link.marked and b"COMMIT" in data


async def _swallow(reader: asyncio.StreamReader) -> None:
    with suppress(OSError):
        while await reader.read(_BYTES):
            pass

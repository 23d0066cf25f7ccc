"""Listeners that pass connections on: with TLS in front of servers that have none, and to another host.

`python -m tests.support.hosts_ends ADDRESS PORT` passes on what comes to that port of 127.0.0.1 to the same port there.
"""

from __future__ import annotations

import asyncio
import ssl
import struct
import sys
import threading
from collections.abc import Callable
from contextlib import suppress

_BYTES = 65_536
_SSL_REQUEST = struct.pack("!ii", 8, 80877103)
"""What a client of Postgres sends before TLS begins (protocol 3, SSLRequest)."""


class End:
    """Listens, and passes each connection on to a port of 127.0.0.1.

    Args:
        upstream: that port, asked at each connection.
        context: the TLS that clients must speak; without it, none.
        is_postgres: whether clients ask for TLS in Postgres' own way. Who does not ask is refused.
        to: another address than 127.0.0.1.
    """

    def __init__(
        self,
        upstream: Callable[[], int],
        *,
        context: ssl.SSLContext | None = None,
        is_postgres: bool = False,
        to: str = "127.0.0.1",
    ) -> None:
        self._upstream = upstream
        self._context = context
        self._is_postgres = is_postgres
        self._to = to

    async def listen(self, address: str, port: int) -> asyncio.Server:
        first = None if self._is_postgres else self._context
        return await asyncio.start_server(self._serve, address, port, ssl=first)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind: asyncio.StreamWriter | None = None
        try:
            if self._is_postgres:
                if await reader.readexactly(8) != _SSL_REQUEST:
                    return
                writer.write(b"S")
                await writer.drain()
                assert self._context is not None
                await writer.start_tls(self._context)
            answers, behind = await asyncio.open_connection(self._to, self._upstream())
            pumps = [asyncio.ensure_future(_pump(reader, behind)), asyncio.ensure_future(_pump(answers, writer))]
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            for pump in pumps:
                pump.cancel()
        except (OSError, ssl.SSLError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            for end in filter(None, (writer, behind)):
                end.transport.abort()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError, ssl.SSLError):
        while data := await reader.read(_BYTES):
            writer.write(data)
            await writer.drain()


class Ends:
    """Listens at several places, from a thread of its own."""

    def __init__(self) -> None:
        self._servers: list[asyncio.Server] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="ends", daemon=True)
        self._thread.start()

    def listen(self, end: End, address: str, port: int = 0) -> int:
        """Listens there; returns the port."""
        server = asyncio.run_coroutine_threadsafe(end.listen(address, port), self._loop).result()
        self._servers.append(server)
        return int(server.sockets[0].getsockname()[1])

    def stop(self) -> None:
        """Ends all connections."""

        async def end() -> None:
            for server in self._servers:
                server.close()
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()
            self._loop.call_later(0.05, self._loop.stop)

        asyncio.run_coroutine_threadsafe(end(), self._loop).result()
        self._thread.join()
        self._loop.close()


async def _pass_on(address: str, port: int) -> None:
    server = await End(lambda: port, to=address).listen("127.0.0.1", port)
    print("listening", flush=True)  # noqa: T201 - who started it waits for this
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_pass_on(sys.argv[1], int(sys.argv[2])))

"""Sends an answer normally or with a fault, or cuts the connection."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from worker.sandbox.faults import Fault
from worker.sandbox.wire import Answer

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class GoneError(Exception):
    """The client hung up, or the connection was cut on purpose; nothing can be sent any more."""


async def read_body(receive: Receive) -> bytes:
    """The whole body of a request."""
    message = await receive()
    body: bytes = message.get("body", b"")
    while message.get("more_body"):
        message = await receive()
        body += message.get("body", b"")
    return body


async def send_whole(send: Send, answer: Answer) -> None:
    """Sends the whole answer, like any normal server."""
    await _head(send, answer)
    await send({"type": "http.response.body", "body": answer.body})


async def send_in_two(answer: Answer, pause: Awaitable[Any], receive: Receive, send: Send) -> None:
    """Sends half of the body, waits for `pause`, and sends the rest."""
    half = len(answer.body) // 2
    await _head(send, answer)
    await send({"type": "http.response.body", "body": answer.body[:half], "more_body": True})
    await unless_gone(pause, receive)
    await send({"type": "http.response.body", "body": answer.body[half:]})


async def send_badly(fault: Fault, answer: Answer, receive: Receive, send: Send) -> None:
    """Sends as a `cut` or `drip` rule says. Raises GoneError if the connection ends first."""
    await _head(send, answer)
    if fault.do == "cut":
        part = answer.body[: len(answer.body) // 2]
        await send({"type": "http.response.body", "body": part, "more_body": True})
        await reset(receive, send)
    for index in range(len(answer.body)):
        await unless_gone(asyncio.sleep(1 / fault.bytes_per_second), receive)
        await send({"type": "http.response.body", "body": answer.body[index : index + 1], "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def unless_gone(waited: Awaitable[Any], receive: Receive) -> None:
    """Waits for `waited`. Raises GoneError if the client hangs up first."""
    waiting = asyncio.ensure_future(waited)
    hang_up = asyncio.ensure_future(receive())
    try:
        await asyncio.wait({waiting, hang_up}, return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            raise GoneError
    finally:
        waiting.cancel()
        hang_up.cancel()


async def reset(receive: Receive, send: Send) -> None:
    """Cuts the connection with a TCP reset, even if a part was already sent. Always raises GoneError."""
    # ASGI has no way to cut a connection. But uvicorn's `send` is a bound method of an object that has the transport.
    cycle = getattr(send, "__self__", None)
    if cycle is None:
        raise RuntimeError("connections can be cut only when uvicorn serves the sandbox")
    connection = cycle.transport.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    cycle.transport.abort()
    await receive()
    raise GoneError


async def _head(send: Send, answer: Answer) -> None:
    headers = [*answer.headers, (b"content-length", b"%d" % len(answer.body))]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})

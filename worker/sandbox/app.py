"""The sandbox as an ASGI application: requests to the profiles' prefixes, switches under `/admin`.

The path from socket to profile is plain ASGI, because fleets of refreshes pass through it; the admin side is Starlette.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import Awaitable, Callable, MutableMapping
from email.utils import formatdate
from typing import Any

from worker.sandbox.admin import admin_app
from worker.sandbox.barriers import Point
from worker.sandbox.core import Caller, Profile, Sandbox
from worker.sandbox.faults import Fault, literal_answer, reshape
from worker.sandbox.profiles import PROFILES
from worker.sandbox.request_log import Entry
from worker.sandbox.wire import Answer, Request

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

DEFAULT_POPULATION = {"schwab": 2, "plaid": 2}


class _Gone(Exception):
    """The client hung up, or the connection was cut on purpose."""


class SandboxApp:
    """ASGI entry: one log entry, the faults, the barriers and the profile's answer for each request."""

    def __init__(self, sandbox: Sandbox, admin_token: str) -> None:
        self.sandbox = sandbox
        self._admin = admin_app(sandbox, admin_token)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        if scope["type"] != "http" or path.startswith("/admin"):
            await self._admin(scope, receive, send)
            return
        received = time.time()
        _, prefix, *rest = path.split("/", 2)
        profile = self.sandbox.profiles.get(prefix)
        body = await _read(receive)
        if profile is None:
            await _send(send, Answer(404, b'{"message":"no such provider API"}'))
            return
        request = Request(
            scope["method"],
            "/" + rest[0] if rest else "/",
            scope["query_string"].decode("latin-1"),
            dict(scope["headers"]),
            body,
        )
        entry = self.sandbox.log.open(received, request.method, request.path, prefix)
        try:
            await self._serve(profile, request, entry, receive, send)
        except _Gone:
            entry.gone = True
        finally:
            entry.answered = time.time()

    async def _serve(self, profile: Profile, request: Request, entry: Entry, receive: Receive, send: Send) -> None:
        sandbox = self.sandbox
        caller = profile.caller(request)
        entry.kind, entry.login, entry.grant = caller.kind, caller.login, caller.grant
        entry.generation, entry.token = caller.generation, caller.token
        fault: Fault | None = None
        if sandbox.faults:
            delay, fault = sandbox.faults.strike(profile.key, request.path, caller.login, caller.kind)
            if fault is not None:
                entry.fault = fault.do
            if delay:
                await asyncio.sleep(delay / 1000)
        if fault is not None and fault.when == "before":
            replaced = await self._instead(fault, profile, request, receive, send)
            if replaced is not None:
                entry.status = replaced.status
                await _send(send, replaced)
                return
        answer = await self._work(profile, request, caller, receive)
        if fault is not None and fault.when == "after":
            answer = await self._instead(fault, profile, request, receive, send) or answer
        if fault is not None and fault.do in ("truncate", "pad", "edit"):
            answer = reshape(fault, answer, request)
        entry.status = answer.status
        if fault is not None and fault.do in ("cut", "drip"):
            await _send_badly(fault, answer, receive, send)
            return
        if sandbox.barriers:
            barrier = sandbox.barriers.at("mid_body", profile.key, caller.login, request.path)
            if barrier is not None:
                await _send_in_two(answer, barrier.stand(), receive, send)
                return
        await _send(send, answer)

    async def _work(self, profile: Profile, request: Request, caller: Caller, receive: Receive) -> Answer:
        sandbox = self.sandbox
        if sandbox.quotas:
            wait = sandbox.quotas.exceeded(profile.key, request.path, caller.login, sandbox.clock.seconds())
            if wait is not None:
                return profile.rate_limited(request, str(max(1, round(wait))))
        if not sandbox.barriers:
            return profile.answer(request, caller)
        if caller.kind == "refresh":
            await self._pass("before_rotation", profile, caller, request, receive)
        answer = profile.answer(request, caller)
        if answer.rotated:
            await self._pass("after_rotation", profile, caller, request, receive)
        await self._pass("before_answer", profile, caller, request, receive)
        return answer

    async def _pass(self, point: Point, profile: Profile, caller: Caller, request: Request, receive: Receive) -> None:
        barrier = self.sandbox.barriers.at(point, profile.key, caller.login, request.path)
        if barrier is not None:
            await _unless_gone(barrier.stand(), receive)

    async def _instead(
        self, fault: Fault, profile: Profile, request: Request, receive: Receive, send: Send
    ) -> Answer | None:
        match fault.do:
            case "answer" | "redirect":
                return literal_answer(fault)
            case "error":
                return profile.error(fault.error)
            case "rate_limit":
                after = fault.retry_after
                if after.startswith("+"):
                    after = formatdate(self.sandbox.clock.seconds() + float(after), usegmt=True)
                return profile.rate_limited(request, after or None)
            case "reset":
                await _reset(receive, send)
            case "hang":
                await _unless_gone(asyncio.Event().wait(), receive)
        return None


def create_app(
    seed: int = 1,
    admin_token: str = "sandbox-admin",  # noqa: S107 - opens nothing but this stand-in
    population: dict[str, int] | None = None,
    policy: dict[str, Any] | None = None,
) -> SandboxApp:
    """The sandbox with its books as the seed makes them.

    Args:
        seed: Decides every name, amount and token.
        admin_token: What requests under `/admin` must send as `X-Sandbox-Admin`.
        population: Logins per profile at start and after a reset.
        policy: Members of `grants.Policy` that differ from the defaults, now and after a reset.
    """
    people = DEFAULT_POPULATION if population is None else population
    return SandboxApp(Sandbox(seed, PROFILES, people, policy or {}), admin_token)


async def _read(receive: Receive) -> bytes:
    message = await receive()
    body: bytes = message.get("body", b"")
    while message.get("more_body"):
        message = await receive()
        body += message.get("body", b"")
    return body


async def _send(send: Send, answer: Answer) -> None:
    headers = [*answer.headers, (b"content-length", b"%d" % len(answer.body))]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})


async def _send_part(send: Send, answer: Answer, part: bytes) -> None:
    headers = [*answer.headers, (b"content-length", b"%d" % len(answer.body))]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": part, "more_body": True})


async def _send_in_two(answer: Answer, pause: Awaitable[Any], receive: Receive, send: Send) -> None:
    half = len(answer.body) // 2
    await _send_part(send, answer, answer.body[:half])
    await _unless_gone(pause, receive)
    await send({"type": "http.response.body", "body": answer.body[half:]})


async def _send_badly(fault: Fault, answer: Answer, receive: Receive, send: Send) -> None:
    if fault.do == "cut":
        await _send_part(send, answer, answer.body[: len(answer.body) // 2])
        await _reset(receive, send)
    await _send_part(send, answer, b"")
    for index in range(len(answer.body)):
        await _unless_gone(asyncio.sleep(1 / fault.bytes_per_second), receive)
        await send({"type": "http.response.body", "body": answer.body[index : index + 1], "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def _unless_gone(waited: Awaitable[Any], receive: Receive) -> None:
    """Wait for `waited`; raises _Gone when the client hangs up first."""
    waiting = asyncio.ensure_future(waited)
    hang_up = asyncio.ensure_future(receive())
    try:
        await asyncio.wait({waiting, hang_up}, return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            raise _Gone
    finally:
        waiting.cancel()
        hang_up.cancel()


async def _reset(receive: Receive, send: Send) -> None:
    """Cut the connection with a TCP reset, whatever was sent so far; always raises _Gone."""
    # uvicorn hands the application a bound method of the request's cycle, which knows the transport; ASGI itself has
    # no way to cut a connection.
    transport = getattr(send, "__self__", None) and send.__self__.transport  # type: ignore[attr-defined]
    if transport is None:
        raise RuntimeError("connections can be cut only when uvicorn serves the sandbox")
    connection = transport.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
    await receive()
    raise _Gone

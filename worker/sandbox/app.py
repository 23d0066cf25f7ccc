"""The sandbox as an ASGI application: provider requests below the profiles' prefixes, the admin API under `/admin`.

The path from socket to profile is plain ASGI for speed, because benchmarks send very many refreshes; the admin API uses
Starlette.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any

from worker.sandbox.admin import admin_app
from worker.sandbox.barriers import Barrier, Point
from worker.sandbox.core import Caller, Profile, Sandbox
from worker.sandbox.delivery import (
    GoneError,
    Receive,
    Scope,
    Send,
    read_body,
    reset,
    send_badly,
    send_in_two,
    send_whole,
    unless_gone,
)
from worker.sandbox.faults import Fault, literal_answer, reshape
from worker.sandbox.request_log import Entry
from worker.sandbox.stand_ins import stand_ins
from worker.sandbox.wire import Answer, Request

LOGINS_AT_START = 2
"""The number of logins of each provider, unless another is given."""

# During a delay shorter than this, we do not watch whether the client hangs up, because that costs two tasks a request.
_WATCHED_DELAY = 0.25


class SandboxApp:
    """The ASGI entry point: for each request, one log entry, the faults, the barriers and the profile's answer."""

    def __init__(self, sandbox: Sandbox, admin_token: str) -> None:
        self.sandbox = sandbox
        self._admin = admin_app(sandbox, admin_token)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        path = scope["path"]
        if scope["type"] != "http" or path.startswith("/admin"):
            await self._admin(scope, receive, send)
            return
        received = time.time()
        _, prefix, *rest = path.split("/", 2)
        profile = self.sandbox.profiles.get(prefix)
        body = await read_body(receive)
        if profile is None:
            await send_whole(send, Answer(404, b'{"message":"no such provider API"}'))
            return
        request = Request(
            scope["method"],
            "/" + rest[0] if rest else "/",
            scope["query_string"].decode("latin-1"),
            dict(scope["headers"]),
            body,
        )
        caller = profile.caller(request)
        entry = self.sandbox.log.open(received, request.method, request.path, prefix)
        entry.kind, entry.login, entry.grant = caller.kind, caller.login, caller.grant
        entry.generation, entry.token = caller.generation, caller.token
        try:
            await _Exchange(self.sandbox, profile, request, caller, entry, receive, send).serve()
        except GoneError:
            entry.gone = True
        finally:
            if entry.answered is None:
                entry.answered = time.time()


@dataclass(slots=True)
class _Exchange:
    """One request on its way through faults and barriers."""

    sandbox: Sandbox
    profile: Profile
    request: Request
    caller: Caller
    entry: Entry
    receive: Receive
    send: Send

    async def serve(self) -> None:
        fault = await self._strike() if self.sandbox.faults else None
        answer = await self._answer(fault)
        self.entry.status = answer.status
        if fault is not None and fault.do in ("cut", "drip"):
            await send_badly(fault, answer, self.receive, self.send)
            return
        barrier = self._barrier("mid_body")
        if barrier is not None:
            await send_in_two(answer, barrier.stand(), self.receive, self.send)
        else:
            await send_whole(self.send, answer)

    async def _strike(self) -> Fault | None:
        milliseconds, fault = self.sandbox.faults.strike(
            self.profile.key, self.request.path, self.caller.login, self.caller.kind
        )
        if fault is not None:
            self.entry.fault = fault.do
        delay = milliseconds / 1000
        if delay < _WATCHED_DELAY:
            await asyncio.sleep(delay)
            return fault
        try:
            await unless_gone(asyncio.sleep(delay), self.receive)
        except GoneError:
            # A slow provider does not know that its client has hung up: it does the work anyway.
            self.entry.answered = time.time()
            if fault is None or fault.when == "after":
                self.entry.status = self.profile.answer(self.request, self.caller).status
            raise
        return fault

    async def _answer(self, fault: Fault | None) -> Answer:
        if fault is None:
            return await self._work()
        if fault.when == "before":
            replaced = await self._instead(fault)
            if replaced is not None:
                return replaced
        answer = await self._work()
        if fault.when == "after":
            answer = await self._instead(fault) or answer
        return reshape(fault, answer, self.request)

    async def _work(self) -> Answer:
        sandbox = self.sandbox
        if sandbox.quotas:
            now = sandbox.clock.seconds()
            wait = sandbox.quotas.exceeded(self.profile.key, self.request.path, self.caller.login, now)
            if wait is not None:
                return self.profile.rate_limited(self.request, str(max(1, round(wait))))
        if not sandbox.barriers:
            return self.profile.answer(self.request, self.caller)
        if self.caller.kind == "refresh":
            await self._pass("before_rotation")
        answer = self.profile.answer(self.request, self.caller)
        if answer.rotated:
            # Even if the client hangs up here, the log says what the provider did.
            self.entry.status = answer.status
            await self._pass("after_rotation")
        await self._pass("before_answer")
        return answer

    def _barrier(self, point: Point) -> Barrier | None:
        if not self.sandbox.barriers:
            return None
        return self.sandbox.barriers.at(point, self.profile.key, self.caller.login, self.request.path)

    async def _pass(self, point: Point) -> None:
        barrier = self._barrier(point)
        if barrier is not None:
            await unless_gone(barrier.stand(), self.receive)

    async def _instead(self, fault: Fault) -> Answer | None:
        """The answer that a rule sends instead of the provider's; None if the rule only changes or slows the answer."""
        match fault.do:
            case "answer" | "redirect":
                return literal_answer(fault)
            case "error":
                return self.profile.error(fault.error)
            case "rate_limit":
                after = fault.retry_after
                if after.startswith("+"):
                    after = formatdate(self.sandbox.clock.seconds() + float(after), usegmt=True)
                return self.profile.rate_limited(self.request, after or None)
            case "reset":
                await reset(self.receive, self.send)
            case "hang":
                await unless_gone(asyncio.Event().wait(), self.receive)
        return None


def create_app(
    seed: int = 1,
    admin_token: str = "sandbox-admin",  # noqa: S107 - valid only in the sandbox
    population: dict[str, int] | None = None,
    policy: dict[str, Any] | None = None,
) -> SandboxApp:
    """The sandbox, with books made from the seed.

    Args:
        seed: Determines every name, amount and token.
        admin_token: What requests under `/admin` must send as `X-Sandbox-Admin`.
        population: Number of logins of each provider at start and after a reset; two for a provider that is left out.
        policy: Members of `grants.Policy` that differ from the defaults, now and after a reset.

    Raises:
        KeyError: `population` names a provider that has no usable stand-in.
    """
    profiles, _ = stand_ins()
    logins = dict.fromkeys(profiles, LOGINS_AT_START) if population is None else population
    return SandboxApp(Sandbox(seed, profiles.values(), logins, policy or {}), admin_token)

"""The middleware that every request passes before its route: headers, host, rate, length of the body.

It is plain ASGI. The order of the classes here is the order in which a request passes them.
"""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections.abc import Mapping

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from worker.process.logger import Logger
from worker.settings import Settings
from worker.web import problems
from worker.web.rates import Rates
from worker.web.uploads import has_file

log = Logger(__name__)

_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_FOR_SUPERVISORS = {"/healthz", "/readyz"}
"""Paths that are requested often and under any host name; these requests are not logged."""
_HOOK_SECONDS = 5.0
"""The longest time in which the body of a hook must arrive, if `WEB_BODY_SECONDS` is not shorter."""


class Shield:
    """Adds security headers to every answer, logs it, and turns an unexpected error into a simple 500.

    The log has the path but never the query, which may contain a code or a state.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._headers: Mapping[str, str] = _HEADERS
        if settings.environment == "production":
            self._headers = _HEADERS | {"Strict-Transport-Security": "max-age=31536000"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.monotonic(), 0

        async def send_safely(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await self._app(scope, receive, send_safely)
        except Exception:
            log.exception("request_failed", method=scope["method"], path=scope["path"])
            if status:  # a part of the answer was already sent
                raise
            problem = problems.answer(scope["path"], 500, "this failed, and the log of the server says why")
            await problem(scope, receive, send_safely)
        finally:
            spent_ms = round((time.monotonic() - began) * 1000)
            if scope["path"] not in _FOR_SUPERVISORS:
                log.info("request", method=scope["method"], path=scope["path"], status=status, spent_ms=spent_ms)


class HostCheck:
    """Refuses requests for a `Host` that is not one of ours."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._hosts = settings.allowed_hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if (
            scope["type"] == "http"
            and scope["path"] not in _FOR_SUPERVISORS
            and _host(Headers(scope=scope).getlist("host")) not in self._hosts
        ):
            told = "this server has another name than the request's Host; its operator can add it to WEB_HOSTS"
            await problems.answer(scope["path"], 400, told)(scope, receive, send)
            return
        await self._app(scope, receive, send)


def _host(given: list[str]) -> str:
    """The host name without its port; "" unless there is exactly one `Host` header."""
    if len(given) != 1:
        return ""
    host, _, port = given[0].lower().rpartition(":")
    return host if host and port.isdigit() else given[0].lower()


def _is_hook(path: str) -> bool:
    return path.startswith("/webhooks/")


class AddressRate:
    """Limits how many requests one address may send; hooks have a limit of their own."""

    def __init__(self, app: ASGIApp, settings: Settings, rates: Rates) -> None:
        self._app = app
        self._rate = settings.web_address_rate
        self._hook_rate = settings.web_hook_rate
        self._rates = rates

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] == "http" and scope["path"] not in _FOR_SUPERVISORS:
            address = (scope.get("client") or ("unknown",))[0]
            rate = self._hook_rate if _is_hook(scope["path"]) else self._rate
            if _is_hook(scope["path"]):
                wait_s = await self._rates.wait_here(rate, "hooks", _one_party(address))
            else:
                wait_s = await self._rates.wait(rate, "address", _one_party(address))
            if wait_s is not None:
                await problems.too_often(scope["path"], "address", rate, wait_s)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _one_party(address: str) -> str:
    """The address or network of one client: for IPv6 the whole /64, because a client can use any address in it."""
    try:
        known = ipaddress.ip_address(address)
    except ValueError:
        return address
    return str(ipaddress.ip_network((known, 64), strict=False)) if known.version == 6 else address


class Body:
    """Reads the whole body before the route runs; refuses a body that is too long or arrives too slowly.

    Files of banks are read by their routes (`uploads`).
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._bytes = settings.web_body_bytes
        self._seconds = settings.web_body_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http" or has_file(scope["path"]):
            await self._app(scope, receive, send)
            return
        seconds = min(self._seconds, _HOOK_SECONDS) if _is_hook(scope["path"]) else self._seconds
        try:
            async with asyncio.timeout(seconds):
                body = await self._read(Headers(scope=scope), receive)
        except TimeoutError:
            told = f"the body did not arrive within {seconds:g} seconds; nothing was changed"
            await problems.answer(scope["path"], 408, told, headers={"Connection": "close"})(scope, receive, send)
            return
        if body is None:
            told = f"the body is longer than {self._bytes} bytes; nothing was changed"
            await problems.answer(scope["path"], 413, told, headers={"Connection": "close"})(scope, receive, send)
            return
        await self._app(scope, _replaying(body, receive), send)

    async def _read(self, headers: Headers, receive: Receive) -> bytes | None:
        """The whole body; None if it is too long."""
        told = headers.get("content-length", "0")
        if told.isdigit() and len(told) < 20 and int(told) > self._bytes:
            return None
        if "content-length" not in headers and "transfer-encoding" not in headers:
            return b""
        body, more = bytearray(), True
        while more:
            message = await receive()
            body += message.get("body", b"")
            if len(body) > self._bytes:
                return None
            more = message.get("more_body", False)
        return bytes(body)


def _replaying(body: bytes, receive: Receive) -> Receive:
    told = False

    async def receive_again() -> Message:
        nonlocal told
        if not told:
            told = True
            return {"type": "http.request", "body": body, "more_body": False}
        return await receive()

    return receive_again


class Slash:
    """Treats a path with a slash at its end like the path without it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] == "http" and scope["path"] != "/":
            scope = {**scope, "path": scope["path"].removesuffix("/")}
        await self._app(scope, receive, send)

"""The one way out: every call to a provider goes through `Api`.

It sends to one origin over verified TLS and nowhere else, follows no redirect, ends each call by a total deadline,
refuses answers over a byte limit (counted after decompression), and turns every failure of the network into one of
`worker.errors`. What an answer means is for the integration to say.
"""

from __future__ import annotations

import asyncio
import random
import zlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
from typing import Protocol
from urllib.parse import urlencode

import httpx
import structlog

from worker.errors import BadPayload, BadRequest, ConfigurationError, OutcomeUnknown, ProviderError, Transient
from worker.integrations.base import Caller
from worker.integrations.transport import NETWORK_ERRORS, build_transport, translate

log = structlog.get_logger(__name__)

_RETRY_WAITS = (0.2, 1.0)
_MAX_RETRY_AFTER = timedelta(hours=24)
_CONNECT_SECONDS = 5.0
_STANDARD_HEADERS = {"accept": "application/json", "accept-encoding": "gzip", "user-agent": "dashtam-worker"}


class Gate(Protocol):
    """Our own budget of calls."""

    async def admit(self, caller: Caller, *, endpoint: str, account_key: str | None) -> None:
        """Counts one call. Raises `RateLimited` with `retry_at` when the budget is used up."""
        ...


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a call goes.

    Attributes:
        name: stable word for quotas and logs; the URL itself may hold ids and is never logged.
    """

    name: str
    method: str
    url: httpx.URL


@dataclass(frozen=True, slots=True, repr=False)
class Answer:
    """A complete answer, whatever its status."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def __repr__(self) -> str:
        """Bodies hold tokens and accounts: only their size is shown."""
        return f"Answer(status={self.status}, bytes={len(self.body)})"


class Api:
    """One provider's HTTP interface, opened once per process.

    Args:
        name: the integration's key, for logs.
        total_seconds: deadline of one call, retries included.
        max_bytes: longest body that is read.
        gate: asked before each request.
        transport: for tests; by default aiohttp.
        correlation_header: the answer's header that names the request in the provider's own logs.
        sleep: how to wait between retries.

    Raises:
        ConfigurationError: the base URL is not https although it leaves this machine.
    """

    def __init__(
        self,
        base_url: str,
        *,
        name: str,
        total_seconds: float,
        max_bytes: int,
        gate: Gate | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        correlation_header: str = "x-request-id",
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        check_base_url(base_url)
        self._base = base_url.rstrip("/")
        self._origin = _origin(httpx.URL(base_url))
        self._name = name
        self._total_seconds = total_seconds
        self._max_bytes = max_bytes
        self._gate = gate
        self._transport = transport or build_transport()
        self._correlation_header = correlation_header
        self._sleep = sleep
        connect = min(_CONNECT_SECONDS, total_seconds / 2)
        timeout = {"connect": connect, "pool": connect, "read": total_seconds, "write": total_seconds}
        self._extensions = {"timeout": timeout}

    def endpoint(self, name: str, method: str, path: str) -> Endpoint:
        """A place under the base URL; build it once where the path does not vary."""
        return Endpoint(name, method, httpx.URL(self._base + path))

    def follow(self, endpoint: Endpoint, link: str) -> Endpoint:
        """The place that a pagination link names.

        Raises:
            BadPayload: the link leads to another origin; nothing is sent there.
        """
        try:
            url = endpoint.url.join(link)
        except (httpx.InvalidURL, ValueError):
            raise BadPayload("link_unreadable") from None
        if _origin(url) != self._origin or url.userinfo:
            raise BadPayload("link_to_other_origin")
        return Endpoint(endpoint.name, endpoint.method, url)

    async def read(
        self,
        endpoint: Endpoint,
        caller: Caller,
        *,
        check: Callable[[Answer], None],
        headers: dict[str, str],
        content: bytes | None = None,
        params: Mapping[str, str] | None = None,
        account_key: str | None = None,
    ) -> Answer:
        """One call that changes nothing at the provider: failures that may pass are tried again, at most twice.

        `check` raises what an unwanted answer means.

        Raises:
            ProviderError: the last failure.
        """
        deadline = asyncio.get_running_loop().time() + self._total_seconds
        for wait in (*_RETRY_WAITS, None):
            try:
                answer = await self._send(endpoint, caller, headers, content, params, account_key, deadline)
                check(answer)
            except Transient:
                pause = (wait or 0) * (0.5 + random.random())  # noqa: S311 - jitter needs no secrecy
                if wait is None or asyncio.get_running_loop().time() + pause >= deadline:
                    raise
                await self._sleep(pause)
            else:
                return answer
        raise AssertionError("unreachable")  # pragma: no cover

    async def send(
        self,
        endpoint: Endpoint,
        caller: Caller,
        *,
        headers: dict[str, str],
        content: bytes | None = None,
    ) -> Answer:
        """One call, once: for token endpoints and everything else that must not be repeated.

        Raises:
            Transient: nothing was sent.
            OutcomeUnknown: sent, and no complete answer came.
            BadPayload: a redirect, or a body over the limit.
            RateLimited: our own budget is used up; nothing was sent.
        """
        deadline = asyncio.get_running_loop().time() + self._total_seconds
        return await self._send(endpoint, caller, headers, content, None, None, deadline)

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._transport.aclose()

    async def _send(
        self,
        endpoint: Endpoint,
        caller: Caller,
        headers: dict[str, str],
        content: bytes | None,
        params: Mapping[str, str] | None,
        account_key: str | None,
        deadline: float,
    ) -> Answer:
        if self._gate is not None:
            await self._gate.admit(caller, endpoint=endpoint.name, account_key=account_key)
        url = endpoint.url.copy_with(query=urlencode(params).encode()) if params else endpoint.url
        try:
            request = httpx.Request(
                endpoint.method, url, headers=_STANDARD_HEADERS | headers, content=content, extensions=self._extensions
            )
        except (ValueError, TypeError):
            raise BadRequest("request_unsendable") from None  # for example a line break in a header's value
        try:
            async with asyncio.timeout_at(deadline):
                answer = await self._exchange(request)
        except NETWORK_ERRORS as error:
            failure = translate(error)
            self._log_failure(endpoint, caller, failure.reason)
            raise failure from None
        except ProviderError as error:
            self._log_failure(endpoint, caller, error.reason)
            raise
        if answer.status >= 400:
            self._log_failure(endpoint, caller, "", answer)
        return answer

    async def _exchange(self, request: httpx.Request) -> Answer:
        response = await self._transport.handle_async_request(request)
        try:
            if 300 <= response.status_code < 400:
                raise BadPayload("redirect_refused")
            body = await read_body(response, self._max_bytes)
        finally:
            await response.aclose()
        return Answer(response.status_code, response.headers, body)

    def _log_failure(self, endpoint: Endpoint, caller: Caller, reason: str, answer: Answer | None = None) -> None:
        log.warning(
            "provider_call_failed",
            integration=self._name,
            endpoint=endpoint.name,
            provider_id=str(caller.provider_id) if caller.provider_id else None,
            reason=reason or None,
            status=answer.status if answer else None,
            correlation_id=answer.headers.get(self._correlation_header) if answer else None,
        )


def check_base_url(url: str) -> None:
    """Refuses anything but https, or http to this machine.

    Raises:
        ConfigurationError: without the URL, which may hold a password.
    """
    try:
        parts = httpx.URL(url)
    except (httpx.InvalidURL, ValueError):
        raise ConfigurationError("is not a URL") from None
    if parts.scheme == "https" and parts.host and not parts.userinfo:
        return
    if parts.scheme != "http" or not _is_this_machine(parts.host) or parts.userinfo:
        raise ConfigurationError("must be an https URL without a user name; http is for loopback alone")


async def read_body(response: httpx.Response, limit: int) -> bytes:
    """The body, decompressed, never holding more than `limit` bytes of it.

    Raises:
        BadPayload: longer than `limit`, or packed in a way that we did not ask for.
        OutcomeUnknown: the compressed body ends early.
    """
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", "", "gzip", "x-gzip", "deflate"):
        raise BadPayload("content_encoding")
    inflate = None if encoding in ("identity", "") else zlib.decompressobj(zlib.MAX_WBITS | 32)
    parts: list[bytes] = []
    size = 0
    async for chunk in response.stream:  # type: ignore[union-attr]
        data = chunk if inflate is None else inflate.decompress(chunk, limit - size + 1)
        size += len(data)
        if size > limit:
            raise BadPayload("body_too_large")
        parts.append(data)
    if inflate is not None and not inflate.eof and size:
        raise OutcomeUnknown("body_cut")
    return b"".join(parts)


def retry_after(headers: Mapping[str, str], now: datetime | None = None) -> datetime | None:
    """When the provider wants to be asked again: seconds or an HTTP date, at most 24 hours ahead; None if unsaid."""
    value = headers.get("retry-after", "").strip()
    if not value:
        return None
    now = now or datetime.now(UTC)
    try:
        seconds = float(value)
    except ValueError:
        try:
            named = parsedate_to_datetime(value)
        except ValueError:
            return None
        seconds = (named.replace(tzinfo=named.tzinfo or UTC) - now).total_seconds()
    if seconds != seconds:  # NaN
        return None
    return now + timedelta(seconds=min(max(seconds, 0.0), _MAX_RETRY_AFTER.total_seconds()))


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port or {"https": 443, "http": 80}.get(url.scheme)


def _is_this_machine(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False

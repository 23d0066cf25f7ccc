"""The HTTP client of integrations: every call to a provider goes through `Api`.

It sends requests only to one origin, over verified TLS. It follows no redirect, ends each call at a total deadline,
refuses answers over a byte limit (counted after decompression), and turns every network failure into an error of
`worker.errors`. The integration decides what an answer means.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import cached_property
from ipaddress import ip_address
from typing import Protocol
from urllib.parse import quote, urlencode

import httpx

from worker.errors import BadPayload, BadRequest, ConfigurationError, ProviderError, Transient, Unsent
from worker.integrations.kit.base import Caller
from worker.integrations.kit.transport import Answer, HttpxWire, Wire
from worker.process.logger import Logger
from worker.telemetry import metrics

log = Logger(__name__)

_RETRY_WAITS = (0.2, 1.0)
_MAX_RETRY_AFTER = timedelta(hours=24)
_STANDARD_HEADERS = {"accept": "application/json", "accept-encoding": "gzip", "user-agent": "dashtam-worker"}


Params = Mapping[str, str | Sequence[str]]
"""Query parameters; one with several values is there several times, and one with none is not there."""


class Gate(Protocol):
    """The interface of our own budget of calls."""

    async def admit(self, caller: Caller, *, endpoint: str, account_key: str | None) -> None:
        """Counts one call.

        Raises:
            RateLimited: the budget is used up; has `retry_after`.
        """
        ...


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The name, method and URL of a call.

    Attributes:
        name: a fixed word for quotas and logs. The URL is never logged, because it may contain ids.
    """

    name: str
    method: str
    url: str


def _network_errors() -> tuple[type[Exception], ...]:
    """Read only after a failure, so that clients can be made without aiohttp."""
    from worker.integrations.kit.aiohttp_wire import NETWORK_ERRORS

    return NETWORK_ERRORS


class Api:
    """One provider's HTTP interface, opened once per process.

    Args:
        name: the integration's key, for logs.
        total_seconds: deadline of one call, retries included.
        max_bytes: size of the longest body that is read.
        gate: asked before each request whether the budget allows it.
        transport: replaces aiohttp in tests.
        correlation_header: the answer's header with the id that the request has in the provider's logs.
        varying: a regular expression for what differs in each answer although nothing has happened.
        sleep: the function that waits between retries.

    Raises:
        ConfigurationError: the base URL is not https and does not lead to this machine.
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
        varying: bytes | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        check_base_url(base_url)
        self._base = base_url.rstrip("/")
        self._origin = _origin(httpx.URL(base_url))
        self._name = name
        self._total_seconds = total_seconds
        self._max_bytes = max_bytes
        self._gate = gate
        self._transport = transport
        self._correlation_header = correlation_header
        self._varying = None if varying is None else re.compile(varying)
        self._sleep = sleep

    @cached_property
    def _wire(self) -> Wire:
        if self._transport is not None:
            return HttpxWire(self._transport)
        from worker.integrations.kit.aiohttp_wire import AiohttpWire

        try:
            return AiohttpWire(self._total_seconds)
        except OSError:  # for a refresh this must not look as if the request may have been sent
            raise Unsent("ca_certificates_unreadable") from None

    def endpoint(self, name: str, method: str, path: str, *ids: str) -> Endpoint:
        """An endpoint under the base URL. Where the path is always the same, build it only once.

        Args:
            name: a fixed word for quotas and logs.
            method: of HTTP.
            path: below the base URL; `{}` stands for an id.
            ids: what is put in their places, percent-encoded.
        """
        filled = path.format(*(quote(id_, safe="") for id_ in ids)) if ids else path
        return Endpoint(name, method, str(httpx.URL(self._base + filled)))

    def follow(self, endpoint: Endpoint, link: str) -> Endpoint:
        """The endpoint to which a pagination link leads.

        Raises:
            BadPayload: the link leads to another origin; nothing is sent there.
        """
        try:
            url = httpx.URL(endpoint.url).join(link)
        except (httpx.InvalidURL, ValueError):
            raise BadPayload("link_unreadable") from None
        if _origin(url) != self._origin or url.userinfo:
            raise BadPayload("link_to_other_origin")
        return Endpoint(endpoint.name, endpoint.method, str(url))

    async def read(
        self,
        endpoint: Endpoint,
        caller: Caller,
        *,
        check: Callable[[Answer], None],
        headers: dict[str, str],
        content: bytes | None = None,
        params: Params | None = None,
        account_key: str | None = None,
    ) -> Answer:
        """Makes a call that changes nothing at the provider. After a temporary failure it tries again, at most twice.

        `check` raises the error that an unwanted answer stands for.

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
        """Makes one call without any retry: for token endpoints and all other calls that must not be repeated.

        The deadline begins when the request is sent; waiting for the budget does not count.

        Raises:
            Unsent: nothing was sent.
            OutcomeUnknown: the request was sent, and no complete answer came.
            BadPayload: a redirect, or a body over the limit.
            RateLimited: our own budget is used up; nothing was sent.
        """
        return await self._send(endpoint, caller, headers, content, None, None, None)

    async def aclose(self) -> None:
        """Closes the connections."""
        if "_wire" in self.__dict__:
            await self._wire.aclose()

    async def _send(
        self,
        endpoint: Endpoint,
        caller: Caller,
        headers: dict[str, str],
        content: bytes | None,
        params: Params | None,
        account_key: str | None,
        deadline: float | None,
    ) -> Answer:
        departure = caller.departure
        if departure is not None:
            departure.held = True
        if self._gate is not None:
            await self._gate.admit(caller, endpoint=endpoint.name, account_key=account_key)
        if departure is not None:
            departure.leave()
        url = f"{endpoint.url}?{urlencode(params, doseq=True)}" if params else endpoint.url
        begun = asyncio.get_running_loop().time()
        came: int | str = "cancelled"
        try:
            async with asyncio.timeout_at(begun + self._total_seconds if deadline is None else deadline):
                answer = await self._wire.ask(
                    endpoint.method, url, _STANDARD_HEADERS | headers, content, self._max_bytes
                )
        except _network_errors() as error:
            from worker.integrations.kit.aiohttp_wire import translate

            failure = translate(error)
            came = failure.kind
            self._log_failure(endpoint, caller, failure.reason)
            raise failure from None
        except ValueError:  # for example a line break in a header's value
            came = BadRequest.kind
            raise BadRequest("request_unsendable") from None
        except ProviderError as error:
            came = error.kind
            self._log_failure(endpoint, caller, error.reason)
            raise
        else:
            came = answer.status
        finally:
            seconds = asyncio.get_running_loop().time() - begun
            metrics.observe_http_call(self._name, endpoint.name, came, seconds)
            if not isinstance(came, int):
                _note_failure(caller)
        self._note_answer(endpoint, caller, account_key, answer)
        if answer.status >= 400:
            self._log_failure(endpoint, caller, "", answer)
        return answer

    def _note_answer(self, endpoint: Endpoint, caller: Caller, account_key: str | None, answer: Answer) -> None:
        if caller.heard is not None and caller.heard.is_comparable:
            body = answer.body if self._varying is None else self._varying.sub(b"", answer.body)
            caller.heard.note(endpoint.url, account_key, answer.status, body)

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


def _note_failure(caller: Caller) -> None:
    if caller.heard is not None:
        caller.heard.note_failure()


def check_base_url(url: str) -> None:
    """Accepts only https, or http to this machine.

    Raises:
        ConfigurationError: the URL is something else. The text does not show it, because it may contain a password.
    """
    try:
        parts = httpx.URL(url)
    except (httpx.InvalidURL, ValueError):
        raise ConfigurationError("is not a URL") from None
    if parts.scheme == "https" and parts.host and not parts.userinfo:
        return
    if parts.scheme != "http" or not _is_this_machine(parts.host) or parts.userinfo:
        raise ConfigurationError("must be an https URL without a user name; http is for loopback alone")


def read_retry_after(headers: Mapping[str, str]) -> timedelta | None:
    """How long to wait before the next call, as the provider's `Retry-After` asks: at most 24 hours.

    If `Retry-After` is a date, the wait is counted from the answer's `Date` header, or from this machine's clock if
    there is none. None if the header is missing, or if its time has already passed.
    """
    value = headers.get("retry-after", "").strip()
    try:
        seconds = float(value)
    except ValueError:
        named = _read_date(value)
        if named is None:
            return None
        seconds = (named - (_read_date(headers.get("date", "")) or datetime.now(UTC))).total_seconds()
    if not seconds > 0:  # also True for NaN
        return None
    return timedelta(seconds=min(seconds, _MAX_RETRY_AFTER.total_seconds()))


def _read_date(value: str) -> datetime | None:
    try:
        read = parsedate_to_datetime(value)
    except ValueError:
        return None
    return read.replace(tzinfo=read.tzinfo or UTC)


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port or {"https": 443, "http": 80}.get(url.scheme)


def _is_this_machine(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False

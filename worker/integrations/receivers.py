"""Posts to addresses that users have given: nothing there can make us call our own network.

An address is checked when it is saved and again for every connection: the addresses to which its host name leads are
looked up once, checked, and then connected to. A name that leads elsewhere a moment later gains nothing by that.
Redirects are not followed, and certificates are verified.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from functools import cache, partial
from ipaddress import IPv4Address, IPv6Address
from urllib.parse import SplitResult, urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from worker.errors import BadArgument, Undelivered
from worker.integrations.kit.http import read_retry_after
from worker.integrations.kit.transport import client_tls
from worker.settings.addresses import Network

LONGEST_URL = 2000
_CONNECT_SECONDS = 5.0
_LOOK_UP_SECONDS = 5.0
_LOOK_UPS = 32
_DRAIN_SECONDS = 1.0
_DRAIN_BYTES = 16 * 1024
_CONNECTIONS = 256
_GONE = 410
_ASK_FOR_PAUSE = (429, 503)
_TRANSLATED = ipaddress.ip_network("64:ff9b::/96")
_IN_USE_V6 = ipaddress.ip_network("2000::/3")
"""All public IPv6 addresses are of this range; Python takes more for public."""
_NOT_PUBLIC = tuple(
    map(
        ipaddress.ip_network,
        (
            "168.63.129.16/32",  # by which machines at Azure reach their host's services
            "192.0.0.0/24",  # of protocols
            "192.88.99.0/24",  # of relays to IPv6, which are no longer in use
            "3fff::/20",  # of documentation
        ),
    )
)
_NUMBER = re.compile(r"(?:.*\.)?(?:[0-9]+|0[xX][0-9a-fA-F]*)\.?")
"""A host that programs read as an IPv4 address, in whatever form: 127.1, 0x7f000001, 2130706433."""

Address = IPv4Address | IPv6Address
LookUp = Callable[[str, int], Awaitable[Sequence[str]]]
"""Returns the IP addresses of a host name. Raises `OSError` if there are none."""


@cache
def _threads() -> ThreadPoolExecutor:
    """Threads of their own: a name whose servers do not answer holds one for seconds, and must delay no other work."""
    return ThreadPoolExecutor(_LOOK_UPS, thread_name_prefix="look-up")


async def look_up(host: str, port: int) -> Sequence[str]:
    """Asks the system's resolver."""
    ask = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    found = await asyncio.get_running_loop().run_in_executor(_threads(), ask)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


@dataclass(frozen=True, slots=True)
class Reply:
    """A receiver's answer.

    Attributes:
        pause: how long it asks to be left alone.
    """

    status: int
    pause: timedelta | None

    @property
    def received(self) -> bool:
        """Whether it has taken the delivery."""
        return 200 <= self.status < 300

    @property
    def gone(self) -> bool:
        """Whether it wants no more deliveries."""
        return self.status == _GONE


class Receivers:
    """The HTTP client for all receivers of a process. It is used on one event loop.

    Args:
        allowed: networks that may be called although they are not public, and without TLS.
        seconds: deadline of one delivery.
        look_up: finds the addresses of a host name.
        tls: replaces the usual context in tests.
    """

    def __init__(
        self,
        allowed: Sequence[Network] = (),
        *,
        seconds: float = 15,
        look_up: LookUp = look_up,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._allowed = tuple(allowed)
        self._seconds = seconds
        self._look_up = look_up
        self._tls = tls
        self._sessions: dict[str, aiohttp.ClientSession] = {}

    async def check(self, url: str) -> None:
        """Checks an address before it is saved, and looks up its host.

        Raises:
            BadArgument: it cannot be used. The text says why, and does not show the address.
        """
        parts = _parsed(url)
        host, port = str(parts.hostname), parts.port or _port(parts.scheme)
        try:
            async with asyncio.timeout(_LOOK_UP_SECONDS):
                found = [host] if _literal(host) else await self._look_up(host, port)
        except (OSError, UnicodeError):
            raise BadArgument("the hook's host name cannot be looked up now; nothing was saved") from None
        if not found:
            raise BadArgument("the hook's host name leads to no address; nothing was saved")
        if why := self._refusal(found, encrypted=parts.scheme == "https"):
            raise BadArgument(f"{why}; nothing was saved")

    async def post(self, url: str, *, headers: dict[str, str], body: bytes) -> Reply:
        """Posts one body. The answer's own body is not used.

        Raises:
            Undelivered: there was no answer, or the address may not be called. It may have been received nevertheless.
        """
        try:
            parts = _parsed(url)
            host = str(parts.hostname)
            if _literal(host) and (why := self._refusal([host], encrypted=parts.scheme == "https")):
                raise Undelivered(why)
            async with asyncio.timeout(self._seconds):
                return await self._ask(url, parts.scheme, headers, body)
        except (BadArgument, _AddressRefused) as error:
            raise Undelivered(str(error)) from None
        except (aiohttp.ClientError, OSError, ValueError, EOFError) as error:
            raise Undelivered(_words(error, self._seconds)) from None

    async def aclose(self) -> None:
        """Closes the connections."""
        for session in self._sessions.values():
            await session.close()
        self._sessions.clear()

    async def _ask(self, url: str, scheme: str, headers: dict[str, str], body: bytes) -> Reply:
        session = self._sessions.get(scheme) or self._open(scheme)
        response = await session.post(URL(url, encoded=True), headers=headers, data=body, allow_redirects=False)
        try:
            pause = read_retry_after(response.headers) if response.status in _ASK_FOR_PAUSE else None
            reply = Reply(response.status, pause)
            await _drain(response)
            return reply
        finally:
            response.release()

    def _open(self, scheme: str) -> aiohttp.ClientSession:
        resolver = _Checked(self._look_up, lambda found: self._refusal(found, encrypted=scheme == "https"))
        connector = aiohttp.TCPConnector(
            limit=_CONNECTIONS, use_dns_cache=False, resolver=resolver, ssl=self._tls or client_tls()
        )
        self._sessions[scheme] = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS),
            auto_decompress=False,
            trust_env=False,
        )
        return self._sessions[scheme]

    def _refusal(self, found: Sequence[str], *, encrypted: bool) -> str | None:
        """Why these addresses may not be called; None if they may. One bad address is enough."""
        for address in map(_address, found):
            if any(address in network for network in self._allowed if network.version == address.version):
                continue
            if not encrypted:
                return "the hook's address must begin with https://"
            if not _is_public(address):
                return "the hook's address leads into a private network, which OUTBOX_NETWORKS does not allow"
        return None


class _AddressRefused(Exception):  # noqa: N818 - it is not an OSError, which aiohttp would wrap
    """The host name leads to an address that may not be called."""


class _Checked(AbstractResolver):
    """Looks up a host for aiohttp, which then connects to what was found here and to nothing else."""

    def __init__(self, look_up: LookUp, refusal: Callable[[Sequence[str]], str | None]) -> None:
        self._look_up = look_up
        self._refusal = refusal

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """The host's addresses, all of them checked."""
        found = await self._look_up(host, port)
        if why := self._refusal(found):
            raise _AddressRefused(why)
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in found
        ]

    async def close(self) -> None:
        """Does nothing."""


def _parsed(url: str) -> SplitResult:
    """The parts of an address.

    Raises:
        BadArgument: it has a form that is not accepted.
    """
    wrong = "the hook's address must have the form https://host/path"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise BadArgument(f"{wrong}; nothing was saved") from None
    if parts.scheme not in ("https", "http") or not parts.hostname or port == 0:
        raise BadArgument(f"{wrong}; nothing was saved")
    if len(url) > LONGEST_URL or not url.isascii() or any(sign <= " " or sign in '\x7f\\"<>' for sign in url):
        raise BadArgument(
            f"{wrong}, with at most {LONGEST_URL} characters, all of them ASCII and without spaces; nothing was saved"
        )
    if "@" in parts.netloc:
        raise BadArgument("the hook's address must not have a user name or password in it; nothing was saved")
    if _NUMBER.fullmatch(parts.hostname) and not _literal(parts.hostname):
        raise BadArgument(
            "the hook's address has a number for its host: give a host name, or the IP address in its usual form,"
            " as 192.0.2.1; nothing was saved"
        )
    if "#" in url:
        raise BadArgument("the hook's address must not have a fragment, the part after #; nothing was saved")
    return parts


def _port(scheme: str) -> int:
    return 443 if scheme == "https" else 80


def _literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _address(text: str) -> Address:
    """The address that is really called: IPv6 has several ways to write an IPv4 address."""
    address = ipaddress.ip_address(text)
    if isinstance(address, IPv6Address):
        if address in _TRANSLATED:
            return IPv4Address(int(address) & 0xFFFFFFFF)
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)
        return inner or address
    return address


def _is_public(address: Address) -> bool:
    if isinstance(address, IPv6Address) and address not in _IN_USE_V6:
        return False
    is_special = any(address in network for network in _NOT_PUBLIC)
    return address.is_global and not address.is_multicast and not is_special


async def _drain(response: aiohttp.ClientResponse) -> None:
    """Reads a short body, so that the connection can be used again; otherwise it is closed."""
    try:
        async with asyncio.timeout(_DRAIN_SECONDS):
            await response.content.read(_DRAIN_BYTES)
            if not response.content.at_eof():
                response.close()
    except (aiohttp.ClientError, OSError):
        response.close()


def _words(error: Exception, seconds: float) -> str:
    """What went wrong, for the list of deliveries."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        why = getattr(error.certificate_error, "verify_message", "") or "it does not fit the host name"
        return f"its certificate is not trusted: {why}"
    if isinstance(error, aiohttp.ClientSSLError | ssl.SSLError):
        return "no TLS connection: it does not speak TLS, or only an old version"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "its host name cannot be looked up"
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return f"no connection within {_CONNECT_SECONDS:g} s"
    if isinstance(error, aiohttp.ClientConnectorError):
        return "no connection"
    if isinstance(error, TimeoutError):
        return f"no answer within {seconds:g} s"
    return "the connection broke before there was an answer"

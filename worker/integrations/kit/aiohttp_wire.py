"""The `Wire` of workers, with aiohttp, and the errors for network failures.

It is imported for the first call only: `dashtam doctor` builds every integration and calls none, and aiohttp takes long
to import. A worker imports it before it forks.
"""

from __future__ import annotations

import ssl
import zlib

import aiohttp
import httpx
from yarl import URL

from worker.errors import OutcomeUnknown, Transient, Unsent
from worker.integrations.kit.transport import Answer, client_tls, read_body

# Providers close idle connections after 5 s or more. We close them earlier, so that no request is written to a
# connection that the provider is just closing; for a token refresh, that would be an unknown outcome.
_KEEPALIVE_SECONDS = 3.0
_CONNECT_SECONDS = 5.0
_MAX_CONNECTIONS = 512
_DNS_SECONDS = 60
_CHUNK_BYTES = 64 * 1024
# If a token answer is refused because of its headers, the token is lost. So these limits are far above the size of the
# headers that proxies add. (aiohttp's own limits are 8,190 bytes and 128 headers.)
_MAX_HEADER_BYTES = 128 * 1024
_MAX_HEADERS = 1000
NETWORK_ERRORS = (httpx.HTTPError, httpx.StreamError, aiohttp.ClientError, OSError, EOFError, zlib.error)


class AiohttpWire:
    """The implementation with aiohttp, for workers. The first call opens the session in its event loop.

    Args:
        total_seconds: deadline of a call, which the caller enforces; connecting has a shorter time limit.
    """

    def __init__(self, total_seconds: float) -> None:
        connect = min(_CONNECT_SECONDS, total_seconds / 2)
        # No `sock_read`: aiohttp would set that timer anew at each piece of an answer, and the caller has a deadline.
        self._timeout = aiohttp.ClientTimeout(total=None, connect=connect, sock_connect=connect, sock_read=None)
        self._tls = client_tls()
        self._session: aiohttp.ClientSession | None = None

    async def ask(self, method: str, url: str, headers: dict[str, str], content: bytes | None, limit: int) -> Answer:
        """See `Wire`."""
        session = self._session or self._open()
        body = None if content is None else aiohttp.BytesPayload(content)  # aiohttp looks for the kind of other bodies
        async with session.request(
            method, URL(url, encoded=True), headers=headers, data=body, allow_redirects=False, timeout=self._timeout
        ) as response:
            chunks = response.content.iter_chunked(_CHUNK_BYTES)
            return Answer(
                response.status, response.headers, await read_body(response.status, response.headers, chunks, limit)
            )

    async def aclose(self) -> None:
        """See `Wire`."""
        if self._session is not None:
            await self._session.close()

    def _open(self) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            limit=_MAX_CONNECTIONS, keepalive_timeout=_KEEPALIVE_SECONDS, ttl_dns_cache=_DNS_SECONDS, ssl=self._tls
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            max_line_size=_MAX_HEADER_BYTES,
            max_field_size=_MAX_HEADER_BYTES,
            max_headers=_MAX_HEADERS,
        )
        return self._session


def translate(error: BaseException) -> Transient:
    """The error for a network failure: `Unsent` if nothing was sent, `OutcomeUnknown` if something may have been."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError | ssl.SSLCertVerificationError):
        return Unsent("tls_certificate")
    if isinstance(error, aiohttp.ClientSSLError | ssl.SSLError):
        return Unsent("tls_handshake")
    if isinstance(error, _NOT_SENT):
        return Unsent("connect_failed")
    return OutcomeUnknown("timeout" if isinstance(error, TimeoutError | httpx.TimeoutException) else "connection_lost")


_NOT_SENT = (
    aiohttp.ClientConnectorError,
    aiohttp.ConnectionTimeoutError,
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
)

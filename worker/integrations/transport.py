"""The network below `http.Api`: httpx's transport interface over aiohttp, and what its failures mean.

httpx's own client is left out on purpose: its cookie jar would be shared by all users of a process, it follows
redirects when asked, logs URLs, and costs more per request than the network does.
"""

from __future__ import annotations

import ssl
import zlib

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport

from worker.errors import OutcomeUnknown, Transient

# Providers close idle connections after 5 s or more. Letting go first avoids the race in which a request is written to
# a connection that is just being closed, which for a token refresh would be an unknown outcome.
_KEEPALIVE_SECONDS = 3.0
_MAX_CONNECTIONS = 512
_DNS_SECONDS = 60

NETWORK_ERRORS = (httpx.HTTPError, httpx.StreamError, aiohttp.ClientError, OSError, EOFError, zlib.error)


def build_transport() -> httpx.AsyncBaseTransport:
    """A transport for one process and integration; verifies certificates and keeps no cookies."""
    context = httpx.create_ssl_context()

    def session() -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            limit=_MAX_CONNECTIONS, keepalive_timeout=_KEEPALIVE_SECONDS, ttl_dns_cache=_DNS_SECONDS, ssl=context
        )
        return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False)

    transport: httpx.AsyncBaseTransport = AiohttpTransport(verify=context, client=session)
    return transport


def translate(error: BaseException) -> Transient:
    """What a failed exchange means: `Transient` when nothing was sent, `OutcomeUnknown` when something may have been.

    The aiohttp transport reports a dropped connection as `httpx.ConnectTimeout`, so the cause decides, not the type.
    """
    for found in (error.__cause__, error):
        if isinstance(found, aiohttp.ClientConnectorCertificateError | ssl.SSLCertVerificationError):
            return Transient("tls_certificate")
        if isinstance(found, aiohttp.ClientSSLError | ssl.SSLError):
            return Transient("tls_handshake")
        if isinstance(found, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
            return Transient("connect_failed")
        if isinstance(found, aiohttp.ClientError | TimeoutError):
            break
        if isinstance(found, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout):
            return Transient("connect_failed")
    return OutcomeUnknown("timeout" if _is_timeout(error) else "connection_lost")


def _is_timeout(error: BaseException) -> bool:
    cause = error.__cause__
    return isinstance(error, TimeoutError | httpx.TimeoutException) and not (
        isinstance(cause, aiohttp.ClientError) and not isinstance(cause, TimeoutError)
    )

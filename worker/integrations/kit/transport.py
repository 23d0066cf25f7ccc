"""The network layer below `http.Api`: what it asks of a `Wire`, the one for tests, and how a body is read.

Workers use aiohttp (`aiohttp_wire`); tests use any httpx transport (`httpx.MockTransport`). httpx's own client is not
used for three reasons: it searches its whole pool on every request, all users of a process would share its cookie jar,
and it logs URLs. Its request and response objects alone add half of the time that the exchange itself takes.
"""

from __future__ import annotations

import ssl
import zlib
from collections.abc import AsyncIterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Protocol

import httpx

from worker.errors import BadPayload, OutcomeUnknown

_GZIP_MAGIC = b"\x1f\x8b"
_PLAIN = ("", "identity")
_PACKED = ("gzip", "x-gzip", "deflate")


@dataclass(frozen=True, slots=True, repr=False)
class Answer:
    """A complete answer, whatever its status."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def __repr__(self) -> str:
        """Shows only the size of the body, because it contains tokens and accounts."""
        return f"Answer(status={self.status}, bytes={len(self.body)})"


class Wire(Protocol):
    """Sends a request and returns the complete answer. Follows no redirect, keeps no cookie, verifies certificates."""

    async def ask(self, method: str, url: str, headers: dict[str, str], content: bytes | None, limit: int) -> Answer:
        """Sends a request.

        Raises:
            BadPayload: the answer is a redirect, or its body is longer than `limit` bytes.
            BaseException: one of `aiohttp_wire.NETWORK_ERRORS`.
        """
        ...

    async def aclose(self) -> None:
        """Closes the connections."""
        ...


@cache
def client_tls() -> ssl.SSLContext:
    """The TLS context for all connections of a process. It is made once: reading the CA certificates takes 25 ms."""
    return httpx.create_ssl_context()


class HttpxWire:
    """The implementation with an httpx transport, for tests."""

    def __init__(self, transport: httpx.AsyncBaseTransport) -> None:
        self._transport = transport

    async def ask(self, method: str, url: str, headers: dict[str, str], content: bytes | None, limit: int) -> Answer:
        """See `Wire`."""
        response = await self._transport.handle_async_request(
            httpx.Request(method, url, headers=headers, content=content)
        )
        try:
            stream = response.stream
            if not isinstance(stream, AsyncIterable):  # pragma: no cover - asynchronous transports have no other stream
                raise TypeError("the transport's answer cannot be read asynchronously")
            body = await read_body(response.status_code, response.headers, stream, limit)
        finally:
            await response.aclose()
        return Answer(response.status_code, response.headers, body)

    async def aclose(self) -> None:
        """See `Wire`."""
        await self._transport.aclose()


async def read_body(status: int, headers: Mapping[str, str], chunks: AsyncIterable[bytes], limit: int) -> bytes:
    """The decompressed body. Never more than `limit` bytes of it are kept in memory.

    Raises:
        BadPayload: a redirect; a body longer than `limit`; a compression that we did not ask for.
        OutcomeUnknown: the compressed body is incomplete.
    """
    if 300 <= status < 400:
        raise BadPayload("redirect_refused")
    encoding = headers.get("content-encoding", "").strip().lower()
    if encoding not in _PLAIN and encoding not in _PACKED:
        raise BadPayload("content_encoding")
    unpack = _Unpacked(limit) if encoding in _PACKED else None
    parts: list[bytes] = []
    received = size = 0
    async for chunk in chunks:
        received += len(chunk)
        data = chunk if unpack is None else unpack.more(chunk)
        size += len(data)
        if max(size, received) > limit:  # `received` also limits a body made of many empty gzip members
            raise BadPayload("body_too_large")
        parts.append(data)
    if unpack is not None and received and not unpack.complete:
        raise OutcomeUnknown("body_cut")
    return b"".join(parts)


class _Unpacked:
    """Decompresses a body. Gzip allows several members one after the other; bytes after the last one are ignored.

    Args:
        limit: the most bytes to decompress, approximately. A longer body gives one byte more than this, and then the
            caller must stop.
    """

    def __init__(self, limit: int) -> None:
        self._left = limit + 1
        self._member = _member()
        self._between = b""

    @property
    def complete(self) -> bool:
        """Whether the body ends with a complete member."""
        return self._member.eof

    def more(self, packed: bytes) -> bytes:
        """Decompresses the next bytes of the body.

        Raises:
            zlib.error: they are not compressed data.
        """
        parts: list[bytes] = []
        while packed and self._left > 0:
            if self._member.eof:
                packed, self._between = self._between + packed, b""
                if len(packed) < len(_GZIP_MAGIC) and _GZIP_MAGIC.startswith(packed):
                    self._between = packed
                    break
                if not packed.startswith(_GZIP_MAGIC):
                    break
                self._member = _member()
            parts.append(data := self._member.decompress(packed, self._left))
            self._left -= len(data)
            packed = self._member.unused_data if self._member.eof else b""
        return b"".join(parts)


def _member() -> zlib._Decompress:
    return zlib.decompressobj(zlib.MAX_WBITS | 32)  # accepts both gzip and zlib

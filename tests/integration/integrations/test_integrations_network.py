"""The network as it fails in earnest: real sockets, a real provider that misbehaves."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.integrations.conftest import Connect
from tests.support.certificates import self_signed
from tests.support.sandbox import SandboxAdmin
from worker.errors import BadPayload, BadRequest, OutcomeUnknown, ProviderError, RateLimited, Transient, Unsent
from worker.integrations.kit import transport
from worker.integrations.kit.base import Caller
from worker.integrations.kit.http import Api

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def refresh_error(provider: SandboxAdmin, connect: Connect, total_seconds: float = 5) -> ProviderError:
    token = provider.mint(provider.logins("schwab")[0])[0].refresh_token

    async def refresh() -> ProviderError:
        integration = connect.schwab(total_seconds=total_seconds, max_bytes=1 << 20)
        try:
            with pytest.raises(ProviderError) as caught:
                await integration.refresh(Caller(), str(token))
            return caught.value
        finally:
            await integration.aclose()

    return asyncio.run(refresh())


@pytest.mark.deep
@pytest.mark.parametrize(
    ("fault", "kind", "reason"),
    [
        ({"do": "reset", "when": "after"}, OutcomeUnknown, "connection_lost"),
        ({"do": "reset", "when": "before"}, OutcomeUnknown, "connection_lost"),
        ({"do": "cut"}, OutcomeUnknown, "connection_lost"),
        ({"do": "truncate", "bytes": 40}, OutcomeUnknown, "unreadable_token_answer"),
        ({"do": "pad", "bytes": 2 << 20}, OutcomeUnknown, "body_too_large"),
        ({"do": "answer", "status": 200, "body": "<html>Welcome</html>"}, OutcomeUnknown, "unreadable_token_answer"),
        ({"do": "answer", "status": 503, "body": "<html>"}, Transient, "http_503_unreadable"),
        ({"do": "redirect", "location": "https://elsewhere.test/"}, BadPayload, "redirect_refused"),
        ({"do": "edit", "set": {"token_type": '"mac"'}}, BadPayload, "token_type"),
        ({"do": "edit", "drop": ["access_token"]}, OutcomeUnknown, "no_access_token"),
        ({"do": "rate_limit", "retry_after": "30"}, RateLimited, "http_429"),
        ({"do": "rate_limit", "retry_after": "+90"}, RateLimited, "http_429"),
    ],
)
def test_refresh_that_goes_wrong_is_named(
    provider: SandboxAdmin, connect: Connect, fault: dict[str, Any], kind: type[ProviderError], reason: str
) -> None:
    provider.inject(**fault, kind="refresh")

    error = refresh_error(provider, connect)

    assert (type(error), error.reason) == (kind, reason)
    assert len(provider.refreshes()) == 1, "a refresh is presented once"
    if kind is RateLimited:
        assert error.retry_after is not None


@pytest.mark.deep
@pytest.mark.parametrize("fault", [{"do": "hang"}, {"do": "drip", "bytes_per_second": 1}])
def test_refresh_that_does_not_end_is_ended_by_the_deadline(
    provider: SandboxAdmin, connect: Connect, fault: dict[str, Any]
) -> None:
    provider.inject(**fault, kind="refresh")

    error = refresh_error(provider, connect, total_seconds=0.3)

    assert (type(error), error.reason) == (OutcomeUnknown, "timeout")


async def ask(port: int, scheme: str = "http", host: str = "127.0.0.1", times: int = 1) -> list[object]:
    """What each of some calls to a server of our own gives: the body, or the error."""
    api = Api(f"{scheme}://{host}:{port}", name="test", total_seconds=2, max_bytes=1000)
    endpoint = api.endpoint("token", "POST", "/token")
    results: list[object] = []
    try:
        for _ in range(times):
            try:
                results.append((await api.send(endpoint, Caller(), headers={}, content=b"x=1")).body)
            except ProviderError as error:
                results.append(error)
        return results
    finally:
        await api.aclose()


@contextlib.asynccontextmanager
async def server(talk: Talk, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A server of our own on a free port; every connection is closed before it ends."""
    conversations: list[asyncio.Task[None]] = []

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await talk(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        conversations.append(asyncio.ensure_future(converse(reader, writer)))

    async with await asyncio.start_server(accept, "127.0.0.1", 0, ssl=tls) as listening:
        yield listening.sockets[0].getsockname()[1]
        await asyncio.gather(*conversations)


def with_server(talk: Talk, tls: ssl.SSLContext | None = None, **more: Any) -> list[object]:
    async def run() -> list[object]:
        async with server(talk, tls) as port:
            return await ask(port, "https" if tls else "http", **more)

    return asyncio.run(run())


async def hear(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    await reader.readexactly(3)
    return head


def test_server_that_is_not_there_was_sent_nothing() -> None:
    (error,) = asyncio.run(ask(1))

    assert type(error) is Unsent
    assert error.reason == "connect_failed"


@pytest.mark.deep
def test_name_that_leads_nowhere_was_sent_nothing() -> None:
    (error,) = asyncio.run(ask(443, "https", "nowhere.invalid"))

    assert type(error) is Unsent


@pytest.mark.deep
@pytest.mark.parametrize(
    ("trusted", "name", "hours"),
    [(False, "127.0.0.1", 1), (True, "127.0.0.1", -1), (True, "elsewhere.example", 1)],
    ids=["nobody vouches for it", "expired", "of another host"],
)
def test_certificate_that_will_not_do_is_refused_and_nothing_is_sent(
    tmp_path: Path, trust: Callable[[Path], None], trusted: bool, name: str, hours: float
) -> None:
    heard: list[bytes] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read(100))

    context, certificate = self_signed(tmp_path, name, hours=hours)
    if trusted:
        trust(certificate)
    (error,) = with_server(talk, context)

    assert type(error) is Unsent
    assert error.reason == "tls_certificate"
    assert not any(heard)


def test_certificate_that_is_trusted_is_spoken_to(tmp_path: Path, trust: Callable[[Path], None]) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await hear(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")

    context, certificate = self_signed(tmp_path, "127.0.0.1")
    trust(certificate)

    assert with_server(talk, context) == [b"{}"]


@pytest.fixture
def trust(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Path], None]]:
    """Lets calls trust a certificate of our own, as an operator would."""

    def take(certificate: Path) -> None:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        transport.client_tls.cache_clear()

    yield take
    transport.client_tls.cache_clear()


@pytest.mark.deep
def test_server_that_hangs_up_after_hearing_leaves_the_outcome_unknown() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await hear(reader)

    (error,) = with_server(talk)

    assert type(error) is OutcomeUnknown


@pytest.mark.parametrize("answer", [b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\n{", b"nonsense\r\n\r\n"])
def test_answer_that_is_cut_or_nonsense_leaves_the_outcome_unknown(answer: bytes) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await hear(reader)
        writer.write(answer)

    (error,) = with_server(talk)

    assert type(error) is OutcomeUnknown


def test_connection_is_used_again_and_cookies_are_not_sent_back() -> None:
    connections: list[list[bytes]] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard: list[bytes] = []
        connections.append(heard)
        try:
            while True:
                heard.append(await hear(reader))
                writer.write(b"HTTP/1.1 200 OK\r\nset-cookie: user=ann\r\ncontent-length: 2\r\n\r\n{}")
        except asyncio.IncompleteReadError:
            return

    results = with_server(talk, times=2)

    assert results == [b"{}", b"{}"]
    (heads,) = connections
    assert len(heads) == 2
    assert b"cookie" not in heads[1].lower()


def test_redirect_is_not_followed_even_on_the_same_host() -> None:
    heads: list[bytes] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await hear(reader))
        writer.write(b"HTTP/1.1 307 Temporary Redirect\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n")

    (error,) = with_server(talk)

    assert type(error) is BadPayload
    assert error.reason == "redirect_refused"
    assert len(heads) == 1


def test_only_gzip_is_asked_for() -> None:
    heads: list[bytes] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await hear(reader))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}")

    with_server(talk)

    lines = heads[0].lower().split(b"\r\n")
    assert b"accept-encoding: gzip" in lines
    assert b"user-agent: dashtam-worker" in lines


@pytest.mark.deep
@pytest.mark.parametrize("value", ["Bearer a\r\nx-evil: 1", "Bearer a\nb"])
def test_header_with_a_line_break_is_never_sent(value: str) -> None:
    heads: list[bytes] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.read(1000))

    async def send() -> None:
        async with server(talk) as port:
            api = Api(f"http://127.0.0.1:{port}", name="test", total_seconds=2, max_bytes=1000)
            try:
                with pytest.raises(BadRequest, match="request_unsendable"):
                    await api.send(api.endpoint("token", "POST", "/"), Caller(), headers={"authorization": value})
            finally:
                await api.aclose()

    asyncio.run(send())

    assert not any(b"x-evil" in head for head in heads)


@pytest.mark.deep
@pytest.mark.parametrize(
    "headers",
    [b"x-long: " + b"a" * 100_000, b"\r\n".join(b"x-%d: b" % place for place in range(500))],
    ids=["a header of 100,000 bytes", "500 headers"],
)
def test_answer_is_read_whatever_headers_a_proxy_has_added(headers: bytes) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await hear(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n" + headers + b"\r\ncontent-length: 2\r\n\r\n{}")

    assert with_server(talk) == [b"{}"]

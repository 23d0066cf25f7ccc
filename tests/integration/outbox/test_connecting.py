"""What is connected to in the end, when an address was saved: over real sockets of this machine."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from tests.support.certificates import self_signed
from worker.errors import BadArgument, Undelivered
from worker.integrations.receivers import LookUp, Receivers, Reply

pytestmark = pytest.mark.deep

HERE = (ip_network("127.0.0.0/8"),)
PUBLIC = "93.184.215.14"


def leads_to(*answers: str) -> LookUp:
    """A resolver that gives these answers in turn."""
    left = list(answers)

    async def look_up(host: str, port: int) -> list[str]:
        return [left.pop(0)]

    return look_up


@pytest.mark.parametrize("host", ["2130706433", "0x7f000001", "127.1", "0177.0.0.1", "127.0.0.1.", "a.0x7f", "0x"])
def test_number_that_stands_for_an_address_is_refused_before_it_is_saved_and_when_it_is_called(host: str) -> None:
    async def ask() -> None:
        async with receiver(OK) as (port, seen):
            url = f"http://{host}:{port}/"
            receivers = Receivers(HERE)
            with pytest.raises(BadArgument, match="in its usual form"):
                await receivers.check(url)
            with pytest.raises(Undelivered, match="in its usual form"):
                await post(url, receivers)
            assert seen == []

    asyncio.run(ask())


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST.", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[64:ff9b::7f00:1]"]
)
def test_other_spellings_of_this_machine_are_refused(host: str) -> None:
    with pytest.raises(BadArgument, match=r"private network|cannot be looked up"):
        asyncio.run(Receivers().check(f"https://{host}/"))


Handle = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(handle: Handle, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A server on this machine; its port. At the end all of its connections are closed."""
    handling: list[asyncio.Task[Any] | None] = []

    async def tracked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handling.append(asyncio.current_task())
        with suppress(OSError, asyncio.IncompleteReadError):
            await handle(reader, writer)
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()

    async with await asyncio.start_server(tracked, "127.0.0.1", 0, ssl=tls) as server:
        yield server.sockets[0].getsockname()[1]
        await asyncio.gather(*filter(None, handling))


@asynccontextmanager
async def receiver(answer: bytes, tls: ssl.SSLContext | None = None) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A server that gives this answer; its port, and the requests that came in."""
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(answer)
        await writer.drain()

    async with listening(serve, tls) as port:
        yield port, seen


OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


def post(url: str, receivers: Receivers) -> Any:
    async def post() -> Reply:
        try:
            return await receivers.post(url, headers={"webhook-id": "1"}, body=b"{}")
        finally:
            await receivers.aclose()

    return post()


def test_name_that_leads_elsewhere_after_it_was_saved_is_not_called() -> None:
    async def rebind() -> None:
        async with receiver(OK) as (port, seen):
            receivers = Receivers(look_up=leads_to(PUBLIC, "127.0.0.1"))
            url = f"https://app.example.org:{port}/"
            await receivers.check(url)

            with pytest.raises(Undelivered, match="private network"):
                await post(url, receivers)

            assert seen == []

    asyncio.run(rebind())


def test_connection_goes_to_the_address_that_was_checked_and_to_no_other() -> None:
    asked: list[str] = []

    async def look_up(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["127.0.0.2"]

    async def once() -> None:
        async with receiver(OK) as (port, seen):
            reply = await post(f"http://app.example.org:{port}/", Receivers(HERE, look_up=look_up))

            assert (reply.status, reply.received) == (200, True)
            assert asked == ["app.example.org"], "one connection, one look-up"
            assert seen[0].lower().count(b"host: app.example.org") == 1

    asyncio.run(once())


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (b"HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/\r\ncontent-length: 0\r\n\r\n", 302),
        (b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n", 500),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n" + b"x" * 100_000, 200),
    ],
)
def test_answer_is_its_status_alone(answer: bytes, status: int) -> None:
    async def ask() -> None:
        async with receiver(answer) as (port, seen):
            assert (await post(f"http://127.0.0.1:{port}/", Receivers(HERE))).status == status
            assert len(seen) == 1, "a redirect is not followed"

    asyncio.run(ask())


def test_self_signed_certificate_is_refused_with_its_reason(tmp_path: Path) -> None:
    tls, _ = self_signed(tmp_path, "127.0.0.1")

    async def ask() -> None:
        async with receiver(OK, tls) as (port, seen):
            with pytest.raises(Undelivered, match=r"certificate is not trusted: self.signed certificate"):
                await post(f"https://127.0.0.1:{port}/", Receivers(HERE))
            assert seen == []

    asyncio.run(ask())


def test_trusted_certificate_is_accepted(tmp_path: Path) -> None:
    tls, trusted = self_signed(tmp_path, "127.0.0.1")

    async def ask() -> None:
        async with receiver(OK, tls) as (port, _):
            receivers = Receivers(HERE, tls=ssl.create_default_context(cafile=str(trusted)))
            assert (await post(f"https://127.0.0.1:{port}/", receivers)).received

    asyncio.run(ask())


def test_receiver_that_closes_or_says_nothing_is_undelivered() -> None:
    async def ask() -> None:
        async with receiver(b"") as (port, _):
            with pytest.raises(Undelivered, match="broke before there was an answer"):
                await post(f"http://127.0.0.1:{port}/", Receivers(HERE))
        with pytest.raises(Undelivered, match="no connection"):
            await post(f"http://127.0.0.1:{port}/", Receivers(HERE))

        async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
            await reader.read()

        async with listening(silent) as port:
            with pytest.raises(Undelivered, match=r"no answer within 0\.1 s"):
                await post(f"http://127.0.0.1:{port}/", Receivers(HERE, seconds=0.1))

    asyncio.run(ask())

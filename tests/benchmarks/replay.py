"""A server that gives the sandbox's answers again, so that no contender's time is the sandbox's.

    python -m tests.benchmarks.replay SANDBOX_URL

What is asked for the first time is fetched from the sandbox and kept; asked for again, it goes out at once as it came.
`POST /forget` drops all. Whoever is measured reads everything once beforehand, unmeasured.
"""

from __future__ import annotations

import asyncio
import http.client
import re
import subprocess
import sys
import urllib.request
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_AUTHORIZATION = re.compile(rb"\r\nauthorization: *(.*)\r", re.IGNORECASE)
_PASSED_ON = ("authorization", "content-type", "plaid-client-id", "plaid-secret", "plaid-version")


class Replay:
    """The server in a process of its own; a context manager.

    Attributes:
        url: where it listens, once entered.
    """

    def __init__(self, sandbox_url: str) -> None:
        self._sandbox_url = sandbox_url
        self.url = ""

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "tests.benchmarks.replay", self._sandbox_url]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.terminate()
        self._process.communicate()


def forget(url: str) -> None:
    """Drops what a replaying server has kept; the books have changed."""
    urllib.request.urlopen(urllib.request.Request(f"{url}/forget", method="POST")).close()  # noqa: S310 - loopback


class _Server:
    def __init__(self, sandbox_url: str) -> None:
        self._sandbox = urlsplit(sandbox_url).netloc
        self._kept: dict[tuple[bytes, bytes, bytes], bytes] = {}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except (asyncio.IncompleteReadError, ConnectionError):
                break
            length = _LENGTH.search(head)
            body = await reader.readexactly(int(length[1])) if length else b""
            line = head.partition(b"\r\n")[0]
            if line.startswith(b"POST /forget "):
                self._kept.clear()
                writer.write(_written(200, b"{}"))
                continue
            user = _AUTHORIZATION.search(head)
            asked = line, user[1] if user else b"", body
            answer = self._kept.get(asked)
            if answer is None:
                answer = self._kept[asked] = await asyncio.to_thread(self._ask, head, body)
            writer.write(answer)
            await writer.drain()
        writer.close()

    def _ask(self, head: bytes, body: bytes) -> bytes:
        line, *fields = head.decode("latin-1").strip().split("\r\n")
        method, target, _ = line.split(" ")
        headers = dict(field.split(": ", 1) for field in fields)
        connection = http.client.HTTPConnection(self._sandbox)
        passed_on = {name: value for name, value in headers.items() if name.lower() in _PASSED_ON}
        connection.request(method, target, body or None, passed_on)
        answer = connection.getresponse()
        written = _written(answer.status, answer.read())
        connection.close()
        return written


def _written(status: int, body: bytes) -> bytes:
    head = f"HTTP/1.1 {status} OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def _main(sandbox_url: str) -> None:
    server = await asyncio.start_server(_Server(sandbox_url).serve, "127.0.0.1", 0, limit=1 << 20)
    port = server.sockets[0].getsockname()[1]
    sys.stdout.write(f"http://127.0.0.1:{port}\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1]))

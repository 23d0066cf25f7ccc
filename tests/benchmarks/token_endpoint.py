"""A lean token endpoint for benchmarks: 100 ms of latency, rotation, reuse detection; plain asyncio, one core.

A refresh token is `<grant>.<number>`. Presenting any number but the grant's present one is reuse and ends the grant.
`GET /stats` tells what happened.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from urllib.parse import parse_qs


class Endpoint:
    """All grants."""

    def __init__(self, latency_s: float) -> None:
        self.latency_s = latency_s
        self.numbers: dict[str, int] = {}
        self.refreshes = self.reuses = self.in_flight = self.most_in_flight = 0

    def answer(self, body: bytes) -> tuple[int, bytes]:
        """Rotates."""
        token = parse_qs(body.decode())["refresh_token"][0]
        grant, _, number = token.partition(".")
        if self.numbers.setdefault(grant, 1) != int(number):
            self.reuses += 1
            self.numbers[grant] = -1
            return 400, b'{"error":"invalid_grant"}'
        self.refreshes += 1
        self.numbers[grant] = int(number) + 1
        padding = "x" * 40
        return 200, json.dumps(
            {
                "access_token": f"I0.{padding}{grant}.{int(number) + 1}",
                "refresh_token": f"{grant}.{int(number) + 1}",
                "expires_in": 1800,
                "token_type": "Bearer",
                "scope": "api",
            }
        ).encode()

    def stats(self) -> bytes:
        """What happened so far."""
        return json.dumps(
            {"refreshes": self.refreshes, "reuses": self.reuses, "most_in_flight": self.most_in_flight}
        ).encode()


class Connection(asyncio.Protocol):
    """HTTP/1.1 with keep-alive, as little of it as our clients need."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while True:
            head, found, rest = self._buffer.partition(b"\r\n\r\n")
            if not found:
                return
            length = 0
            for line in head.split(b"\r\n")[1:]:
                name, _, value = line.partition(b":")
                if name.lower() == b"content-length":
                    length = int(value)
            if len(rest) < length:
                return
            self._buffer = rest[length:]
            self._serve(head, rest[:length])

    def _serve(self, head: bytes, body: bytes) -> None:
        endpoint = self._endpoint
        if head.startswith(b"GET /stats"):
            self._send(200, endpoint.stats())
            return
        endpoint.in_flight += 1
        endpoint.most_in_flight = max(endpoint.most_in_flight, endpoint.in_flight)
        asyncio.get_running_loop().call_later(endpoint.latency_s, self._finish, body)

    def _finish(self, body: bytes) -> None:
        self._endpoint.in_flight -= 1
        self._send(*self._endpoint.answer(body))

    def _send(self, status: int, body: bytes) -> None:
        reason = "OK" if status == 200 else "Bad Request"
        head = f"HTTP/1.1 {status} {reason}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        self._transport.write(head.encode() + body)  # type: ignore[attr-defined]


async def serve(port: int, latency_s: float) -> None:
    """Serves until it is ended; prints its port first."""
    endpoint = Endpoint(latency_s)
    server = await asyncio.get_running_loop().create_server(
        lambda: Connection(endpoint), "127.0.0.1", port, backlog=4096
    )
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--latency-ms", type=float, default=100)
    options = parser.parse_args()
    asyncio.run(serve(options.port, options.latency_ms / 1000))

"""Client CPU per token request: our `Api` beside bare aiohttp, httpx over aiohttp, and httpx as it comes.

    python tests/benchmarks/bench_http.py [--requests 5000] [--in-flight 100] [--rounds 3]

The server is a process of its own that answers after 100 ms. Medians of the rounds, in one run; the last line is JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from urllib.parse import urlencode

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport

from worker.integrations.kit.base import Caller
from worker.integrations.kit.http import Api

_LATENCY = 0.1
_ANSWER = json.dumps(
    {"expires_in": 1800, "token_type": "Bearer", "scope": "api", "refresh_token": "r" * 90, "access_token": "a" * 90}
).encode()
_FORM = urlencode({"grant_type": "refresh_token", "refresh_token": "r" * 90}).encode()
_HEADERS = {"authorization": "Basic YTpi", "content-type": "application/x-www-form-urlencoded"}
_PATH = "/v1/oauth/token"


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


Ask = Callable[[], Awaitable[object]]


class _Server(asyncio.Protocol):
    """Answers every request that ends in the form above."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._heard = b""

    def data_received(self, data: bytes) -> None:
        self._heard += data
        while _FORM in self._heard:
            self._heard = self._heard.split(_FORM, 1)[1]
            asyncio.get_running_loop().call_later(_LATENCY, self._answer)

    def _answer(self) -> None:
        head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(_ANSWER)}\r\n\r\n"
        self._transport.write(head.encode() + _ANSWER)  # type: ignore[attr-defined]


async def _serve() -> None:
    server = await asyncio.get_running_loop().create_server(_Server, "127.0.0.1", 0, backlog=512)
    _say(str(server.sockets[0].getsockname()[1]))
    await server.serve_forever()


async def _measure(ask: Ask, requests: int, in_flight: int) -> tuple[float, float]:
    """CPU microseconds per request, and requests per second."""
    left = requests

    async def worker() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await ask()

    await asyncio.gather(*(ask() for _ in range(in_flight)))  # opens the connections
    cpu, wall = time.process_time(), time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(in_flight)))
    return (time.process_time() - cpu) / requests * 1e6, requests / (time.perf_counter() - wall)


async def _compare(base: str, requests: int, in_flight: int, rounds: int) -> dict[str, list[float]]:
    limits = httpx.Limits(max_connections=in_flight, max_keepalive_connections=in_flight)
    api = Api(base, name="bench", total_seconds=20, max_bytes=1 << 20)
    endpoint, caller = api.endpoint("token", "POST", _PATH), Caller()
    bare = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=in_flight))
    over = httpx.AsyncClient(transport=AiohttpTransport(limits=limits), timeout=20)
    plain = httpx.AsyncClient(limits=limits, timeout=20)

    async def ask_bare() -> None:
        async with bare.post(base + _PATH, data=_FORM, headers=_HEADERS) as response:
            await response.read()

    contenders: dict[str, tuple[Ask, int]] = {
        "bare_aiohttp": (ask_bare, requests),
        "api": (lambda: api.send(endpoint, caller, headers=_HEADERS, content=_FORM), requests),
        "httpx_over_aiohttp": (lambda: over.post(base + _PATH, content=_FORM, headers=_HEADERS), requests),
        "httpx": (lambda: plain.post(base + _PATH, content=_FORM, headers=_HEADERS), max(requests // 10, in_flight)),
    }
    found: dict[str, list[float]] = {name: [] for name in contenders}
    try:
        for _ in range(rounds):
            for name, (ask, count) in contenders.items():
                cpu, rate = await _measure(ask, count, in_flight)
                found[name].append(cpu)
                _say(f"{name:20} {cpu:9.0f} us/request {rate:9.0f} requests/s")
    finally:
        await api.aclose()
        await bare.close()
        await over.aclose()
        await plain.aclose()
    return found


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--requests", type=int, default=5000)
    parser.add_argument("--in-flight", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        asyncio.run(_serve())
        return
    with subprocess.Popen([sys.executable, __file__, "--serve"], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            port = server.stdout.readline().strip()
            found = asyncio.run(_compare(f"http://127.0.0.1:{port}", given.requests, given.in_flight, given.rounds))
        finally:
            os.kill(server.pid, signal.SIGTERM)
    cpu = {name: statistics.median(values) for name, values in found.items()}
    result = {f"{name}_cpu_us": round(value) for name, value in cpu.items()}
    _say(
        json.dumps(
            result
            | {
                "api_vs_bare_aiohttp": round(cpu["api"] / cpu["bare_aiohttp"], 2),
                "api_vs_httpx_over_aiohttp": round(cpu["api"] / cpu["httpx_over_aiohttp"], 2),
                "api_vs_httpx": round(cpu["api"] / cpu["httpx"], 3),
            }
        )
    )


if __name__ == "__main__":
    main()

"""How long the receiver of hooks takes for one hook, at a steady rate and in a storm for one login.

`python -m tests.benchmarks.bench_hooks [--rate 200] [--seconds 30] [--logins 10000]`; the last line is JSON.

Everything runs on one machine: the server (one process), Postgres (which waits for the disk at each commit), Redis, the
stand-in that has the key, and the client, which sends at fixed times whether or not earlier hooks were answered. The
receiver's own time is what its log says of each request: from the first byte to the answer. The client's time also has
the client's own waits. The storm sends 1,000 hooks for one login at once, over 50 connections.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from cryptography.fernet import Fernet
from sqlalchemy import create_engine, text

from tests.support.databases import migrate
from tests.support.sandbox import SandboxProcess
from worker.devstack import Devstack
from worker.devstack.processes import free_port
from worker.integrations.plaid.stand_in.hooks import HookKeys
from worker.sandbox.clock import Clock

_TICK = os.sysconf("SC_CLK_TCK")
_STORM = 1000
_STORM_CONNECTIONS = 50
_REQUEST = re.compile(r'"path": ?"/webhooks/plaid".*"spent_ms": ?(\d+)|"spent_ms": ?(\d+).*"path": ?"/webhooks/plaid"')
_SEED = """
INSERT INTO users (id, email) VALUES (gen_random_uuid(), 'bench@example.com');
INSERT INTO providers (id, user_id, provider_key, alias, external_id, status, sync_due_at)
SELECT gen_random_uuid(), (SELECT id FROM users), 'plaid', 'Login ' || i, 'item-' || i, 'active',
    now() + interval '1 hour' FROM generate_series(1, :logins) AS i;
"""


@dataclass(frozen=True)
class World:
    """A server, and what sends hooks to it."""

    url: str
    pid: int
    database_url: str
    log: Path
    keys: HookKeys

    def hook(self, login: int) -> tuple[bytes, dict[str, str]]:
        """A signed hook about one login."""
        body = json.dumps(
            {
                "webhook_type": "TRANSACTIONS",
                "webhook_code": "SYNC_UPDATES_AVAILABLE",
                "item_id": f"item-{login}",
                "environment": "sandbox",
                "n": random.random(),
            },
            indent=2,
        ).encode()
        return body, {"Plaid-Verification": self.keys.sign(body), "Content-Type": "application/json"}

    def own_times(self, skip: int) -> list[int]:
        """The receiver's own time of each hook in milliseconds, without the first `skip`."""
        found = [_REQUEST.search(line) for line in self.log.read_text().splitlines()]
        return [int(one[1] or one[2]) for one in found if one][skip:]

    def cpu(self) -> float:
        """Seconds of CPU that the server has used."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICK


@contextmanager
def world(logins: int) -> Iterator[World]:
    """Starts everything."""
    with ExitStack() as stack:
        home = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="dashtam-hooks-", ignore_cleanup_errors=True))
        )
        home.chmod(0o755)
        urls = stack.enter_context(Devstack(home / "stack", durable=True, environ={}).session(erase=True))
        migrate(urls.database_url)
        sandbox = stack.enter_context(SandboxProcess())
        port = free_port()
        environment = (
            os.environ
            | sandbox.variables()
            | {
                "DATABASE_URL": urls.database_url,
                "REDIS_URL": urls.redis_url,
                "ENCRYPTION_KEYS": f"bench:{Fernet.generate_key().decode()}",
                "INTEGRATIONS": "plaid",
                "WEB_PORT": str(port),
                "WEB_HOOK_RATE": "1000000/minute",
                "LOG_FORMAT": "json",
                "DASHTAM_HOME": str(home / "home"),
            }
        )
        engine = create_engine(urls.database_url.replace("postgresql://", "postgresql+psycopg://", 1))
        with engine.begin() as connection:
            for statement in filter(str.strip, _SEED.split(";")):
                connection.execute(text(statement), {"logins": logins} if ":logins" in statement else {})
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM ANALYZE"))
        engine.dispose()
        log = home / "web.log"
        out = stack.enter_context(log.open("wb"))
        server = stack.enter_context(
            subprocess.Popen([sys.executable, "-m", "worker.web"], env=environment, stdout=out, stderr=out)
        )
        stack.callback(server.terminate)
        yield World(f"http://127.0.0.1:{port}", server.pid, urls.database_url, log, HookKeys(1, Clock()))


async def send(
    given: World, hooks: list[tuple[bytes, dict[str, str]]], *, rate: float, connections: int
) -> list[float]:
    """Sends hooks at a fixed rate (all at once, if it is 0). Returns the client's times in milliseconds.

    Raises:
        RuntimeError: a hook was not answered with 200.
    """
    spent: list[float] = []
    connector = aiohttp.TCPConnector(limit=connections)
    async with aiohttp.ClientSession(given.url, connector=connector) as session:

        async def one(at: float, body: bytes, headers: dict[str, str]) -> None:
            await asyncio.sleep(max(0.0, at - time.perf_counter()))
            began = time.perf_counter()
            async with session.post("/webhooks/plaid", data=body, headers=headers) as answer:
                if answer.status != 200:
                    raise RuntimeError(f"status {answer.status}")
            spent.append((time.perf_counter() - began) * 1000)

        begin = time.perf_counter() + 0.1
        step = 1 / rate if rate else 0.0
        await asyncio.gather(*(one(begin + step * number, *hook) for number, hook in enumerate(hooks)))
    return spent


async def ready(url: str) -> None:
    """Waits until the server listens."""
    async with aiohttp.ClientSession(url) as session:
        for _ in range(300):
            try:
                async with session.get("/readyz") as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.1)
    raise SystemExit("the server did not start")


def share(values: list[float] | list[int], part: float) -> float:
    """The value below which this part of the values lies."""
    return round(sorted(values)[min(len(values) - 1, int(len(values) * part))], 1)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rate", type=float, default=200)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--logins", type=int, default=10_000)
    asked = parser.parse_args()
    with world(asked.logins) as given:
        asyncio.run(ready(given.url))
        warm = [given.hook(1 + number) for number in range(200)]
        asyncio.run(send(given, warm, rate=100, connections=20))
        steady = [given.hook(random.randint(1, asked.logins)) for _ in range(int(asked.rate * asked.seconds))]
        cpu = given.cpu()
        client = asyncio.run(send(given, steady, rate=asked.rate, connections=500))
        cpu = given.cpu() - cpu
        own = given.own_times(len(warm))
        storm = [given.hook(1) for _ in range(_STORM)]
        began = time.perf_counter()
        asyncio.run(send(given, storm, rate=0, connections=_STORM_CONNECTIONS))
        lasted = time.perf_counter() - began
    found = {
        "rate": asked.rate,
        "hooks": len(steady),
        "own_p50_ms": share(own, 0.5),
        "own_p99_ms": share(own, 0.99),
        "client_p50_ms": share(client, 0.5),
        "client_p99_ms": share(client, 0.99),
        "cpu_ms": round(cpu / len(steady) * 1000, 2),
        "storm_per_second": round(_STORM / lasted),
        "load": os.getloadavg()[0],
    }
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()

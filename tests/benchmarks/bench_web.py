"""What requests to the HTTP API cost: server CPU and time per request, against a database of many logins.

`python -m tests.benchmarks.bench_web [--logins 100000] [--requests 300]`; the last line is JSON.

The server is a process of its own, as in production, and requests come one after the other. CPU is the server's, read
from /proc, without Postgres's and Redis's. `healthz` is what uvicorn, FastAPI and the middleware cost alone.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from uuid import UUID

import httpx
from cryptography.fernet import Fernet
from sqlalchemy import create_engine, text

from tests.support.databases import migrate
from worker.devstack import Devstack
from worker.devstack.processes import free_port
from worker.models.vocabulary import KeyScope
from worker.runtime import Runtime
from worker.services.access import keys
from worker.settings import Settings, load

_ROWS = 5000
_TICK = os.sysconf("SC_CLK_TCK")
_SEED = """
INSERT INTO users (id, email) SELECT gen_random_uuid(), 'user' || i || '@example.com'
FROM generate_series(1, greatest(1, :logins / 10)) AS i;
INSERT INTO providers (id, user_id, provider_key, alias, status, connected_at, refreshed_at, synced_at)
SELECT gen_random_uuid(), u.id, 'schwab', 'Login ' || i, 'active', now(), now(), now()
FROM generate_series(1, :logins) AS i JOIN (
    SELECT id, row_number() OVER (ORDER BY email) AS n FROM users) AS u ON u.n = 1 + i % greatest(1, :logins / 10);
INSERT INTO accounts (id, provider_id, provider_account_id, name, type, subtype, status, currency, content_hash)
SELECT gen_random_uuid(), p.id, 'account-' || i, 'Brokerage', 'investment', 'brokerage', 'active', 'USD', ''
FROM providers AS p CROSS JOIN generate_series(1, 2) AS i;
"""
_SEED_ROWS = """
INSERT INTO transactions (id, account_id, provider_transaction_id, status, type, amount, currency, posted_date,
    description, content_hash)
SELECT gen_random_uuid(), :account, 'tx-' || i, 'posted', 'purchase', -(i % 9000) / 100.0, 'USD',
    DATE '2025-01-01' + (i % 365), 'CORNER GROCERY ' || i, ''
FROM generate_series(1, :rows) AS i
"""


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


@contextmanager
def _world(logins: int) -> Iterator[dict[str, str]]:
    """A server, and two keys: `address`, `operator`, `user`."""
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dashtam-web-", ignore_cleanup_errors=True)))
        home.chmod(0o755)
        urls = stack.enter_context(Devstack(home / "stack", durable=False, environ={}).session(erase=True))
        migrate(urls.database_url)
        port = free_port()
        os.environ.update(
            DATABASE_URL=urls.database_url,
            REDIS_URL=urls.redis_url,
            ENCRYPTION_KEYS=f"bench:{Fernet.generate_key().decode()}",
            INTEGRATIONS="schwab",
            SCHWAB_APP_KEY="bench",
            SCHWAB_APP_SECRET="bench",
            SCHWAB_REDIRECT_URI="https://127.0.0.1:8443/callback",
            WEB_PORT=str(port),
            WEB_KEY_RATE="1000000/minute",
            WEB_ADDRESS_RATE="1000000/minute",
            LOG_LEVEL="WARNING",
        )
        runtime = Runtime(load(Settings))
        user = _seed(urls.database_url, logins)
        made = [
            asyncio.run(
                keys.create(runtime, name="bench", scopes=KeyScope, user_id=owner, lifetime=None, actor="bench")
            ).key
            for owner in (None, user)
        ]
        runtime.close()
        server = stack.enter_context(subprocess.Popen([sys.executable, "-m", "worker.web"]))
        stack.callback(server.terminate)
        address = f"http://127.0.0.1:{port}"
        _wait(address)
        yield {"address": address, "operator": made[0], "user": made[1], "pid": str(server.pid)}


def _seed(url: str, logins: int) -> UUID:
    """Stores the logins, and one account with `_ROWS` transactions. Returns the id of that account's user."""
    engine = create_engine(url)
    with engine.begin() as connection:
        for statement in _SEED.split(";"):
            if statement.strip():
                connection.execute(text(statement), {"logins": logins} if ":logins" in statement else {})
        account, user = connection.execute(
            text("SELECT a.id, p.user_id FROM accounts a JOIN providers p ON p.id = a.provider_id LIMIT 1")
        ).one()
        connection.execute(text(_SEED_ROWS), {"account": account, "rows": _ROWS})
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))
    engine.dispose()
    return UUID(str(user))


def _wait(address: str) -> None:
    for _ in range(200):
        try:
            if httpx.get(f"{address}/healthz").status_code == 200:
                return
        except httpx.HTTPError:
            time.sleep(0.1)
    raise SystemExit("the server did not start")


def _cpu(pid: str) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def _measure(world: dict[str, str], path: str, key: str | None, requests: int) -> dict[str, float]:
    headers = {} if key is None else {"Authorization": f"Bearer {world[key]}"}
    spent = []
    with httpx.Client(base_url=world["address"], headers=headers) as client:
        for _ in range(20):
            client.get(path).raise_for_status()
        cpu = _cpu(world["pid"])
        for _ in range(requests):
            began = time.perf_counter()
            client.get(path).raise_for_status()
            spent.append((time.perf_counter() - began) * 1000)
        cpu = _cpu(world["pid"]) - cpu
    spent.sort()
    return {
        "cpu_ms": round(cpu / requests * 1000, 2),
        "p50_ms": round(statistics.median(spent), 2),
        "p99_ms": round(spent[int(len(spent) * 0.99)], 2),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--logins", type=int, default=100_000)
    parser.add_argument("--requests", type=int, default=300)
    given = parser.parse_args()
    asked = {
        "healthz": ("/healthz", None),
        "providers_user": ("/api/v1/providers", "user"),
        "providers_operator": ("/api/v1/providers", "operator"),
        "providers_operator_state": ("/api/v1/providers?status=active", "operator"),
        "transactions_500": ("/api/v1/transactions?limit=500", "user"),
    }
    found = {}
    with _world(given.logins) as world:
        for name, (path, key) in asked.items():
            found[name] = _measure(world, path, key, given.requests)
            _say(f"{name:26} {found[name]}")
    _say(json.dumps({"logins": given.logins, "load": os.getloadavg()[0]} | found))


if __name__ == "__main__":
    main()

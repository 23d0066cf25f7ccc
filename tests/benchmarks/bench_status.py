"""What the status page costs with very many logins: the size of its pages, and the time of each query.

`python -m tests.benchmarks.bench_status [--n 100000]`; the last line is JSON. Each query that the pages send is run
again with EXPLAIN ANALYZE; the best of five counts, because another program on the machine makes any of them slower.
Beside it stands the processor's time, of which that is less true.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from tests.support.environment import isolate

_SECONDS = re.compile(r"Execution Time: ([\d.]+) ms")
_ROUNDS = 5
_PAGES = (
    "/status",
    "/status?q=nothing",
    "/status?q=savings",
    "/status?q=person7@",
    "/status?q=01a2",
    "/status?state=needs_reauth",
    "/status?state=active&integration=plaid",
)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--n", type=int, default=100_000, help="how many logins")
    given = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="dashtam-bench-status-"))
    isolate(home)

    from tests.support.databases import migrate
    from worker.devstack import Devstack

    with Devstack(home / "servers", durable=False, environ={}).session(erase=True) as urls:
        os.environ |= {
            "DATABASE_URL": urls.database_url,
            "REDIS_URL": urls.redis_url,
            "WEB_KEY_RATE": "100000/second",
            "WEB_ADDRESS_RATE": "100000/second",
        }
        migrate(urls.database_url)
        result = _measure(given.n)
    sys.stdout.write(json.dumps(result) + "\n")


def _measure(count: int) -> dict[str, Any]:
    from fastapi.testclient import TestClient
    from sqlalchemy import create_engine, event, text

    from tests.integration.web.conftest import HOST, make_key
    from tests.support.many_logins import fill
    from worker.runtime import Runtime, use_runtime
    from worker.settings import get_settings
    from worker.tasks import send as broker
    from worker.web.application import create_app

    runtime = Runtime(get_settings(), integrations={})
    filling = create_engine(get_settings().database_url.get_secret_value())  # without the worker's time limits
    fill(filling, logins=count)
    filling.dispose()
    with runtime.transaction() as session:
        login = session.scalar(text("SELECT id FROM providers ORDER BY id LIMIT 1"))
    asked: dict[str, tuple[str, Any]] = {}

    def note(_connection: object, _cursor: object, statement: str, values: Any, *_: object) -> None:
        if statement.lstrip().startswith(("SELECT", "WITH")):
            asked.setdefault(f"{statement}{sorted(values) if isinstance(values, dict) else ''}", (statement, values))

    sizes = {}
    with use_runtime(runtime):
        key = make_key(runtime, None)["Authorization"].split()[1]
        app = create_app(runtime, send=lambda *_, **__: "", transport=broker)
        with TestClient(app, base_url=HOST) as client:
            found = re.search(r'form_token" value="([^"]+)"', client.get("/login").text)
            client.post("/login", data={"form_token": found[1] if found else "", "key": key})
            event.listen(runtime.engine, "before_cursor_execute", note)
            for path in (*_PAGES, f"/status/logins/{login}"):
                app.state.lookout._seen_at = float("-inf")
                sizes[path.replace(str(login), "…")] = len(client.get(path).content)
            event.remove(runtime.engine, "before_cursor_execute", note)
    times = sorted((_time(runtime.engine, *one), " ".join(one[0].split())[:150]) for one in asked.values())
    runtime.close()
    for (ms, cpu_ms), statement in times[:-11:-1]:
        sys.stdout.write(f"{ms:8.2f} ms, processor {cpu_ms:6.2f} ms  {statement}\n")
    slowest = {"slowest_ms": times[-1][0][0], "slowest_cpu_ms": max(cpu_ms for (_, cpu_ms), _ in times)}
    return {"logins": count, "statements": len(times), **slowest, "bytes": sizes}


def _time(engine: Engine, statement: str, values: Any) -> tuple[float, float]:
    """The best time of a statement, and the least processor time of it, in milliseconds."""
    best, least = float("inf"), float("inf")
    with engine.connect() as connection:
        spent = Path(f"/proc/{connection.exec_driver_sql('SELECT pg_backend_pid()').scalar_one()}/schedstat")
        for _ in range(_ROUNDS):
            before = int(spent.read_text().split()[0])
            rows = connection.exec_driver_sql(f"EXPLAIN (ANALYZE, TIMING OFF) {statement}", values)
            found = _SECONDS.search([row[0] for row in rows][-1])
            least = min(least, (int(spent.read_text().split()[0]) - before) / 1e6)
            best = min(best, float(found[1]) if found else best)
    return round(best, 2), round(least, 2)


if __name__ == "__main__":
    main()

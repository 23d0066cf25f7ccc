"""After a cycle with failures in it, no secret is found anywhere but where it belongs: encrypted in Postgres."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit
from uuid import UUID

import httpx
import psutil
import psycopg
import pytest
import redis as redis_client
from celery import Celery
from sqlalchemy import Engine, text

from tests.factories import make_user
from tests.integration.ops.conftest import PASSWORD, StartFlower, start_flower
from tests.support.celery_fixtures import StartWorker
from tests.support.processes import LocalProcess
from tests.support.sandbox import SandboxAdmin, SandboxProcess
from tests.support.waiting import wait_for
from worker.devstack.tether import Tether
from worker.integrations.kit.base import Caller
from worker.runtime import Runtime
from worker.services.linking import begin, complete
from worker.services.refresh.access_token import access_token
from worker.settings import Settings, load
from worker.telemetry.exporter import Exporter

__all__ = ["start_flower"]  # a fixture

LINKS = 2
FORCED = {"force": True}


class Secrets:
    """What is hunted for, by where it came from."""

    def __init__(self) -> None:
        self._found: dict[str, str] = {}

    def plant(self, name: str, value: str) -> None:
        """From now on it may be found nowhere."""
        assert len(value) >= 8, f"{name} is too short to be told from anything else"
        self._found[value] = name

    def __len__(self) -> int:
        return len(self._found)

    def hunt(self, haystacks: dict[str, bytes]) -> list[str]:
        """Where which secret was found, in any of the shapes that it may take."""
        return [
            f"{name} in {place}"
            for value, name in self._found.items()
            for place, content in haystacks.items()
            if any(shape in content for shape in _shapes(value))
        ]


def _shapes(value: str) -> set[bytes]:
    inner = base64.b64encode(value.encode()).rstrip(b"=")[:-1]
    return {value.encode(), quote(value, safe="").encode(), json.dumps(value)[1:-1].encode(), inner}


@pytest.fixture
def secrets(settings: Settings, server_environment: dict[str, str]) -> Secrets:
    """Those of the configuration."""
    found = Secrets()
    found.plant("encryption key", settings.encryption_keys.get_secret_value().partition(":")[2])
    found.plant("database password", urlsplit(server_environment["DATABASE_URL"]).password or "")
    found.plant("client secret", server_environment["SCHWAB_APP_SECRET"])
    found.plant("flower password", PASSWORD)
    if password := urlsplit(server_environment["REDIS_URL"]).password:
        found.plant("redis password", password)
    return found


@pytest.fixture
def linked(runtime: Runtime, sandbox: SandboxAdmin, sandbox_process: SandboxProcess, secrets: Secrets) -> list[UUID]:
    """Logins linked by the product's own code; tokens, codes and account numbers are planted on the way."""
    with runtime.transaction() as session:
        user = make_user(session).id
    made = []
    for number, login in enumerate(sandbox.create_logins("schwab", LINKS)):
        begun = runtime.run(begin.begin_link(runtime, "schwab", user, f"S{number}"))
        state = parse_qs(urlsplit(begun.url).query)["state"][0]
        callback = sandbox.link(login, state=state)["callback_url"]
        made.append(runtime.run(complete.complete_link(runtime, callback, holder=begun.holder)))
        secrets.plant(f"state {number}", state)
        secrets.plant(f"code {number}", parse_qs(urlsplit(callback).query)["code"][0])
    for number, login in enumerate(sandbox.create_logins("plaid", LINKS)):
        public_token = sandbox.link(login)["public_token"]
        made.append(
            runtime.run(complete.link_with_form(runtime, "plaid", user, f"P{number}", {"public_token": public_token}))
        )
        secrets.plant(f"public token {number}", public_token)
    plant_tokens(runtime, secrets)
    for provider_id in made[:LINKS]:
        token = runtime.run(access_token(runtime, provider_id, caller=Caller())).value
        answer = httpx.get(
            f"{sandbox_process.url('schwab')}/trader/v1/accounts/accountNumbers",
            headers={"Authorization": f"Bearer {token}"},
            trust_env=False,
        )
        for account in answer.raise_for_status().json():
            secrets.plant(f"account number of {provider_id}", account["accountNumber"])
    return made


def plant_tokens(runtime: Runtime, secrets: Secrets) -> None:
    """Tokens as they are now; a generation that lives between two calls is only ever in memory."""
    with runtime.transaction() as session:
        rows = session.execute(text("SELECT * FROM provider_tokens")).mappings().all()
    for row in rows:
        for kind in ("access", "refresh"):
            if row[f"{kind}_token"] is not None:
                bound = {"provider_id": row["provider_id"], "generation": row["generation"], "key_id": row["key_id"]}
                value = runtime.encryption.unseal(row[f"{kind}_token"], kind=kind, **bound)
                secrets.plant(f"{kind} token {row['provider_id']}/{row['generation']}", value)


@pytest.fixture
def beat(server_environment: dict[str, str], tmp_path: Path, tether: Tether) -> Iterator[LocalProcess]:
    process = LocalProcess(
        "beat",
        [sys.executable, "-m", "celery", "-A", "worker.app", "beat"],
        log=tmp_path / "beat.log",
        env={**server_environment, "DASHTAM_HOME": str(tmp_path / "home"), "LOG_LEVEL": "DEBUG", "TICK_SCALE": "0.2"},
        tether=tether,
        forked=True,
    )
    process.start()
    yield process
    process.stop()


@pytest.mark.long
def test_no_secret_is_found_anywhere_after_a_cycle_with_failures(
    linked: list[UUID],
    secrets: Secrets,
    runtime: Runtime,
    engine: Engine,
    redis: redis_client.Redis,
    redis_url: str,
    sandbox: SandboxAdmin,
    start_worker: StartWorker,
    start_flower: StartFlower,
    beat: LocalProcess,
    celery_application: Celery,
    tmp_path: Path,
) -> None:
    home = tmp_path / "home"
    flower = start_flower("flower-canary", FLOWER_PASSWORD=PASSWORD, REDIS_URL=redis_url)
    worker = start_worker(processes=2, DASHTAM_HOME=str(home), LOG_LEVEL="DEBUG")
    ids = [str(id_) for id_ in linked]
    break_things(sandbox)

    send = celery_application.send_task
    send("worker.tasks.accounts.sync_providers", args=[ids])
    send("worker.tasks.tokens.refresh_providers", args=[ids], kwargs=FORCED)
    wait_for(lambda: counted(engine, "sync_runs", "status <> 'running'") >= len(ids), what="runs to end")
    wait_for(lambda: counted(engine, "token_refreshes", "status <> 'sent'") >= 1, what="refreshes to end")
    plant_tokens(runtime, secrets)
    sandbox.clear_faults()
    sandbox.revoke(*sandbox.logins("schwab")[-1:])
    seen_before = counted(engine, "token_refreshes", "true")
    send("worker.tasks.tokens.refresh_providers", args=[[*ids, "0-no-id"]], kwargs=FORCED)
    send("worker.tasks.accounts.sync_providers", args=[ids])
    wait_for(lambda: counted(engine, "token_refreshes", "true") > seen_before, what="more refreshes")
    wait_for(lambda: counted(engine, "sync_runs", "status <> 'running'") >= len(ids) + 1, what="more runs")
    wait_for(lambda: "Scheduler: Sending due task" in beat.logs(), what="beat to tick")
    plant_tokens(runtime, secrets)

    task_ids = list(json.loads(flower.ask("/api/tasks")[1]))
    with closing(Exporter(load(Settings, DASHTAM_HOME=home))) as exporter:
        scraped = exporter.answer()
    haystacks = {
        "the worker's log": worker.logs().encode(),
        "beat's log": beat.logs().encode(),
        "flower's log": flower.process.logs().encode(),
        "/metrics": scraped,
        "the process list": command_lines(redis_url, runtime.settings.database_url.get_secret_value()),
        **{f"redis: {key}": value for key, value in redis_dump(redis)},
        **{f"postgres: {table}": rows for table, rows in postgres_dump(engine)},
        **{f"flower: {path}": flower.ask(path)[1].encode() for path in flower_paths(task_ids)},
        **{f"home: {path.name}": path.read_bytes() for path in home.rglob("*") if path.is_file()},
    }

    assert len(secrets) > 20
    assert b"celery" in haystacks["the process list"]
    assert b"gAAAAA" in haystacks["postgres: provider_tokens"], "the hunt must reach where tokens are kept"
    assert b"refresh_batch" in haystacks["the worker's log"]
    assert b"provider_call_failed" in haystacks["the worker's log"], "the cycle must have failures in it"
    assert task_ids
    assert secrets.hunt(haystacks) == []
    control = {"a planted line": f"Authorization: {quote(next(iter(secrets._found)))}".encode()}
    assert secrets.hunt(control), "the hunt must find what is there"


def break_things(sandbox: SandboxAdmin) -> None:
    """Answers that are errors, cut off, no JSON, or hold records that nobody can read."""
    first_schwab = sandbox.logins("schwab")[-LINKS]
    first_plaid, second_plaid, *_ = sandbox.logins("plaid")[-LINKS:]
    sandbox.inject("answer", kind="data", times=1, status=500, body="<html>Authorization failed</html>")
    sandbox.inject("reset", kind="refresh", times=1, when="after")
    sandbox.inject("truncate", kind="data", skip=3, times=1, bytes=40)
    sandbox.serve_verbatim(first_schwab, '{"activityId": 1, "netAmount": NaN, "accountNumber": "11112222"}')
    sandbox.serve_verbatim(first_plaid, '{"transaction_id": "t", "amount": "1e400"}')
    sandbox.break_login(second_plaid)


def counted(engine: Engine, table: str, condition: str) -> int:
    with engine.connect() as connection:
        return int(connection.execute(text(f"SELECT count(*) FROM {table} WHERE {condition}")).scalar_one())  # noqa: S608


def command_lines(*urls: str) -> bytes:
    """Arguments of this session's processes, and of the servers at these addresses.

    Others of this machine may be another session's: the sandbox's client secret is the same in each.
    """
    ports = {str(urlsplit(url).port).encode() for url in urls}
    ours = {str(process.pid) for process in psutil.Process().children(recursive=True)}
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has ended meanwhile
            line = path.read_bytes()
            if path.parent.name in ours or any(port in line for port in ports):
                found.append(line)
    return b"\n".join(found)


def redis_dump(client: redis_client.Redis) -> Iterator[tuple[str, bytes]]:
    """Every key with all that it holds."""
    readers: dict[str, Callable[[str], object]] = {
        "none": lambda key: "it has expired since it was listed",
        "string": client.get,
        "list": lambda key: client.lrange(key, 0, -1),
        "hash": client.hgetall,
        "set": client.smembers,
        "zset": lambda key: client.zrange(key, 0, -1, withscores=True),
    }
    for key in client.scan_iter(count=1000):
        yield str(key), str(readers[str(client.type(key))](key)).encode()


def postgres_dump(engine: Engine) -> Iterator[tuple[str, bytes]]:
    """Every row of every table, as text."""
    address = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(address) as connection:
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        for (table,) in tables:
            with connection.cursor().copy(f'COPY "{table}" TO STDOUT') as copy:  # type: ignore[arg-type]
                yield table, b"".join(bytes(chunk) for chunk in copy)


def flower_paths(task_ids: list[str]) -> list[str]:
    pages = ["/", "/tasks", "/broker", "/api/tasks", "/api/workers?refresh=1", "/metrics", "/api/queues/length"]
    return [*pages, *(f"/task/{id_}" for id_ in task_ids), *(f"/api/task/info/{id_}" for id_ in task_ids)]

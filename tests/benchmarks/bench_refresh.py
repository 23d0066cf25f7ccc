"""Refreshes a second and CPU per refresh, against the plain ways to do it, in one run on one machine.

`python -m tests.benchmarks.bench_refresh [--n 2000]`; the last line is JSON. Everything runs for real: a private
Postgres with fsync, Redis, Celery workers, and a token endpoint with 100 ms latency that rotates and detects reuse.
A measurement starts when the first message is sent and ends when the last token is stored.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import astuple, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import psutil
from cryptography.fernet import Fernet
from sqlalchemy import Engine, create_engine, text

from tests.benchmarks.claims import SERVER, claim_p50_ratio
from tests.benchmarks.sync_setup import wal_position
from tests.support.databases import Databases, migrate
from tests.support.environment import ROOT
from tests.support.waiting import wait_for
from worker.devstack import Devstack
from worker.models import new_id
from worker.services.encryption import EncryptionService

OURS_PROCESSES = 2


@dataclass(frozen=True)
class Measured:
    """One measurement; the CPU of the worker and of Postgres and the bytes of WAL are those of one refresh."""

    per_s: float
    cpu_us: float
    pg_cpu_us: float
    wal_bytes: float


@dataclass(frozen=True)
class Contender:
    """One way to do it: how to send ids, how many, and the worker's command line."""

    send: Callable[[Sequence[UUID]], None]
    count: int
    argv: Sequence[str]


def say(line: str) -> None:
    """Progress, on standard error."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


@contextmanager
def endpoint() -> Iterator[str]:
    """The token endpoint's base URL."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.benchmarks.token_endpoint"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.terminate()
        process.wait()


@contextmanager
def worker(name: str, argv: Sequence[str], home: Path) -> Iterator[psutil.Process]:
    """A Celery worker that is ready."""
    log = home / f"{name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "celery", *argv, "--without-gossip", "--without-mingle", "-n", f"{name}@bench"],
            cwd=ROOT,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        from worker.app import app

        wait_for(lambda: app.control.ping(timeout=0.5) or process.poll() is not None, what=f"{name} ready")
        assert process.poll() is None, log.read_text()
        yield psutil.Process(process.pid)
    except AssertionError:
        say(log.read_text()[-4000:])
        raise
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def cpu_seconds(process: psutil.Process) -> float:
    """User and system time of a process and its children."""
    total = 0.0
    for one in [process, *process.children(recursive=True)]:
        times = one.cpu_times()
        total += times.user + times.system
    return total


def seed(engine: Engine, count: int, label: str) -> list[UUID]:
    """Linked providers whose tokens are due at once."""
    keys = EncryptionService(os.environ["ENCRYPTION_KEYS"])
    issued_at = datetime.now(UTC) - timedelta(hours=1)
    user_id, ids = new_id(), [new_id() for _ in range(count)]
    providers, tokens = [], []
    for number, id_ in enumerate(ids):
        providers.append({"id": id_, "user_id": user_id, "alias": f"{label}-{number}", "at": issued_at})
        tokens.append(
            {
                "id": id_,
                "access": keys.seal("I0.old", provider_id=id_, kind="access", generation=1),
                "refresh": keys.seal(f"{label}-{number}.1", provider_id=id_, kind="refresh", generation=1),
                "key_id": keys.key_id,
                "at": issued_at,
            }
        )
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO users (id) VALUES (:id)"), {"id": user_id})
        connection.execute(
            text(
                "INSERT INTO providers (id, user_id, provider_key, alias, status, access_expires_at, refresh_due_at)"
                " VALUES (:id, :user_id, 'schwab', :alias, 'active', :at, :at)"
            ),
            providers,
        )
        connection.execute(
            text(
                "INSERT INTO provider_tokens (provider_id, access_token, refresh_token, key_id, generation, lifetime_s,"
                " issued_at) VALUES (:id, :access, :refresh, :key_id, 1, 1800, :at)"
            ),
            tokens,
        )
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ANALYZE"))
    return ids


def measure(
    engine: Engine, process: psutil.Process, ids: Sequence[UUID], send: Callable[[Sequence[UUID]], None]
) -> Measured:
    """Sends, waits until all are stored, and counts."""
    count_stored = text(
        "SELECT count(*) FROM provider_tokens t JOIN providers p ON p.id = t.provider_id"
        " WHERE p.alias LIKE :label AND t.generation = 2"
    )
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        alias = connection.execute(text("SELECT alias FROM providers WHERE id = :id"), {"id": ids[0]}).scalar_one()
        label = {"label": alias.rsplit("-", 1)[0] + "-%"}
        own = psutil.Process(connection.execute(text("SELECT pg_backend_pid()")).scalar_one())

        def used() -> tuple[float, float, int]:
            server = own.parent()
            assert server is not None
            return cpu_seconds(process), cpu_seconds(server) - cpu_seconds(own), wal_position(engine)

        before, began = used(), time.perf_counter()
        send(ids)
        wait_for(
            lambda: connection.execute(count_stored, label).scalar_one() >= len(ids),
            every=0.02,
            what=f"{len(ids)} stored tokens of {alias}",
        )
        seconds = time.perf_counter() - began
        cpu, pg_cpu, wal = ((now - then) / len(ids) for now, then in zip(used(), before, strict=True))
    return Measured(len(ids) / seconds, cpu * 1e6, pg_cpu * 1e6, wal)


def run(options: argparse.Namespace) -> dict[str, object]:
    """All measurements."""
    home = Path(tempfile.mkdtemp(prefix="dashtam-bench-", dir="/tmp"))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, home, ignore_errors=True)
        urls = stack.enter_context(
            Devstack(home / "servers", durable=True, environ={}, postgres_settings=SERVER).session(erase=True)
        )
        base_url = stack.enter_context(endpoint())
        os.environ.update(
            DATABASE_URL=urls.database_url,
            REDIS_URL=urls.redis_url,
            ENCRYPTION_KEYS=f"bench:{Fernet.generate_key().decode()}",
            SCHWAB_BASE_URL=base_url,
            SCHWAB_APP_KEY="sandbox-app",
            SCHWAB_APP_SECRET="sandbox-secret",
            SCHWAB_REDIRECT_URI="https://127.0.0.1",
            INTEGRATIONS="schwab",
            DASHTAM_HOME=str(home / "home"),
            DASHTAM_ENV_FILE=os.devnull,
            LOG_LEVEL="WARNING",
        )
        migrate(urls.database_url)
        engine = create_engine(urls.database_url.replace("postgresql://", "postgresql+psycopg://", 1))
        stack.callback(engine.dispose)
        return _measure_all(engine, home, options, base_url)


def bare(base_url: str, count: int, label: str) -> float:
    """Microseconds of CPU of one call to the token endpoint, with aiohttp and nothing else."""
    command = [sys.executable, "-m", "tests.benchmarks.bare_refresh", base_url, str(count), label]
    return float(subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True, text=True).stdout)


def _in_turns(
    engine: Engine, home: Path, contenders: dict[str, Contender], options: argparse.Namespace, base_url: str
) -> tuple[dict[str, Measured], float]:
    """Medians of rounds in which each contender has its turn, so that a busy machine hits all alike.

    The second value is the CPU of a bare call, which has its turn, too. It is one of as many calls as each process of
    ours makes: each opens its connections anew in each round, and that costs as much as a call.
    """
    share = max(250, options.n // OURS_PROCESSES)
    measured: dict[str, list[Measured]] = {name: [] for name in contenders}
    floor = []
    with ExitStack() as stack:
        workers = {}
        for name, contender in contenders.items():
            os.environ["PLAIN_CONNECTIONS"] = "64" if name == "threads" else "2"
            workers[name] = stack.enter_context(worker(name, contender.argv, home))
            measure(engine, workers[name], seed(engine, min(contender.count, 200), f"{name}-warm"), contender.send)
        for number in range(options.rounds):
            floor.append(bare(base_url, share, f"bare-{number}"))
            say(f"bare aiohttp: {floor[-1]:.0f} us of CPU each")
            for name, contender in contenders.items():
                ids = seed(engine, contender.count, f"{name}-{number}")
                one = measure(engine, workers[name], ids, contender.send)
                say(f"{name}: {one.per_s:.0f} refreshes a second, {one.cpu_us:.0f} us of CPU each")
                measured[name].append(one)
    medians = {
        name: Measured(*(statistics.median(values) for values in zip(*map(astuple, all_), strict=True)))
        for name, all_ in measured.items()
    }
    return medians, statistics.median(floor)


def _contenders(n: int) -> dict[str, Contender]:
    from tests.benchmarks import plain_refresh  # these read the settings made by `run`
    from worker.settings import get_settings
    from worker.tasks.tokens import refresh_providers

    batch_size = get_settings().batch_size

    def ours(ids: Sequence[UUID]) -> None:
        for start in range(0, len(ids), batch_size):
            refresh_providers.apply_async(args=[[str(id_) for id_ in ids[start : start + batch_size]]])

    def prefork(ids: Sequence[UUID]) -> None:
        for id_ in ids:
            plain_refresh.client_per_task.apply_async(args=[str(id_)], queue="plain_prefork")

    def threads(ids: Sequence[UUID]) -> None:
        for id_ in ids:
            plain_refresh.shared_client.apply_async(args=[str(id_)], queue="plain_threads")

    plain = ["-A", "tests.benchmarks.plain_refresh", "worker", "-Q"]
    return {
        "ours": Contender(ours, n, ["-A", "worker.app", "worker", "-Q", "refresh", "-c", str(OURS_PROCESSES)]),
        "prefork": Contender(prefork, max(100, n // 10), [*plain, "plain_prefork", "-c", "4"]),
        "threads": Contender(threads, max(200, n // 2), [*plain, "plain_threads", "-P", "threads", "-c", "64"]),
    }


def _measure_all(engine: Engine, home: Path, options: argparse.Namespace, base_url: str) -> dict[str, object]:
    only = options.only.split(",") if options.only else ["ours", "prefork", "threads", "claim"]
    contenders = {name: contender for name, contender in _contenders(options.n).items() if name in only}
    found, floor = _in_turns(engine, home, contenders, options, base_url)
    with urllib.request.urlopen(base_url + "/stats") as answer:  # noqa: S310 - our own endpoint
        stats = json.load(answer)
    if stats["reuses"]:
        raise SystemExit(f"the endpoint saw {stats['reuses']} reused refresh tokens")
    result: dict[str, object] = {"n": options.n, "rounds": options.rounds}
    result |= {f"{name}_per_s": round(one.per_s, 1) for name, one in found.items() if name != "ours"}
    if ours := found.pop("ours", None):
        result |= {f"ratio_vs_{name}": round(ours.per_s / one.per_s, 1) for name, one in found.items()}
        result |= {"refreshes_per_s": round(ours.per_s), "cpu_us_per_refresh": round(ours.cpu_us)}
        result |= {"bare_cpu_us": round(floor), "ratio_vs_bare": round(ours.cpu_us / floor, 2)}
        result |= {"pg_cpu_us_per_refresh": round(ours.pg_cpu_us), "wal_bytes_per_refresh": round(ours.wal_bytes)}
    if "claim" in only:
        databases = Databases(os.environ["DATABASE_URL"])
        result["claim_p50_ratio_1m_vs_10k"] = claim_p50_ratio(databases, say)
    return result


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=2000, help="providers due at once")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="ours, prefork, threads, claim; comma-separated")
    result = run(parser.parse_args())
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()

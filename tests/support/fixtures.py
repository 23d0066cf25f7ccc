"""Fixtures of the servers: databases, Redis, the runtime and the sandbox. Nothing starts before a test asks for it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import pytest
import redis as redis_client
from sqlalchemy import Engine, create_engine
from sqlalchemy.orm import Session

from tests.factories import make_linked_provider
from tests.support import databases as dbs
from tests.support.databases import Databases
from tests.support.providers import REFRESHED_KEY
from tests.support.sandbox import SandboxAdmin, SandboxProcess
from tests.support.servers import session_servers
from tests.support.tracing import untraced
from worker.crud.database import make_engine
from worker.devstack import Urls
from worker.integrations.kit.integration import Integration
from worker.models import User
from worker.settings import Settings, get_settings, load

# Databases -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def servers() -> Iterator[Urls]:
    """Addresses of the session's private Postgres and Redis."""
    with session_servers() as urls:
        yield urls


@pytest.fixture(scope="session")
def databases(servers: Urls) -> Iterator[Databases]:
    """Makes databases for tests that need one of their own."""
    made = Databases(servers.database_url)
    yield made
    made.drop_all()


@pytest.fixture(scope="session")
def rollback_engine(databases: Databases) -> Iterator[Engine]:
    """Engine on the database whose tests never commit for real: `db`, `db_session`, `test_user`."""
    engine = create_engine(databases.clone("rollback"))
    yield engine
    engine.dispose()


@pytest.fixture(scope="module")  # a transaction that is open holds up the change feeds of the whole server
def db(rollback_engine: Engine) -> Iterator[Session]:
    """One session for the tests of a module, rolled back at their end."""
    yield from _joined_session(rollback_engine)


@pytest.fixture
def db_session(rollback_engine: Engine) -> Iterator[Session]:
    """A session rolled back after the test. Code under test may commit: that only releases a savepoint."""
    yield from _joined_session(rollback_engine)


def _joined_session(engine: Engine) -> Iterator[Session]:
    with engine.connect() as connection:
        outer = connection.begin()
        with Session(connection, join_transaction_mode="create_savepoint", expire_on_commit=False) as session:
            yield session
        outer.rollback()


@pytest.fixture(scope="session")
def test_user(rollback_engine: Engine) -> User:
    """A user that `db` and `db_session` both see."""
    with Session(rollback_engine, expire_on_commit=False) as session, session.begin():
        user = User(email="test.user@example.com")
        session.add(user)
    return user


@pytest.fixture(scope="session")
def database_url(databases: Databases) -> str:
    """Address of the database that workers and `runtime` commit to; use `engine`, which empties it afterwards."""
    return databases.clone("committed")


@pytest.fixture(scope="session")
def _session_engine(database_url: str) -> Iterator[Engine]:
    # One for all tests: connections and compiled statements cost more than what most tests do with them.
    engine = make_engine(database_url, connections=32)
    yield engine
    engine.dispose()


@pytest.fixture
def engine(_session_engine: Engine) -> Iterator[Engine]:
    """Engine on a database where tests commit for real; emptied after the test."""
    yield _session_engine
    dbs.empty(_session_engine)


# Redis ---------------------------------------------------------------------------------------------------------------


# Workers take what lies in their queues: each kind of test has a logical database of its own.
NO_WORKER, SESSION_WORKER, OWN_WORKERS = 0, 1, 2


def redis_database(servers: Urls, number: int) -> str:
    """Address of one logical database of the session's Redis."""
    return urlsplit(servers.redis_url)._replace(path=f"/{number}").geturl()


@pytest.fixture
def redis_url(servers: Urls, request: pytest.FixtureRequest) -> str:
    """Address of the session's Redis, as the workers of this test have it, or where there is none."""
    number = NO_WORKER
    if "session_worker" in request.fixturenames:
        number = SESSION_WORKER
    elif "start_worker" in request.fixturenames:
        number = OWN_WORKERS
    return redis_database(servers, number)


@pytest.fixture(scope="session")
def _redis_clients(servers: Urls) -> Iterator[dict[str, redis_client.Redis]]:
    with ExitStack() as closing:
        yield {
            url: closing.enter_context(redis_client.Redis.from_url(url, decode_responses=True))
            for url in (redis_database(servers, number) for number in (NO_WORKER, SESSION_WORKER, OWN_WORKERS))
        }


@pytest.fixture
def redis(_redis_clients: dict[str, redis_client.Redis], redis_url: str) -> Iterator[redis_client.Redis]:
    """A client of the session's Redis, which is emptied before and after the test."""
    client = _redis_clients[redis_url]
    _empty_redis(client)
    yield client
    _empty_redis(client)


@untraced()
def _empty_redis(client: redis_client.Redis) -> None:
    # Running workers make their mailboxes for remote control once, at their start.
    keys = [key for key in client.scan_iter(count=1000) if not str(key).startswith("_kombu.binding.")]
    if keys:
        client.delete(*keys)


# Sandbox -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def sandbox_process() -> Iterator[SandboxProcess]:
    """The stand-in provider APIs in a process of their own."""
    with SandboxProcess() as process:
        yield process


@pytest.fixture(scope="session")
def _sandbox_admin(sandbox_process: SandboxProcess) -> Iterator[SandboxAdmin]:
    with sandbox_process.admin() as admin:
        yield admin


@pytest.fixture
def sandbox(_sandbox_admin: SandboxAdmin) -> Iterator[SandboxAdmin]:
    """The sandbox's switches, as at its start."""
    with untraced():
        _sandbox_admin.reset()
    yield _sandbox_admin
    with untraced():
        _sandbox_admin.reset()


# Runtime -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def server_environment(servers: Urls, database_url: str, sandbox_process: SandboxProcess) -> dict[str, str]:
    """Variables that make a process work on the session's servers and the sandbox."""
    return {
        "DATABASE_URL": database_url,
        "READONLY_DATABASE_URL": database_url,
        "REDIS_URL": redis_database(servers, NO_WORKER),
        **sandbox_process.variables(),
    }


@pytest.fixture
def process_environment(server_environment: dict[str, str], redis_url: str) -> dict[str, str]:
    """The same, with the Redis database of this test."""
    return server_environment | {"REDIS_URL": redis_url}


_read: dict[str, Settings] = {}


@pytest.fixture
def settings(process_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """Settings of this process on the session's servers, as its environment has them too."""
    for name, value in process_environment.items():
        monkeypatch.setenv(name, value)
    get_settings.cache_clear()
    url = process_environment["REDIS_URL"]  # all that differs between tests; reading them anew takes 15 ms
    with monkeypatch.context() as patched:
        if url in _read:
            patched.setattr("worker.settings.load", lambda _: _read[url])
        _read[url] = get_settings()
    yield _read[url]
    get_settings.cache_clear()


MakeRuntime = Callable[..., Any]


@pytest.fixture
def make_runtime(settings: Settings, engine: Engine, redis: redis_client.Redis) -> Iterator[MakeRuntime]:
    """Makes runtimes: `make_runtime(integrations={...}, lease_seconds=2)`; they are closed after the test.

    Without `integrations` it talks to the sandbox. Leases may last milliseconds: whether `durations` fit the settings'
    others is not asked.
    """
    durations = {"lease_seconds", "http_total_seconds", "run_dead_seconds"}
    from worker.runtime import Runtime

    with ExitStack() as closing:

        def make(*, integrations: dict[str, Integration] | None = None, **overrides: Any) -> Runtime:
            values = {name: value for name, value in overrides.items() if name not in durations}
            of_test = load(Settings, **values) if values else settings
            of_test = of_test.model_copy(update={name: overrides[name] for name in durations & overrides.keys()})
            lent = engine if of_test.database_url == settings.database_url else None
            made = Runtime(of_test, engine=lent, integrations=integrations)
            closing.callback(made.close)
            return made

        yield make
    shutil.rmtree(settings.home / "spool", ignore_errors=True)  # the journal's, as Redis is emptied


@pytest.fixture
def runtime(make_runtime: MakeRuntime) -> Iterator[Any]:
    """The process's runtime on the test database, with the enabled integrations talking to the sandbox."""
    from worker.runtime import use_runtime

    with use_runtime(make_runtime()) as current:
        yield current


LinkedProvider = tuple[UUID, str]


@pytest.fixture
def refreshed_login(runtime: Any, sandbox: SandboxAdmin) -> LinkedProvider:
    """A login whose tokens rotate, linked, with its refresh and its sync due: its provider's id, and its own name."""
    login = sandbox.logins(REFRESHED_KEY)[0]
    minted = sandbox.mint(login)[0]
    with runtime.transaction() as session:
        provider = make_linked_provider(
            session,
            runtime.encryption,
            provider_key=REFRESHED_KEY,
            alias=login,
            access_token=minted.access_token,
            refresh_token=minted.refresh_token,
            lifetime=timedelta(minutes=30),
            issued_at=datetime.now(UTC) - timedelta(minutes=28),
        )
        return provider.id, login

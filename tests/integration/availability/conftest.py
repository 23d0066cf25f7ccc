"""Runtimes whose integrations answer nothing, on the session's Postgres and Redis."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import pytest
from sqlalchemy import Engine

from tests.support.bare_integrations import bare_integration
from tests.support.fixtures import MakeRuntime
from tests.support.proxy import Proxy
from worker.crud.database import make_engine
from worker.models import new_id
from worker.runtime import Runtime
from worker.settings.database import DatabaseLimits

SOON = DatabaseLimits(
    database_connect_seconds=0.3,
    database_lock_seconds=0.2,
    database_statement_seconds=0.4,
    database_step_seconds=0.8,
)
"""So short that a test may wait for a Postgres that says nothing."""

MakeQuiet = Callable[..., Runtime]


@pytest.fixture
def make_quiet(make_runtime: MakeRuntime) -> MakeQuiet:
    """Makes runtimes with a stand-in for Schwab: `make_quiet(quotas=(…), breaker_failures=3)`."""

    def make(*, quotas: tuple[Any, ...] = (), **overrides: Any) -> Runtime:
        made: Runtime = make_runtime(integrations={"schwab": bare_integration(quotas=quotas)}, **overrides)
        return made

    return make


@pytest.fixture
def quiet(make_quiet: MakeQuiet) -> Runtime:
    """A runtime with a stand-in for Schwab, without quotas."""
    return make_quiet()


@pytest.fixture
def new_ids() -> list[UUID]:
    """Ids of logins."""
    return [new_id() for _ in range(5)]


@pytest.fixture
def run_at_once() -> Callable[..., None]:
    """Calls functions in threads of their own and waits for all; the first error is raised."""

    def run(*functions: Callable[[], None]) -> None:
        with ThreadPoolExecutor(len(functions)) as pool:
            for future in [pool.submit(function) for function in functions]:
                future.result()

    return run


@pytest.fixture
def proxy(database_url: str) -> Iterator[Proxy]:
    """Stands before Postgres."""
    port = urlsplit(database_url).port
    assert port is not None
    made = Proxy(lambda: port)
    made.start()
    yield made
    made.stop()


@pytest.fixture
def url(proxy: Proxy, database_url: str) -> str:
    """Of Postgres behind the proxy."""
    parts = urlsplit(database_url)
    return parts._replace(netloc=f"{parts.netloc.rpartition('@')[0]}@127.0.0.1:{proxy.port}").geturl()


@pytest.fixture
def impatient(url: str) -> Iterator[Engine]:
    """An engine behind the proxy that waits `SOON`."""
    engine = make_engine(url, connections=2, limits=SOON)
    yield engine
    engine.dispose()


@pytest.fixture
def own_runtime(runtime: Runtime, impatient: Engine) -> Iterator[Runtime]:
    """A runtime on that engine."""
    settings = runtime.settings.model_copy(update={**dict(SOON), "database_threads": 2})
    made = Runtime(settings, engine=impatient, integrations={})
    yield made
    made.close()

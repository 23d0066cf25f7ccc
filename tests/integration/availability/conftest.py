"""Runtimes whose integrations answer nothing, on the session's Postgres and Redis."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any
from uuid import UUID

import pytest
import redis as redis_client
from sqlalchemy import Engine

from tests.support.stand_ins import stand_in
from worker.models import new_id
from worker.runtime import Runtime
from worker.settings import Settings, load

MakeQuiet = Callable[..., Runtime]


@pytest.fixture
def make_quiet(database_url: str, redis_url: str, engine: Engine, redis: redis_client.Redis) -> Iterator[MakeQuiet]:
    """Makes runtimes with a stand-in for Schwab: `make_quiet(quotas=(…), breaker_failures=3)`."""
    with ExitStack() as closing:

        def make(*, quotas: tuple[Any, ...] = (), **overrides: Any) -> Runtime:
            values = {"database_url": database_url, "redis_url": redis_url} | overrides
            settings = load(Settings, **values)
            lent = engine if settings.database_url.get_secret_value() == database_url else None
            made = Runtime(settings, engine=lent, integrations={"schwab": stand_in(quotas=quotas)})
            closing.callback(made.close)
            return made

        yield make


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

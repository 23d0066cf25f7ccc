"""Runtimes whose integrations answer nothing, on the session's Postgres and Redis."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import pytest

from tests.support.bare_integrations import bare_integration
from tests.support.fixtures import MakeRuntime
from worker.models import new_id
from worker.runtime import Runtime

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

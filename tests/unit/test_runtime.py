"""The composition root: made once per process, closed once, never inherited over a fork."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from worker import runtime as module
from worker.errors import ConfigurationError, Unavailable
from worker.integrations.base import Integration
from worker.runtime import Runtime, close_runtime, forget_runtime, get_runtime, use_runtime
from worker.settings import Settings, get_settings, load


@pytest.fixture(autouse=True)
def own_process() -> Iterator[None]:
    """As in a process that has no runtime yet."""
    forget_runtime()
    yield
    close_runtime()


@pytest.fixture
def runtime() -> Iterator[Runtime]:
    made = Runtime(load(Settings), integrations={})
    yield made
    made.close()


def test_process_has_one_runtime() -> None:
    assert get_runtime() is get_runtime()


def test_forked_process_makes_its_own() -> None:
    inherited = get_runtime()

    forget_runtime()

    assert get_runtime() is not inherited
    assert get_runtime().owner != inherited.owner
    inherited.close()


def test_closing_twice_is_harmless() -> None:
    get_runtime()

    close_runtime()
    close_runtime()

    assert module._current is None


def test_incomplete_settings_refuse_a_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ENCRYPTION_KEYS")
    get_settings.cache_clear()

    with pytest.raises(ConfigurationError, match="ENCRYPTION_KEYS"):
        get_runtime()


def test_other_runtime_is_used_for_a_while(runtime: Runtime) -> None:
    with use_runtime(runtime):
        assert get_runtime() is runtime

    assert get_runtime() is not runtime


def test_event_loop_stays_the_same_between_tasks(runtime: Runtime) -> None:
    async def loop() -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    assert runtime.run(loop()) is runtime.run(loop())


def test_unreachable_postgres_is_told_in_our_words(runtime: Runtime) -> None:
    async def ask() -> None:
        await runtime.db(lambda session: session.connection())

    with pytest.raises(Unavailable, match="Postgres"):
        runtime.run(ask())


def test_time_is_never_behind_the_database_s_however_late_its_answer_comes(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monotonic, there = 100.0, datetime(2025, 3, 14, 15, 0, tzinfo=UTC)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: monotonic))

    async def answer_late(_: object) -> datetime:
        nonlocal monotonic
        monotonic += 3
        return there

    monkeypatch.setattr(runtime, "db", answer_late)

    assert runtime.run(runtime.now()) == there + timedelta(seconds=3)
    monotonic += 5
    assert runtime.run(runtime.now()) == there + timedelta(seconds=8)


def test_clients_are_closed_with_the_runtime() -> None:
    class Client:
        closed = False

        async def aclose(self) -> None:
            self.closed = True

    client = Client()
    integrations: dict[str, Integration] = {"schwab": client}  # type: ignore[dict-item]

    Runtime(load(Settings), integrations=integrations).close()

    assert client.closed

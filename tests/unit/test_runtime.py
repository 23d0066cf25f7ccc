"""The composition root: made once per process, closed once, never inherited over a fork."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from worker import runtime as module
from worker.crud import database
from worker.errors import ConfigurationError, Unavailable
from worker.integrations.kit.integration import Integration
from worker.runtime import Runtime, close_runtime, forget_runtime, get_runtime, tune_interpreter, use_runtime
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


@pytest.mark.deep
def test_forked_process_makes_its_own() -> None:
    inherited = get_runtime()

    forget_runtime()

    assert get_runtime() is not inherited
    assert get_runtime().owner != inherited.owner
    inherited.close()


@pytest.mark.deep
def test_collector_does_not_look_through_what_the_process_is_made_of_and_threads_switch_often() -> None:
    before, switching = gc.get_threshold(), sys.getswitchinterval()
    looked_through, frozen = len(gc.get_objects()), gc.get_freeze_count()
    try:
        tune_interpreter()

        # Not one object by name: a collection that another thread is in the middle of takes its objects back.
        assert gc.get_freeze_count() - frozen > looked_through / 2
        assert gc.get_threshold()[0] > 10_000
        assert sys.getswitchinterval() < 0.001
    finally:
        sys.setswitchinterval(switching)
        gc.set_threshold(*before)
        gc.unfreeze()


@pytest.mark.deep
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


@pytest.mark.deep
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


class Clocks:
    """The database's clock and ours; each reading takes the next of `readings` seconds, and is taken at its end."""

    def __init__(self, runtime: Runtime, monkeypatch: pytest.MonkeyPatch, *readings: float) -> None:
        self.elapsed = 0.0
        self._readings = list(readings)
        monkeypatch.setattr(database, "elapsed", lambda: 100 + self.elapsed)
        monkeypatch.setattr(database, "now", self._read)
        monkeypatch.setattr(runtime.database, "step", self._step)

    def there(self) -> datetime:
        return datetime(2025, 3, 14, 15, 0, tzinfo=UTC) + timedelta(seconds=self.elapsed)

    def _read(self, _: object) -> datetime:
        self.elapsed += self._readings.pop(0)
        return self.there()

    async def _step(self, step: Callable[[Any], Any]) -> Any:
        self.elapsed += 7  # until a connection is free
        read = step(SimpleNamespace(connection=lambda: None))
        self.elapsed += 3  # until the event loop has time
        return read


def test_time_is_the_database_s_however_late_its_answer_reaches_us(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    clocks = Clocks(runtime, monkeypatch, 0.01)

    first = runtime.run(runtime.now()) - clocks.there()
    clocks.elapsed += 5
    later = runtime.run(runtime.now()) - clocks.there()

    assert timedelta() <= first == later <= timedelta(seconds=0.011)


@pytest.mark.deep
def test_time_that_was_read_while_the_process_was_held_up_is_read_anew(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    clocks = Clocks(runtime, monkeypatch, 4.0, 1.0, 0.01)

    assert timedelta() <= runtime.run(runtime.now()) - clocks.there() <= timedelta(seconds=0.011)


def test_time_is_not_read_for_ever(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    clocks = Clocks(runtime, monkeypatch, *[1.0] * 5)

    assert runtime.run(runtime.now()) >= clocks.there()


@pytest.mark.deep
def test_clients_are_closed_with_the_runtime() -> None:
    class Client:
        closed = False

        async def aclose(self) -> None:
            self.closed = True

    client = Client()
    integrations: dict[str, Integration] = {"schwab": client}  # type: ignore[dict-item]

    Runtime(load(Settings), integrations=integrations).close()

    assert client.closed

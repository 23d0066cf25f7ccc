"""Processes that refresh one provider, to race each other, to be stopped and to be killed.

They come from a fork server that has everything imported, so that one costs some ten milliseconds.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from multiprocessing.context import ForkServerProcess
from multiprocessing.synchronize import Barrier
from typing import Any
from uuid import UUID

from tests.support.forked import fork_server


def start(environment: Mapping[str, str], provider_id: UUID, **options: Any) -> ForkServerProcess:
    """A process that refreshes one provider once and ends with 0."""
    process = fork_server().Process(target=_refresh, args=(dict(environment), str(provider_id), options), daemon=True)
    process.start()
    return process


def race(
    environment: Mapping[str, str], provider_id: UUID, *, processes: int, rounds: int, seconds: float
) -> list[list[tuple[int, str]]]:
    """All processes ask for the access token at once, each round with the generation before refused.

    Returns:
        For each round, what each process got: the generation, and "" or its error.
    """
    own = fork_server()
    line, results = own.Barrier(processes), own.Queue()
    racers = [
        own.Process(target=_race, args=(dict(environment), str(provider_id), rounds, line, results), daemon=True)
        for _ in range(processes)
    ]
    for racer in racers:
        racer.start()
    found: list[list[tuple[int, str]]] = [[] for _ in range(rounds)]
    try:
        for _ in range(processes * rounds):
            number, generation, error = results.get(timeout=seconds)
            found[number].append((generation, error))
    finally:
        for racer in racers:
            racer.join(10)
            racer.kill()
    return found


def _runtime(environment: Mapping[str, str]) -> Any:
    os.environ.update(environment)
    from worker.runtime import Runtime
    from worker.settings import Settings, load
    from worker.telemetry.log import configure_logging

    settings = load(Settings)
    configure_logging(settings)
    return Runtime(settings)


def _refresh(environment: Mapping[str, str], provider_id: str, options: dict[str, Any]) -> None:
    from worker.services.refresh import protocol as tokens

    runtime = _runtime(environment)
    runtime.run(tokens.refresh_providers(runtime, [UUID(provider_id)], **options))
    runtime.close()


def _race(environment: Mapping[str, str], provider_id: str, rounds: int, line: Barrier, results: Any) -> None:
    from worker.errors import DashtamError
    from worker.integrations.kit.base import Caller
    from worker.services.refresh.access_token import access_token

    runtime = _runtime(environment)
    id_, generation = UUID(provider_id), 1
    for number in range(rounds):
        line.wait(120)
        try:
            token = runtime.run(access_token(runtime, id_, caller=Caller(), stale_generation=generation))
            generation = token.generation
            results.put((number, generation, ""))
        except DashtamError as error:
            results.put((number, generation, repr(error)))
    runtime.close()

"""The same four calls as an idle sync makes, through the product's HTTP client, and nothing else.

    python -m tests.benchmarks.idle_floor PROFILE PROVIDER_ID…

It is a process of its own, with its environment from `bench_idle`. The last line is the CPU in milliseconds per login.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

from worker.crud.sync import cursors
from worker.integrations.kit.base import Caller, SyncRequest
from worker.integrations.registry import build_integrations
from worker.runtime import Runtime, tune_interpreter
from worker.services.refresh.access_token import access_token
from worker.settings import Settings, load

IN_FLIGHT = 32
Call = Callable[[], Awaitable[Any]]


class _Kept:
    """Stands in for an integration's `Api.read`: makes the call, and keeps it so that it can be made again."""

    def __init__(self, api: Any, calls: list[Call]) -> None:
        self._read, self._calls = api.read, calls

    async def read(self, *positional: Any, **named: Any) -> Any:
        self._calls.append(lambda: self._read(*positional, **named))
        return await self._read(*positional, **named)


async def _calls_of(runtime: Runtime, profile: str, provider_id: UUID) -> list[Call]:
    """One idle reading of a login: its calls, in order."""
    caller = Caller(provider_id)
    token = await access_token(runtime, provider_id, caller=caller)
    stored = await runtime.db(cursors.read_cursors, provider_id=provider_id)
    request = SyncRequest(caller=caller, access_token=token.value, cursors=stored, now=await runtime.now())
    calls: list[Call] = []
    integration = runtime.integrations[profile]
    real, kept = integration.api.read, _Kept(integration.api, calls)
    integration.api.read = kept.read  # type: ignore[method-assign]
    try:
        async for _ in integration.pages(request):
            pass
    finally:
        integration.api.read = real  # type: ignore[method-assign]
    return calls


async def _measure(runtime: Runtime, profile: str, ids: list[UUID]) -> float:
    made = [await _calls_of(runtime, profile, id_) for id_ in ids]
    places = asyncio.Semaphore(IN_FLIGHT)

    async def ask(calls: list[Call]) -> None:
        async with places:
            for call in calls:
                await call()

    await asyncio.gather(*(ask(calls) for calls in made))  # opens the connections
    began = time.process_time()
    await asyncio.gather(*(ask(calls) for calls in made))
    return (time.process_time() - began) / len(made) * 1000


def main(profile: str, *ids: str) -> None:
    tune_interpreter()  # as in a worker
    settings = load(Settings)
    runtime = Runtime(settings, integrations=build_integrations((profile,), settings, gate=None))
    milliseconds = runtime.run(_measure(runtime, profile, [UUID(id_) for id_ in ids]))
    runtime.close()
    sys.stdout.write(f"{milliseconds:.3f}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])

"""A look at servers, processes and the whole fleet, shared by all who watch the status page of one process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from worker.errors import Unavailable
from worker.models.fleet import Broker
from worker.process.clocks import elapsed
from worker.services import health
from worker.services.context import Context
from worker.services.findings import Finding, require
from worker.services.fleet import looking
from worker.services.transport import Transport

_KEPT_SECONDS = 2.0
_WORKER_SECONDS = 0.5


class Asked(Transport, Protocol):
    """Asks the broker and the workers once, however often it is read."""

    def broker(self) -> Broker:
        """Length of each queue, and names of the workers that answered."""
        ...


class Watchtower(Transport, Protocol):
    """How to reach the broker and the workers."""

    @property
    def AskedOnce(self) -> Callable[..., Asked]:  # noqa: N802 - a class of `worker.tasks.send`
        """Makes a transport that asks once and waits `seconds` for the workers' answers."""
        ...


@dataclass(frozen=True, slots=True)
class Glance:
    """What was seen.

    Attributes:
        troubles: problems that stop work, the root cause first, as `dashtam status` shows them.
        status: what `dashtam status --json` shows.
    """

    at: datetime
    troubles: list[Finding]
    status: dict[str, Any]


class Lookout:
    """Looks at most once in two seconds, however many ask: workers take half a second to answer.

    Args:
        runtime: the process's context.
        transport: reaches the broker.
    """

    def __init__(self, runtime: Context, transport: Watchtower) -> None:
        self._runtime = runtime
        self._transport = transport
        self._lock = asyncio.Lock()
        self._seen: Glance | Unavailable = Unavailable("nothing was looked at yet")
        self._seen_at = float("-inf")

    async def look(self) -> Glance:
        """What is so now, or was two seconds ago.

        Raises:
            Unavailable: Postgres is out of reach.
        """
        async with self._lock:
            if elapsed() - self._seen_at > _KEPT_SECONDS:
                try:
                    self._seen = await self._look()
                except Unavailable as error:  # kept too, so that not each of many waits for a Postgres that is away
                    self._seen = error
                self._seen_at = elapsed()
        if isinstance(self._seen, Glance):
            return self._seen
        raise self._seen

    async def _look(self) -> Glance:
        runtime, transport = self._runtime, self._transport.AskedOnce(seconds=_WORKER_SECONDS)
        troubles = await health.troubles(runtime, transport)
        require("postgres", troubles)
        now, broker = await runtime.now(), await asyncio.to_thread(transport.broker)
        return Glance(now, troubles, await looking.status(runtime, now=now, broker=broker, troubles=troubles))

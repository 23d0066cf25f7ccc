"""Tells the workers that hooks have made work due, so that nobody waits for the next tick."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from worker.errors import Unavailable
from worker.integrations.kit.hooks import Ask
from worker.process.logger import Logger
from worker.services.fleet.asking import Send

log = Logger(__name__)

TASKS = {
    Ask.SYNC: "worker.tasks.accounts.dispatch_syncs",
    Ask.CHECK: "worker.tasks.accounts.dispatch_checks",
}
_LATER_S = 0.2
"""Rings a little after the work is due: the clocks of two machines are never equal."""


class Bell:
    """Sends one message for all hooks that come within a few seconds. A message that is lost costs only a tick.

    Args:
        send: sends a task to the workers.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self._waiting: dict[Ask, asyncio.TimerHandle] = {}
        self._last: dict[Ask, float] = {}
        self._sending: set[asyncio.Future[None]] = set()

    def ring(self, asks: frozenset[Ask], *, after_s: float) -> None:
        """Rings when work is due that becomes due after so many seconds; checks are due at once."""
        loop = asyncio.get_running_loop()
        for ask in asks:
            at = loop.time() + _LATER_S + (after_s if ask is Ask.SYNC else 0.0)
            self._last[ask] = max(self._last.get(ask, at), at)
            if ask not in self._waiting:
                self._waiting[ask] = loop.call_at(at, self._ring, ask)

    def _ring(self, ask: Ask) -> None:
        loop = asyncio.get_running_loop()
        del self._waiting[ask]
        if self._last[ask] > loop.time() + _LATER_S:  # some of it is due only later
            self._waiting[ask] = loop.call_at(self._last[ask], self._ring, ask)
        sent = asyncio.ensure_future(asyncio.to_thread(_sent, self._send, TASKS[ask]))
        self._sending.add(sent)
        sent.add_done_callback(self._sending.discard)

    async def aclose(self) -> None:
        """Forgets what has not rung, and waits for what is being sent."""
        for handle in self._waiting.values():
            handle.cancel()
        self._waiting.clear()
        await asyncio.gather(*self._sending, return_exceptions=True)


def _sent(send: Callable[[str], object], task: str) -> None:
    try:
        send(task)
    except Unavailable as error:
        log.warning("bell_not_rung", error=str(error), next="the next tick dispatches what is due")

"""Delivers the hooks of all stand-ins: posts them, tries again, and behaves as badly as a test asks for."""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import msgspec

_SECONDS = 10.0
_KEPT = 2000
_GROWTH = 4
_SHUFFLED_WITHIN = 1.0
_AT_ONCE = 50


class Manner(msgspec.Struct, forbid_unknown_fields=True):
    """How hooks are delivered. The defaults are a provider in good order.

    Attributes:
        lose: Share of the hooks that are never sent, from 0 to 1.
        double: Share of the hooks that are sent twice.
        delay_seconds: How long each hook waits before it is sent.
        reorder: Each hook waits a random time, so that they arrive in another order.
        retry_seconds: How long after a failed delivery it is tried again; each wait is four times the one before.
        tries: How often one hook is tried.
    """

    lose: float = 0.0
    double: float = 0.0
    delay_seconds: float = 0.0
    reorder: bool = False
    retry_seconds: float = 30.0
    tries: int = 6


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One hook.

    Attributes:
        kind: The provider's own words for it.
        sign: Makes the headers that sign the body; called anew for each try.
    """

    login: str
    kind: str
    url: str
    body: bytes
    sign: Callable[[], Mapping[str, str]]


@dataclass(slots=True)
class Delivered:
    """What became of one hook; `status` is that of the last answer, 0 if there was none."""

    login: str
    kind: str
    at: float
    tries: int = 0
    status: int = 0
    outcome: str = "waiting"


class Outbox:
    """The hooks that are on their way, and what became of the others.

    Args:
        seed: Decides which hooks are lost, doubled and delayed.
        is_allowed: Whether hooks may be sent to this host; the sandbox sends nothing to other machines.
    """

    def __init__(self, seed: int, is_allowed: Callable[[str], bool]) -> None:
        self.manner = Manner()
        self._random = random.Random(f"{seed}/hooks")  # noqa: S311 - chances that must repeat
        self._is_allowed = is_allowed
        self._log: deque[Delivered] = deque(maxlen=_KEPT)
        self._tasks: set[asyncio.Task[None]] = set()
        self._session: aiohttp.ClientSession | None = None
        self._room = asyncio.Semaphore(_AT_ONCE)

    def post(self, hook: Outgoing) -> None:
        """Sends a hook later, in the running event loop; where none runs, nothing is sent."""
        entry = Delivered(hook.login, hook.kind, time.time())
        self._log.append(entry)
        if not self._is_allowed(urlsplit(hook.url).hostname or ""):
            entry.outcome = "not sent: the address is on another machine"
            return
        if self._random.random() < self.manner.lose:
            entry.outcome = "lost"
            return
        copies = 2 if self._random.random() < self.manner.double else 1
        for _ in range(copies):
            wait = self.manner.delay_seconds
            if self.manner.reorder:
                wait = self._random.uniform(0, max(wait, _SHUFFLED_WITHIN))
            self._start(hook, entry, wait)

    def _start(self, hook: Outgoing, entry: Delivered, wait: float) -> None:
        try:
            task = asyncio.get_running_loop().create_task(self._deliver(hook, entry, wait))
        except RuntimeError:
            entry.outcome = "not sent: no event loop"
            return
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _deliver(self, hook: Outgoing, entry: Delivered, wait: float) -> None:
        manner = self.manner
        await asyncio.sleep(wait)
        for number in range(manner.tries):
            if number:
                await asyncio.sleep(manner.retry_seconds * _GROWTH ** (number - 1))
            entry.tries += 1
            async with self._room:
                entry.status = await self._send(hook)
            if entry.status == 200:
                entry.outcome = "delivered"
                return
        entry.outcome = "given up"

    async def _send(self, hook: Outgoing) -> int:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=_SECONDS), connector=aiohttp.TCPConnector(limit=_AT_ONCE)
            )
        headers = {"content-type": "application/json", **hook.sign()}
        try:
            async with self._session.post(hook.url, data=hook.body, headers=headers, allow_redirects=False) as answer:
                return answer.status
        except (aiohttp.ClientError, OSError, TimeoutError):
            return 0

    def configure(self, given: dict[str, Any]) -> Manner:
        """Changes the given members of the manner. Raises ValidationError for a wrong one."""
        self.manner = msgspec.convert(msgspec.to_builtins(self.manner) | given, Manner)
        return self.manner

    def told(self) -> list[dict[str, Any]]:
        """What became of the newest hooks, oldest first."""
        return [asdict(entry) for entry in self._log]

    def close(self) -> None:
        """Forgets what is on its way."""
        for task in self._tasks:
            task.cancel()
        session, self._session = self._session, None
        if session is not None and not session.closed:
            closing = asyncio.get_running_loop().create_task(session.close())
            self._tasks.add(closing)
            closing.add_done_callback(self._tasks.discard)

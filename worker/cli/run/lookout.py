"""What the live table shows, looked up in a thread of its own: a server that says nothing must not stop the table."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Self

from worker.cli.run.demo import Demo, Story
from worker.errors import Unavailable
from worker.runtime import Runtime
from worker.services import health
from worker.services.findings import Finding
from worker.services.health import Transport

_PAUSE_SECONDS = 1.0
_START_SECONDS = 30.0
_END_SECONDS = 10.0
_PROCESSES = frozenset({"workers", "beat"})


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen last.

    Attributes:
        stories: as they were when Postgres last told them.
        read_at: when that was; None before the first time.
        troubles: what keeps work from being done, the true cause first.
    """

    stories: Sequence[Story] = ()
    read_at: datetime | None = None
    troubles: Sequence[Finding] = ()


class Lookout:
    """Looks about once a second for as long as its block lasts.

    Args:
        demo: whose stories are told.
        make_runtime: makes the thread's own runtime.
        transport: how Redis and the workers are asked.

    Attributes:
        seen: what was seen last.
        has_come_up: all was well once, or should have been by now; from then on workers that are away are told.
    """

    def __init__(self, demo: Demo, make_runtime: Callable[[], Runtime], transport: Transport) -> None:
        self.seen = Seen()
        self._demo = demo
        self._make_runtime = make_runtime
        self._transport = transport
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look_on, name="lookout", daemon=True)
        self._began = time.monotonic()
        self.has_come_up = False

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(_END_SECONDS)

    def _look_on(self) -> None:
        with closing(self._make_runtime()) as runtime:
            while not self._ended.wait(_PAUSE_SECONDS):
                self.look(runtime)

    def look(self, runtime: Runtime) -> None:
        """Looks once. Troubles first: the stories may have to be waited for."""
        self.seen = replace(self.seen, troubles=self._troubles(runtime))
        if any(trouble.check == "postgres" for trouble in self.seen.troubles) or not self._demo.is_linked:
            return
        try:
            stories = self._demo.stories(counts=False, runtime=runtime)
        except Unavailable:  # the next look says why
            return
        self.seen = replace(self.seen, stories=stories, read_at=datetime.now(UTC))

    def _troubles(self, runtime: Runtime) -> list[Finding]:
        """Processes that are only just starting are no trouble."""
        found = runtime.run(health.troubles(runtime, self._transport))
        if self.has_come_up:
            return found
        others = [finding for finding in found if finding.check not in _PROCESSES]
        self.has_come_up = not found or time.monotonic() - self._began > _START_SECONDS
        return others

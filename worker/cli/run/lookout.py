"""Reads the data for the live table in its own thread, so that a server that does not answer cannot stop the table."""

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
from worker.services.transport import Transport

_PAUSE_SECONDS = 1.0
_START_SECONDS = 30.0
_END_SECONDS = 10.0
_PROCESSES = frozenset({"workers", "beat"})


@dataclass(frozen=True, slots=True)
class Seen:
    """The data that was read last.

    Attributes:
        stories: the stories that were last read from Postgres.
        read_at: when they were read; None before the first time.
        troubles: the troubles that stop work, the root cause first.
    """

    stories: Sequence[Story] = ()
    read_at: datetime | None = None
    troubles: Sequence[Finding] = ()


class Lookout:
    """Reads the data about once a second until the end of its `with` block.

    Args:
        demo: the demo user's providers.
        make_runtime: makes the thread's own runtime.
        transport: asks Redis and the workers.

    Attributes:
        seen: the data that was read last.
        has_come_up: everything worked once, or enough time has passed for it; from then on, missing workers are shown.
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
        """Reads the data once, the troubles first, because reading the stories may take long."""
        self.seen = replace(self.seen, troubles=self._troubles(runtime))
        if any(trouble.check == "postgres" for trouble in self.seen.troubles) or not self._demo.is_linked:
            return
        try:
            stories = self._demo.stories(counts=False, runtime=runtime)
        except Unavailable:  # the next reading finds the reason
            return
        self.seen = replace(self.seen, stories=stories, read_at=datetime.now(UTC))

    def _troubles(self, runtime: Runtime) -> list[Finding]:
        """The troubles, without those of processes that are still starting."""
        found = runtime.run(health.troubles(runtime, self._transport))
        if self.has_come_up:
            return found
        others = [finding for finding in found if finding.check not in _PROCESSES]
        self.has_come_up = not found or time.monotonic() - self._began > _START_SECONDS
        return others

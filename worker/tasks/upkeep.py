"""Upkeep ticks: warnings, notices, reaping, retention."""

from __future__ import annotations

from datetime import datetime

from worker.runtime import Runtime
from worker.services import upkeep
from worker.services.notices import queue
from worker.tasks.base import tick


@tick("warn-of-expiring-grants")
def warn_of_expiring_grants(runtime: Runtime, now: datetime) -> None:
    """Ends logins whose grant has ended, and warns of those that will."""
    runtime.run(queue.expire_grants(runtime, now))
    since = runtime.run(upkeep.last_beat(runtime, "warn-of-expiring-grants"))
    runtime.run(queue.warn_of_expiring_grants(runtime, now, since=since))


@tick("send-notices")
def send_notices(runtime: Runtime, _: datetime) -> None:
    """Sends the notices that are due."""
    runtime.run(queue.send_notices(runtime))


@tick("reap")
def reap(runtime: Runtime, now: datetime) -> None:
    """Puts what dead workers left back in motion."""
    runtime.run(upkeep.reap(runtime, now))


@tick("retain")
def retain(runtime: Runtime, now: datetime) -> None:
    """Removes what is older than its retention."""
    runtime.run(upkeep.retain(runtime, now))

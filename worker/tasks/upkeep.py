"""Upkeep ticks: warn of ending grants, send notices, clean up after dead workers, delete old rows."""

from __future__ import annotations

from datetime import datetime

from worker.runtime import Runtime
from worker.services import upkeep
from worker.services.hooks import addresses
from worker.services.notices import queue
from worker.services.outbox import sending
from worker.tasks.base import tick


@tick("warn-of-expiring-grants")
def warn_of_expiring_grants(runtime: Runtime, now: datetime) -> None:
    """Marks logins whose grant has ended, and warns the users of those whose grant ends soon."""
    runtime.run(queue.expire_grants(runtime, now))
    since = runtime.run(upkeep.last_beat(runtime, "warn-of-expiring-grants"))
    runtime.run(queue.warn_of_expiring_grants(runtime, now, since=since))


@tick("send-notices")
def send_notices(runtime: Runtime, _: datetime) -> None:
    """Sends the notices that are due."""
    runtime.run(queue.send_notices(runtime))


@tick("send-hooks")
def send_hooks(runtime: Runtime, _: datetime) -> None:
    """Sends the hooks that are due to those who subscribed to them."""
    runtime.run(sending.send_due(runtime))


@tick("reap")
def reap(runtime: Runtime, now: datetime) -> None:
    """Repairs what dead workers left unfinished, so that it is worked on again."""
    runtime.run(upkeep.reap(runtime, now))


@tick("retain")
def retain(runtime: Runtime, now: datetime) -> None:
    """Deletes rows that are older than their retention time, and sets the address for hooks of links without it."""
    runtime.run(upkeep.retain(runtime, now))
    runtime.run(addresses.want_addresses(runtime))

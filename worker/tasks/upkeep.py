"""Upkeep ticks: warnings, notices, reaping, retention."""

from __future__ import annotations

from worker.app import app
from worker.runtime import get_runtime
from worker.services import upkeep
from worker.services.notices import queue
from worker.tasks.base import WorkerTask


@app.task(base=WorkerTask, name="worker.tasks.upkeep.warn_of_expiring_grants")
def warn_of_expiring_grants() -> None:
    """Ends logins whose grant has ended, and warns of those that will."""
    runtime = get_runtime()
    now = runtime.run(runtime.now())
    runtime.run(queue.expire_grants(runtime, now))
    since = runtime.run(upkeep.last_beat(runtime, "warn-of-expiring-grants"))
    runtime.run(queue.warn_of_expiring_grants(runtime, now, since=since))
    runtime.run(upkeep.beat(runtime, "warn-of-expiring-grants", now))


@app.task(base=WorkerTask, name="worker.tasks.upkeep.send_notices")
def send_notices() -> None:
    """Sends the notices that are due."""
    runtime = get_runtime()
    runtime.run(queue.send_notices(runtime))
    runtime.run(upkeep.beat(runtime, "send-notices"))


@app.task(base=WorkerTask, name="worker.tasks.upkeep.reap")
def reap() -> None:
    """Puts what dead workers left back in motion."""
    runtime = get_runtime()
    runtime.run(upkeep.reap(runtime, runtime.run(runtime.now())))
    runtime.run(upkeep.beat(runtime, "reap"))


@app.task(base=WorkerTask, name="worker.tasks.upkeep.retain")
def retain() -> None:
    """Removes what is older than its retention."""
    runtime = get_runtime()
    runtime.run(upkeep.retain(runtime, runtime.run(runtime.now())))
    runtime.run(upkeep.beat(runtime, "retain"))

"""Celery tasks of the token refresh. The work itself is in `worker.services.refresh.protocol`."""

from __future__ import annotations

from datetime import datetime

from schedules import tick_seconds
from worker.app import app
from worker.models.vocabulary import Trigger
from worker.runtime import Runtime, get_runtime
from worker.services.refresh import claims, journal, protocol
from worker.tasks.base import WorkerTask, parse_ids, tick

TICK_SECONDS = tick_seconds("refresh-due")


@tick("refresh-due")
def refresh_due(runtime: Runtime, now: datetime) -> None:
    """Claims the logins whose refresh falls due before the next tick and, after the commit, sends them in batches."""
    tick_s = TICK_SECONDS * runtime.settings.tick_scale
    # A message that waits for its time takes one of the few places that a worker has with RabbitMQ, and holds up the
    # others. So there batches are sent at once, in the order of their times.
    may_wait = runtime.settings.broker_url is None
    batches = runtime.run(claims.claim_refresh_due(runtime, now, tick_s=tick_s))
    for batch in sorted(batches, key=lambda batch: batch.after_s):
        refresh_providers.apply_async(
            args=[[str(id_) for id_ in batch.ids]], countdown=batch.after_s if may_wait and batch.after_s > 0 else None
        )


@app.task(base=WorkerTask, name="worker.tasks.tokens.refresh_providers")
def refresh_providers(ids: list[str], trigger: str = Trigger.SCHEDULE, force: bool = False) -> dict[str, int]:
    """Refreshes a batch; returns how many logins had each outcome."""
    runtime = get_runtime()
    manual = trigger == Trigger.MANUAL
    summary = runtime.run(
        protocol.refresh_providers(runtime, parse_ids(ids), trigger=Trigger(trigger), force=force, manual=manual)
    )
    return summary.counts


@tick("drain-journal")
def drain_journal(runtime: Runtime, _: datetime) -> None:
    """Stores the refresh answers that wait in the journal and in this host's spool."""
    runtime.run(journal.drain(runtime))

"""Tasks of the token refresh; what they do is in `worker.services.refresh.protocol`."""

from __future__ import annotations

from schedules import tokens as schedule
from worker.app import app
from worker.models.vocabulary import Trigger
from worker.runtime import get_runtime
from worker.services import upkeep
from worker.services.refresh import claims, journal, protocol
from worker.tasks.base import WorkerTask, parse_ids


@app.task(base=WorkerTask, name="worker.tasks.tokens.refresh_due")
def refresh_due() -> None:
    """The tick: claims what falls due until the next one and sends it in batches, once the claim is committed."""
    runtime = get_runtime()
    tick_s = schedule.ENTRIES["refresh-due"][1] * runtime.settings.tick_scale
    for batch in runtime.run(claims.claim_refresh_due(runtime, runtime.run(runtime.now()), tick_s=tick_s)):
        refresh_providers.apply_async(
            args=[[str(id_) for id_ in batch.ids]], countdown=batch.after_s if batch.after_s > 0 else None
        )
    runtime.run(upkeep.beat(runtime, "refresh-due"))


@app.task(base=WorkerTask, name="worker.tasks.tokens.refresh_providers")
def refresh_providers(ids: list[str], trigger: str = Trigger.SCHEDULE, force: bool = False) -> dict[str, int]:
    """Refreshes a batch; returns how many ended how."""
    runtime = get_runtime()
    manual = trigger == Trigger.MANUAL
    summary = runtime.run(
        protocol.refresh_providers(runtime, parse_ids(ids), trigger=Trigger(trigger), force=force, manual=manual)
    )
    return summary.counts


@app.task(base=WorkerTask, name="worker.tasks.tokens.drain_journal")
def drain_journal() -> int:
    """Stores answers that had to wait; returns how many."""
    runtime = get_runtime()
    return runtime.run(journal.drain(runtime))

"""Celery tasks of the account sync. The work itself is in `worker.services.sync.batch`."""

from __future__ import annotations

from datetime import date, datetime

from worker.app import app
from worker.models.vocabulary import Trigger
from worker.runtime import Runtime, get_runtime
from worker.services.sync import batch as accounts
from worker.tasks.base import WorkerTask, parse_ids, tick


@tick("sync-due")
def sync_due(runtime: Runtime, now: datetime) -> None:
    """Claims the logins whose sync is due and, when the claim is committed, sends them in batches."""
    for batch in runtime.run(accounts.claim_sync_due(runtime, now)):
        sync_providers.delay([str(id_) for id_ in batch])


@app.task(base=WorkerTask, name="worker.tasks.accounts.sync_providers")
def sync_providers(
    ids: list[str],
    trigger: str = Trigger.SCHEDULE,
    mode: str = "incremental",
    since: str | None = None,
    force: bool = False,
) -> dict[str, int]:
    """Syncs a batch; returns how many logins were synced and how many refused. `since` is an ISO date."""
    runtime = get_runtime()
    summary = runtime.run(
        accounts.sync_providers(
            runtime,
            parse_ids(ids),
            trigger=Trigger(trigger),
            mode=mode,
            since=None if since is None else date.fromisoformat(since),
            force=force,
            hand_back=trigger == Trigger.SCHEDULE,
        )
    )
    return {"synced": len(summary.runs), "refused": len(summary.refused)}

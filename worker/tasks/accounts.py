"""Celery tasks of the account sync. The work itself is in `worker.services.sync.batch`."""

from __future__ import annotations

from datetime import UTC, date, datetime

from worker.app import app
from worker.models.vocabulary import Trigger
from worker.runtime import Runtime, get_runtime
from worker.services.hooks import checking
from worker.services.sync import batch as accounts
from worker.tasks.base import WorkerTask, parse_ids, tick


@tick("sync-due")
def sync_due(runtime: Runtime, now: datetime) -> None:
    """Claims the logins whose sync is due and, when the claim is committed, sends them in batches."""
    _send_due_syncs(runtime, now)


@tick("check-due")
def check_due(runtime: Runtime, now: datetime) -> None:
    """Does the same for logins whose state is to be asked for."""
    _send_due_checks(runtime, now)


@app.task(base=WorkerTask, name="worker.tasks.accounts.dispatch_syncs")
def dispatch_syncs() -> None:
    """Like the tick, which stays the proof that beat works: hooks have made syncs due."""
    runtime = get_runtime()
    _send_due_syncs(runtime, runtime.run(runtime.now()))


@app.task(base=WorkerTask, name="worker.tasks.accounts.dispatch_checks")
def dispatch_checks() -> None:
    """The same for checks."""
    runtime = get_runtime()
    _send_due_checks(runtime, runtime.run(runtime.now()))


@app.task(base=WorkerTask, name="worker.tasks.accounts.check_logins")
def check_logins(ids: list[str]) -> dict[str, int]:
    """Asks providers for the state of a batch of logins; returns how many checks ended."""
    runtime = get_runtime()
    return {"checked": runtime.run(checking.check_logins(runtime, parse_ids(ids)))}


def _send_due_syncs(runtime: Runtime, now: datetime) -> None:
    for batch in runtime.run(accounts.claim_sync_due(runtime, now)):
        sync_providers.delay([str(id_) for id_ in batch])


def _send_due_checks(runtime: Runtime, now: datetime) -> None:
    for batch in runtime.run(checking.claim_checks(runtime, now)):
        check_logins.delay([str(id_) for id_ in batch])


@app.task(base=WorkerTask, bind=True, name="worker.tasks.accounts.sync_providers")
def sync_providers(
    task: WorkerTask,
    ids: list[str],
    trigger: str = Trigger.SCHEDULE,
    mode: str = "incremental",
    since: str | None = None,
    force: bool = False,
) -> dict[str, int]:
    """Syncs a batch; returns how many logins were synced and how many refused. `since` is an ISO date."""
    runtime = get_runtime()
    scheduled = trigger == Trigger.SCHEDULE
    published_at = task.request.get("published_at")
    summary = runtime.run(
        accounts.sync_providers(
            runtime,
            parse_ids(ids),
            trigger=Trigger(trigger),
            mode=mode,
            since=None if since is None else date.fromisoformat(since),
            force=force,
            hand_back=scheduled,
            asked_at=datetime.fromtimestamp(published_at, UTC) if scheduled and published_at else None,
        )
    )
    return {"synced": len(summary.runs), "refused": len(summary.refused)}

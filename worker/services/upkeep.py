"""Upkeep: cleans up after dead workers, and deletes old rows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta

from worker.crud import heartbeats, upkeep
from worker.process.logger import Logger
from worker.services.context import Context
from worker.services.linking import revocation

log = Logger(__name__)

_REAP_BATCH = 500
_RETAIN_BATCH = 2000
_RETAIN_SECONDS = 60.0
_DELIVERIES_KEPT = timedelta(days=1)
_QUOTA_DAYS_KEPT = 7
_LINK_SESSIONS_KEPT = 7
_UNCLAIMED_KEPT = 30


async def last_beat(runtime: Context, name: str) -> datetime | None:
    """When the tick `name` last ran to its end."""
    return (await runtime.db(heartbeats.read_heartbeats)).get(name)


async def reap(runtime: Context, now: datetime) -> dict[str, int]:
    """Ends dead runs, makes their work due again, and deletes expired rows. Returns the counts by kind."""
    settings = runtime.settings
    counts = {
        "dead_runs": await runtime.db(
            upkeep.end_dead_runs,
            now=now,
            heartbeat_before=now - timedelta(seconds=settings.run_dead_seconds),
            limit=_REAP_BATCH,
        ),
        "left_attempts": await runtime.db(
            upkeep.hand_over_left_attempts,
            now=now,
            started_before=now - timedelta(seconds=settings.lease_seconds),
            limit=_REAP_BATCH,
        ),
        "expired_links": await runtime.db(upkeep.remove_expired_links, now=now, limit=_REAP_BATCH),
        "old_deliveries": await runtime.db(
            upkeep.remove_old_deliveries, first_before=now - _DELIVERIES_KEPT, limit=_REAP_BATCH
        ),
        "revoked_grants": await revocation.revoke_waiting(runtime),
    }
    if any(counts.values()):
        log.info("reaped", **counts)
    return counts


async def retain(
    runtime: Context,
    now: datetime,
    *,
    batch: int = _RETAIN_BATCH,
    seconds: float = _RETAIN_SECONDS,
    clock: Callable[[], float] | None = None,
) -> dict[str, int]:
    """Deletes rows that are older than their table's retention, in small transactions, for at most `seconds`.

    The next call deletes the rest. Returns the number of deleted rows by table.
    """
    clock = clock or asyncio.get_running_loop().time
    deadline = clock() + seconds
    removed = dict.fromkeys(upkeep.RETAINED, 0)
    for table, days in retention_days(runtime).items():
        count = batch
        while count == batch and clock() < deadline:
            count = await runtime.db(upkeep.remove_old, table=table, before=now - timedelta(days=days), limit=batch)
            removed[table] += count
    if any(removed.values()):
        log.info("old_rows_removed", **{table: count for table, count in removed.items() if count})
    return removed


def retention_days(runtime: Context) -> dict[str, int]:
    """The number of days for which each table's rows are kept."""
    settings = runtime.settings
    return {
        "token_refreshes": settings.retain_attempts_days,
        "sync_runs": settings.retain_runs_days,
        "balances": settings.retain_snapshots_days,
        "holding_days": settings.retain_snapshots_days,
        "quarantine": settings.retain_quarantine_days,
        "notices": settings.retain_notices_days,
        "task_failures": settings.retain_failures_days,
        "hook_deliveries": settings.retain_hooks_days,
        "change_log": settings.retain_changes_days,
        "change_reads": settings.retain_changes_days,
        "outbox": settings.retain_outbox_days,
        "link_sessions": _LINK_SESSIONS_KEPT,
        "simplefin_accesses": _UNCLAIMED_KEPT,
        "quota_days": _QUOTA_DAYS_KEPT,
    }

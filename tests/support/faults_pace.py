"""How fast the world of the fault tests goes."""

from __future__ import annotations

QUEUES = "refresh,sync,upkeep"
SECONDS_PER_TICK = 0.4
SECONDS_PER_RARE_TICK = 2.5
"""Of what no fault strikes: `tests.support.faults_beat`."""
VISIBILITY_TIMEOUT = 12
LEASE_SECONDS = 6.0
HTTP_TOTAL_SECONDS = 4.0

# As in production, only faster: every fault takes seconds.
PACE = {
    "TICK_SCALE": str(SECONDS_PER_TICK / 15),
    "CLAIM_SECONDS": "3",
    "HTTP_TOTAL_SECONDS": str(HTTP_TOTAL_SECONDS),
    "LEASE_SECONDS": str(LEASE_SECONDS),
    "RUN_DEAD_SECONDS": "5",
    "SYNC_MIN_INTERVAL": "0",
    "SYNC_BACKFILL_DAYS": "80",
    "VISIBILITY_TIMEOUT": str(VISIBILITY_TIMEOUT),
    "TASK_TIME_LIMIT": "11",
    "TASK_SOFT_TIME_LIMIT": "10",
    "SOFT_SHUTDOWN_SECONDS": "1",
    "RETRY_AFTER_MAX": "3",
    "BREAKER_SECONDS": "1",
    "BREAKER_MAX_SECONDS": "2",
    "DATABASE_THREADS": "3",
    "DATABASE_CONNECT_SECONDS": "2",
    "DATABASE_LOCK_SECONDS": "3",
    "DATABASE_STATEMENT_SECONDS": "3.5",
    "DATABASE_STEP_SECONDS": "4.5",
    "QUOTA_SCALE": "1000",
    "OUTBOX_NETWORKS": "127.0.0.0/8",
}

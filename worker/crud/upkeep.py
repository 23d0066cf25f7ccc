"""Cleans up after dead workers, and deletes old rows. One call changes at most `limit` rows, so its locks are short."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import text
from sqlalchemy.orm import Session

from worker.crud.feed import log
from worker.crud.outbox import events
from worker.crud.sync import runs, unsettled

_DEAD_RUNS = text(
    """
    WITH dead AS MATERIALIZED (
        SELECT id, provider_id FROM sync_runs
        WHERE status = 'running' AND heartbeat_at < :heartbeat_before
        ORDER BY heartbeat_at LIMIT :limit FOR UPDATE SKIP LOCKED
    ), ended AS (
        UPDATE sync_runs SET status = 'failed', error = :dead, error_reason = :worker_stopped, finished_at = :now
        FROM dead WHERE sync_runs.id = dead.id
    ), due AS (
        UPDATE providers SET sync_due_at = :now FROM dead
        WHERE providers.id = dead.provider_id AND status = 'active' AND (sync_due_at IS NULL OR sync_due_at > :now)
    )
    SELECT id FROM dead
    """
)

_DUE_NOW = text(
    """
    UPDATE providers SET sync_due_at = :now
    WHERE id = ANY (:ids) AND status = 'active' AND (sync_due_at IS NULL OR sync_due_at > :now)
    """
)

# The attempt itself is not changed: the refresh decides what its unknown outcome means. Leases are not cleared: an
# ended lease has no effect, and if its owner still gets the answer, it may store it unless another has taken over.
_LEFT_ATTEMPTS = text(
    """
    WITH left_behind AS MATERIALIZED (
        SELECT providers.id FROM token_refreshes
        JOIN provider_tokens ON provider_tokens.provider_id = token_refreshes.provider_id
        JOIN providers ON providers.id = token_refreshes.provider_id
        WHERE token_refreshes.status = 'sent' AND token_refreshes.started_at < :started_before
          AND token_refreshes.generation = provider_tokens.generation
          AND (provider_tokens.lease_until IS NULL OR provider_tokens.lease_until < :now)
          AND providers.status = 'active'
          AND (providers.refresh_due_at IS NULL OR providers.refresh_due_at > :now)
        LIMIT :limit FOR UPDATE OF providers SKIP LOCKED
    ), due AS (
        UPDATE providers SET refresh_due_at = :now FROM left_behind WHERE providers.id = left_behind.id
    )
    SELECT count(*) FROM left_behind
    """
)

_EXPIRED_LINKS = text(
    """
    DELETE FROM link_states WHERE state_hash IN (
        SELECT state_hash FROM link_states WHERE expires_at < :now ORDER BY expires_at LIMIT :limit
        FOR UPDATE SKIP LOCKED
    )
    """
)

_OLD_DELIVERIES = text(
    """
    DELETE FROM task_deliveries WHERE task_id IN (
        SELECT task_id FROM task_deliveries WHERE first_at < :first_before LIMIT :limit FOR UPDATE SKIP LOCKED
    )
    """
)

# These rows are kept however old they are: whatever is still open, and the newest snapshot or run of each subject.
_OLD_ROWS: Mapping[str, str] = {
    # An open attempt of the present generation counts as a presentation of its token, at any age.
    "token_refreshes": """started_at < :before AND NOT (status IN ('sent', 'unknown') AND EXISTS (
        SELECT FROM provider_tokens p WHERE p.provider_id = t.provider_id AND p.generation = t.generation
    )) ORDER BY started_at""",
    # A run is kept as long as one that repeats it: that one has no counts and cursors of its own.
    "sync_runs": """started_at < :before AND status <> 'running' AND EXISTS (
        SELECT FROM sync_runs AS newer WHERE newer.provider_id = t.provider_id AND newer.started_at > t.started_at
    ) AND NOT EXISTS (
        SELECT FROM sync_runs AS later
        WHERE later.provider_id = t.provider_id AND later.started_at > t.started_at AND later.repeats = t.id
    ) ORDER BY started_at""",
    "balances": """taken_at < :before AND EXISTS (
        SELECT FROM balances AS newer WHERE newer.account_id = t.account_id AND newer.taken_at > t.taken_at
    ) ORDER BY taken_at""",
    "holding_days": "day < CAST(:before AS date) ORDER BY day",
    "quarantine": "created_at < :before AND resolved_at < :before ORDER BY created_at",
    "notices": "created_at < :before AND due_at IS NULL ORDER BY created_at",
    "task_failures": "created_at < :before AND resolved_at < :before ORDER BY created_at",
    "hook_deliveries": "received_at < :before ORDER BY received_at",
    "outbox": "created_at < :before AND (due_at IS NULL OR NOT EXISTS ("
    "SELECT FROM hook_subscriptions s WHERE s.id = t.subscription_id)) ORDER BY created_at",
    "link_sessions": "expires_at < :before ORDER BY expires_at",
    "simplefin_accesses": "claim_expires_at < :before AND claimed_at IS NULL ORDER BY claim_expires_at",
    "quota_days": "day < CAST(:before AS date)",
}

RETAINED = (*_OLD_ROWS, *log.TABLES)
"""Tables whose old rows are deleted. Transactions, accounts, holdings and the audit log are kept for good."""


def end_dead_runs(session: Session, *, now: datetime, heartbeat_before: datetime, limit: int) -> int:
    """Marks runs with an old heartbeat as failed, and makes their providers due. Returns how many."""
    told = {"dead": runs.DEAD, "worker_stopped": runs.WORKER_STOPPED}
    values = {"now": now, "heartbeat_before": heartbeat_before, "limit": limit, **told}
    ended = session.execute(_DEAD_RUNS, values).scalars().all()
    events.of_runs(session, run_ids=ended)
    left = unsettled.end_silent(
        session, heartbeat_before=heartbeat_before, limit=limit, error=runs.DEAD, reason=runs.WORKER_STOPPED
    )
    session.execute(_DUE_NOW, {"ids": left, "now": now})
    return len(ended) + len(left)


def hand_over_left_attempts(session: Session, *, now: datetime, started_before: datetime, limit: int) -> int:
    """Makes providers due whose attempt was sent, has no outcome, and is no longer leased. Returns how many."""
    values = {"now": now, "started_before": started_before, "limit": limit}
    return int(session.execute(_LEFT_ATTEMPTS, values).scalar_one())


def remove_expired_links(session: Session, *, now: datetime, limit: int) -> int:
    """Deletes expired link states. Returns how many."""
    return _removed(session.execute(_EXPIRED_LINKS, {"now": now, "limit": limit}))


def remove_old_deliveries(session: Session, *, first_before: datetime, limit: int) -> int:
    """Deletes delivery counts of messages that no broker can still hold. Returns how many."""
    return _removed(session.execute(_OLD_DELIVERIES, {"first_before": first_before, "limit": limit}))


def remove_old(session: Session, *, table: str, before: datetime, limit: int) -> int:
    """Deletes at most `limit` rows that are older than `before` from a table of `RETAINED`. Returns how many."""
    if table in log.TABLES:
        return log.remove_old(session, table=table, before=before, limit=limit)
    statement = text(
        f"""
        DELETE FROM {table} WHERE ctid = ANY(ARRAY(
            SELECT t.ctid FROM {table} AS t WHERE {_OLD_ROWS[table]} LIMIT :limit FOR UPDATE OF t SKIP LOCKED
        ))
        """  # noqa: S608 - names and conditions are the constants above
    )
    return _removed(session.execute(statement, {"before": before, "limit": limit}))


def _removed(result: object) -> int:
    return int(getattr(result, "rowcount", 0))

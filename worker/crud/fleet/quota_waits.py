"""Which logins wait because a quota is used up, one of ours or one of the provider's."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session


@dataclass(frozen=True, slots=True)
class QuotaWait:
    """The logins of one integration that wait for a quota.

    Attributes:
        provider_id, alias: the login whose wait ends first.
        until: when its wait ends.
    """

    provider_key: str
    logins: int
    provider_id: UUID
    alias: str
    until: datetime


_WAITS = text(
    """
    WITH waits AS (
        SELECT a.provider_id, 'refresh' AS what
        FROM token_refreshes a
        WHERE a.started_at >= :since AND a.error = 'rate_limited' AND a.reason <> ALL(:others)
            AND NOT EXISTS (
                SELECT FROM token_refreshes l WHERE l.provider_id = a.provider_id AND l.started_at > a.started_at
            )
        UNION ALL
        SELECT r.provider_id, 'sync'
        FROM sync_runs r
        WHERE r.started_at >= :since AND r.error = 'rate_limited' AND r.error_reason <> ALL(:others)
            AND NOT EXISTS (SELECT FROM sync_runs l WHERE l.provider_id = r.provider_id AND l.started_at > r.started_at)
    ), waiting AS (
        SELECT p.id, p.provider_key, p.alias,
            min(CASE what WHEN 'refresh' THEN p.refresh_due_at ELSE p.sync_due_at END) AS until
        FROM waits JOIN providers p ON p.id = waits.provider_id
        WHERE p.status = 'active' AND CASE what WHEN 'refresh' THEN p.refresh_due_at ELSE p.sync_due_at END > :now
        GROUP BY p.id
    )
    SELECT DISTINCT ON (provider_key)
        provider_key, count(*) OVER (PARTITION BY provider_key) AS logins, id, alias, until
    FROM waiting
    ORDER BY provider_key, until
    """
)


def quota_waits(session: Session, *, since: datetime, now: datetime, others: list[str]) -> list[QuotaWait]:
    """By integration, the logins whose last attempt or run since then was refused because of a used-up quota.

    Args:
        session: an open transaction.
        since: older attempts and runs are left out.
        now: the database's time.
        others: reasons that are stored like a used-up quota but are something else; left out.
    """
    rows = session.execute(_WAITS, {"since": since, "now": now, "others": others})
    return [QuotaWait(*row) for row in rows]

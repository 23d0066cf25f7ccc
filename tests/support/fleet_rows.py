"""A login as lists show it, for tests of what is said about it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

from worker.models.fleet import ProviderRow

NOW = datetime(2025, 3, 14, 3, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)

PROVIDER = ProviderRow(
    id=UUID(int=1),
    provider_key="schwab",
    alias="Home",
    user_id=UUID(int=2),
    user="ada@example.org",
    status="active",
    status_reason=None,
    access_expires_at=NOW + 20 * MINUTE,
    grant_expires_at=NOW + timedelta(days=6),
    refreshed_at=NOW - 10 * MINUTE,
    refresh_due_at=NOW + 14 * MINUTE,
    refresh_failures=0,
    synced_at=NOW - 30 * MINUTE,
    sync_due_at=NOW + 210 * MINUTE,
    sync_interval=None,
    sync_failures=0,
    created_at=NOW - timedelta(days=1),
)

"""The audit log as operators use it: read it, and prove that nobody has altered it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from uuid import UUID

import structlog

from worker.crud import audit
from worker.crud.audit import Verification
from worker.models import ProviderAuditLog
from worker.services.context import Context

log = structlog.get_logger()

_VERIFY_SECONDS = 3600.0
"""It reads every entry that was ever made."""


async def verify(
    runtime: Context, provider_id: UUID | None = None, *, expected: Mapping[UUID, str] | None = None
) -> Verification:
    """Walks one provider's chain, or all; `expected` has the heads of an earlier verification."""
    found = await runtime.db_within(
        _VERIFY_SECONDS,
        partial(audit.verify_chains, provider_id=provider_id, expected=expected, seconds=_VERIFY_SECONDS),
    )
    if found.problems:
        log.critical(
            "audit_log_altered",
            problems=len(found.problems),
            first=str(found.problems[0].provider_id),
            next="keep the database as it is, and compare with a backup",
        )
    return found


async def list_entries(
    runtime: Context,
    provider_id: UUID | None = None,
    *,
    action: str | None = None,
    since: datetime | None = None,
    limit: int = 100,
) -> Sequence[ProviderAuditLog]:
    """Entries, newest first."""
    return await runtime.db(audit.list_entries, provider_id=provider_id, action=action, since=since, limit=limit)

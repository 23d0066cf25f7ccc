"""Reading the audit log, and checking that its entries were not altered."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import partial
from uuid import UUID

from worker.crud import audit
from worker.crud.audit import Verification
from worker.crud.database import OpenTransaction
from worker.models.fleet import AuditEntry
from worker.process.logger import Logger
from worker.services.context import Context
from worker.services.fleet import lookup

log = Logger(__name__)

_VERIFY_SECONDS = 3600.0
"""Time limit of one query. It is long because a verification reads every entry that was ever made."""


async def verify(
    runtime: Context, given: str | None = None, *, expected: Mapping[UUID, str] | None = None
) -> Verification:
    """Checks one provider's hash chain, or all; `expected` has the heads that an earlier verification returned.

    Raises:
        BadArgument: `given` names no login, or more than one.
    """
    provider_id = None if given is None else await runtime.db(_provider_id, given)
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
    runtime: Context, given: str | None, *, action: str | None, since: datetime | None, limit: int
) -> list[AuditEntry]:
    """Entries of one login, or of all, newest first.

    Raises:
        BadArgument: `given` names no login, or more than one.
    """
    names = AuditEntry.__slots__

    def read(session: OpenTransaction) -> list[AuditEntry]:
        provider_id = None if given is None else _provider_id(session, given)
        found = audit.list_entries(session, provider_id=provider_id, action=action, since=since, limit=limit)
        return [AuditEntry(**{name: getattr(entry, name) for name in names}) for entry in found]

    return await runtime.db(read)


def _provider_id(session: OpenTransaction, given: str) -> UUID:
    try:
        # The log outlives the login, so a complete id need not belong to an existing login.
        return UUID(given)
    except ValueError:
        return lookup.provider(session, given).id


__all__ = ["AuditEntry", "Verification", "list_entries", "verify"]

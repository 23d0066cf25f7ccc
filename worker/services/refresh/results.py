"""How the refresh of one provider ended."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from worker.errors import DashtamError


class Outcome(StrEnum):
    """How one provider's refresh ended."""

    REFRESHED = "refreshed"
    FRESH = "fresh"  # not due: nothing was sent
    BUSY = "busy"  # someone else holds the lease
    DEFERRED = "deferred"  # over a quota, or the journal cannot be asked
    FAILED = "failed"  # tried again later
    UNKNOWN = "unknown"  # sent, no readable answer: tried once more
    NEEDS_REAUTH = "needs_reauth"
    JOURNALED = "journaled"  # answered, and kept where Postgres is not needed
    UNSUPPORTED = "unsupported"  # the integration has no refresh, or is not enabled
    INACTIVE = "inactive"  # its status allows no calls
    MISSING = "missing"  # no such provider, or it was never linked


@dataclass(frozen=True, slots=True)
class RefreshResult:
    """One provider's outcome; `error` says why, where there is a why."""

    outcome: Outcome
    error: DashtamError | None = None

"""The result of the refresh of one provider."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from worker.errors import DashtamError


class Outcome(StrEnum):
    """The outcome of the refresh of one provider."""

    REFRESHED = "refreshed"
    FRESH = "fresh"  # not due: nothing was sent
    BUSY = "busy"  # another worker holds the lease
    DEFERRED = "deferred"  # over a quota, or the journal cannot be asked
    FAILED = "failed"  # will be tried again later
    UNKNOWN = "unknown"  # sent, but no readable answer: will be tried once more
    NEEDS_REAUTH = "needs_reauth"
    JOURNALED = "journaled"  # answered; the answer waits in Redis or in the spool
    UNSUPPORTED = "unsupported"  # the integration has no refresh, or is not enabled
    INACTIVE = "inactive"  # no calls are made in its status
    MISSING = "missing"  # no such provider, or it was never linked


@dataclass(frozen=True, slots=True)
class RefreshResult:
    """One provider's outcome; `error` is the reason, if there is one."""

    outcome: Outcome
    error: DashtamError | None = None

"""What the token services answer with."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from uuid import UUID

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


@dataclass(slots=True)
class RefreshSummary:
    """Results of one batch by provider id."""

    results: dict[UUID, RefreshResult] = field(default_factory=dict)

    @property
    def counts(self) -> dict[str, int]:
        """Providers per outcome."""
        return dict(Counter(str(result.outcome) for result in self.results.values()))


@dataclass(frozen=True, slots=True)
class AccessToken:
    """A token to call the provider with.

    Attributes:
        generation: to be handed back as `stale_generation` should the provider refuse the token.
        expires_at: None when it does not expire.
    """

    value: str = field(repr=False)
    generation: int
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class DueBatch:
    """Claimed providers, and when to begin with them.

    Attributes:
        after_s: seconds from the claim.
    """

    after_s: float
    ids: list[UUID]

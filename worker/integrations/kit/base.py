"""The plain values that calls to a provider take and give: callers, quotas, token answers, requests of a sync."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from uuid import UUID

from worker.errors import Scope, Unsent
from worker.models.pages import Page, RawRecord, Removal, Window
from worker.process.clocks import elapsed

__all__ = [
    "Caller",
    "Departure",
    "Page",
    "Quota",
    "RawRecord",
    "RefreshPolicy",
    "Removal",
    "Renewal",
    "SyncRequest",
    "TokenAnswer",
    "Window",
]


@dataclass(slots=True)
class Departure:
    """Follows one request as far as the wire, for a caller who must know whether it can have been sent.

    Attributes:
        leaves_by: it does not leave later than this, by `elapsed`.
        ends_at: it is given up then.
        held: it is known to be still on this side. False says nothing.
    """

    leaves_by: float
    ends_at: float
    held: bool = False

    def seconds_left(self) -> float:
        """Until it is given up."""
        return max(0.0, self.ends_at - elapsed())

    def leave(self) -> None:
        """To be called just before the request is written.

        Raises:
            Unsent: it is too late; the request stays here.
        """
        if elapsed() > self.leaves_by:
            raise Unsent("lease_nearly_over", scope=Scope.PROVIDER)
        self.held = False


@dataclass(frozen=True, slots=True)
class Caller:
    """On whose behalf a call is made: for quotas and logs, never sent.

    Attributes:
        provider_id: None for calls of the application itself.
        manual: a person waits; may use the share of the quota that is kept back.
        departure: given when it matters whether the request was sent.
    """

    provider_id: UUID | None = None
    manual: bool = False
    departure: Departure | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Quota:
    """A limit that the provider publishes.

    Attributes:
        scope: `app` (all logins together), `provider` (one login), `account` (one account and endpoint).
        endpoint: which endpoint it counts; None for all.
        daily: counted per UTC day and kept in Postgres; otherwise a moving window in Redis.
    """

    scope: str
    limit: int
    per_seconds: int
    endpoint: str | None = None
    daily: bool = False


@dataclass(frozen=True, slots=True)
class RefreshPolicy:
    """When tokens of an integration are refreshed.

    Attributes:
        default_lifetime: used when the answer names no `expires_in`.
        max_lifetime: longer answers are clamped to it.
        margin, margin_share: a refresh is due at the latest the larger of `margin` and this share of the lifetime
            before expiry, or at half of a lifetime that is too short for that. By default a token outlives ten minutes
            in which nothing can be stored, and the two that it takes until all goes on.
    """

    default_lifetime: timedelta
    max_lifetime: timedelta = timedelta(days=1)
    margin: timedelta = timedelta(minutes=12)
    margin_share: float = 0.2


@dataclass(frozen=True, slots=True, repr=False)
class TokenAnswer:
    """What an exchange or a refresh gave.

    Attributes:
        refresh_token: None when the answer had none: the old one stays.
        lifetime: of the access token, coerced and clamped; None when it does not expire.
        grant_expires_at: end of the consent; set by an exchange alone, a refresh never moves it.
        external_id: the provider's own id of the login (Plaid: item_id).
        flags: repairs made while reading, for example `expires_in_clamped`.
    """

    access_token: str
    refresh_token: str | None = None
    lifetime: timedelta | None = None
    scope: str | None = None
    grant_expires_at: datetime | None = None
    external_id: str | None = None
    flags: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Tokens stay out of tracebacks and logs."""
        return f"TokenAnswer(lifetime={self.lifetime}, flags={self.flags})"


@dataclass(frozen=True, slots=True)
class Renewal:
    """What a front end needs to let a user renew a consent in place.

    Attributes:
        link_token: opens the provider's own form (Plaid: Link in update mode); for this user alone.
        expires_at: until when; None when the provider does not say.
    """

    link_token: str = field(repr=False)
    expires_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncRequest:
    """What `pages` starts from.

    Attributes:
        cursors: committed cursor of each feed; a feed that is missing starts from its beginning.
        since: for feeds by date, go back to this day whatever the cursor says.
        done: feeds that an earlier run has read to their end, whose time was up then: they need not be read again.
        backfill: how far a first sync goes back.
        overlap: how far an increment by date re-reads.
        window: longest span that one request by date asks for.
    """

    caller: Caller
    access_token: str = field(repr=False)
    cursors: Mapping[str, str]
    now: datetime
    since: date | None = None
    done: frozenset[str] = frozenset()
    backfill: timedelta = timedelta(days=730)
    overlap: timedelta = timedelta(days=10)
    window: timedelta = timedelta(days=90)

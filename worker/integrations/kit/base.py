"""What an integration is: one provider API behind one interface.

Refresh is a capability, not a duty; a sync is a stream of pages; cursors belong to feeds (one per login, one per
account, or none). An integration never touches the database and holds no state between calls: whatever must survive is
in the page's cursor, and a sync that broke off anywhere goes on from the committed cursors alone.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import ClassVar, Protocol
from uuid import UUID

from worker.clocks import elapsed
from worker.errors import Scope, Unsent
from worker.models.pages import Page, RawRecord, Removal, Window

__all__ = [
    "Caller",
    "Departure",
    "Integration",
    "Page",
    "Quota",
    "RawRecord",
    "RefreshPolicy",
    "Removal",
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


class Integration(Protocol):
    """One provider API.

    Attributes:
        key: `provider_key` of the logins that it serves.
        link_kind: `oauth` (authorise URL and callback) or `token` (a token from the provider's own front end).
        refresh_policy: None when its tokens are not refreshed.
        mapping_version: raised whenever mapping changes, so that stored rows are read anew.
    """

    key: ClassVar[str]
    name: ClassVar[str]
    link_kind: ClassVar[str]
    refresh_policy: ClassVar[RefreshPolicy | None]
    quotas: ClassVar[tuple[Quota, ...]]
    mapping_version: ClassVar[int]

    def authorize_url(self, state: str) -> str:
        """Where the user consents (`link_kind` oauth). Raises `Unsupported` otherwise."""
        ...

    async def exchange(self, caller: Caller, code: str, *, now: datetime) -> TokenAnswer:
        """Turns an authorisation code or public token into a credential. Raises `ProviderError`."""
        ...

    async def refresh(self, caller: Caller, refresh_token: str) -> TokenAnswer:
        """Presents the refresh token once.

        Raises:
            ReauthRequired: the grant is dead.
            AppMisconfigured: our own credential is refused.
            Forbidden: refused without a word on whose account.
            OutcomeUnknown: sent, and no readable answer came: the token may have been used up.
            GatewayError: sent, and a gateway answered in the provider's place: the same.
            Unsent: it never left.
            RateLimited, Transient, …: not acted upon; the token is unharmed.
        """
        ...

    async def revoke(self, caller: Caller, *, access_token: str, refresh_token: str | None) -> bool:
        """Ends the grant at the provider. False when the provider has no way to do so."""
        ...

    def pages(self, request: SyncRequest) -> AsyncIterator[Page]:
        """Everything new since the cursors, page by page.

        A page is asked for while the one before is stored; a page that could not be stored is asked for again, from
        the committed cursors. Raises `AccessExpired`, `PagingRestart` and all others of
        `ProviderError` that stop the whole sync.
        """
        ...

    async def aclose(self) -> None:
        """Closes the client."""
        ...

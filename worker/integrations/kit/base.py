"""Data classes for calls to a provider: callers, quotas, token answers, requests of a sync."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from worker.errors import Scope, Unsent
from worker.integrations.kit.heard import Heard
from worker.models.pages import Page, RawRecord, Removal, Window
from worker.process.clocks import elapsed

__all__ = [
    "LOOK",
    "MOST_FILE_BYTES",
    "Caller",
    "Departure",
    "FileReading",
    "FileStatement",
    "FormToken",
    "Page",
    "Quota",
    "RawRecord",
    "RefreshPolicy",
    "Removal",
    "Standing",
    "SyncRequest",
    "TokenAnswer",
    "Window",
]


@dataclass(slots=True)
class Departure:
    """Tracks one request until it is written to the connection; the caller must know whether it may have been sent.

    Attributes:
        leaves_by: the latest time at which the request may be sent, by the clock `elapsed`.
        ends_at: the time at which the call is given up, by the same clock.
        held: True: the request has certainly not been sent. False: it may or may not have been sent.
    """

    leaves_by: float
    ends_at: float
    held: bool = False

    def seconds_left(self) -> float:
        """Seconds until the call is given up."""
        return max(0.0, self.ends_at - elapsed())

    def leave(self) -> None:
        """Marks the request as possibly sent. Must be called just before the request is written.

        Raises:
            Unsent: `leaves_by` has passed; the request must not be sent.
        """
        if elapsed() > self.leaves_by:
            raise Unsent("lease_nearly_over", scope=Scope.PROVIDER)
        self.held = False


@dataclass(frozen=True, slots=True)
class Caller:
    """The login for which a call is made. It is used for quotas and logs and is never sent.

    Attributes:
        provider_id: None for calls of the application itself.
        manual: a person waits for the answer; the call may use the part of the quota that is reserved for people.
        departure: set when the caller must know whether the request was sent.
        heard: set when the caller wants to know whether the answers are the same as in an earlier reading.
    """

    provider_id: UUID | None = None
    manual: bool = False
    departure: Departure | None = field(default=None, compare=False, repr=False)
    heard: Heard | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Quota:
    """A limit that the provider publishes.

    Attributes:
        scope: `app` (all logins together), `provider` (one login), `account` (one account and endpoint).
        endpoint: the endpoint whose calls are counted; None counts calls of all endpoints.
        daily: True: calls are counted per UTC day, in Postgres. False: in a moving window, in Redis.
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
        default_lifetime: used when the answer has no `expires_in`.
        max_lifetime: a longer lifetime is reduced to this.
        margin, margin_share: how long before expiry a refresh is due: `margin`, or `margin_share` of the lifetime if
            that is longer. If the lifetime is too short for this, the refresh is due at half of the lifetime. With the
            defaults, a token stays valid through an outage of ten minutes in which nothing can be stored, and through
            the two minutes until work has resumed.
    """

    default_lifetime: timedelta
    max_lifetime: timedelta = timedelta(days=1)
    margin: timedelta = timedelta(minutes=12)
    margin_share: float = 0.2


@dataclass(frozen=True, slots=True, repr=False)
class TokenAnswer:
    """The result of an exchange or a refresh.

    Attributes:
        refresh_token: None when the answer had none; then the old one stays in use.
        lifetime: of the access token, after repair and reduction to the maximum; None when it does not expire.
        grant_expires_at: end of the consent; set only by an exchange, because a refresh never extends it.
        external_id: the provider's own id of the login (Plaid: item_id).
        flags: repairs that were made while reading, for example `expires_in_clamped`.
    """

    access_token: str
    refresh_token: str | None = None
    lifetime: timedelta | None = None
    scope: str | None = None
    grant_expires_at: datetime | None = None
    external_id: str | None = None
    flags: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """A text without the tokens, so that they do not appear in tracebacks and logs."""
        return f"TokenAnswer(lifetime={self.lifetime}, flags={self.flags})"


@dataclass(frozen=True, slots=True)
class FormToken:
    """Opens the provider's own form, in which a user consents or renews a consent (`Integration.front_end`).

    Attributes:
        link_token: the provider's word for this one use of the form; valid only for this user.
        expires_at: when `link_token` expires; None when the provider does not say.
    """

    link_token: str = field(repr=False)
    expires_at: datetime | None


LOOK = "look"
"""The option of a file that is only looked at."""
MOST_FILE_BYTES = 10 << 20
"""Longer files are refused: taking one apart needs forty times its size of memory."""


@dataclass(frozen=True, slots=True)
class FileStatement:
    """What a file says of one account, as people are told before and after it is imported.

    Attributes:
        account: a name of the account that does not show its number.
        first, last: the days that it covers.
        rows: how many transactions it lists that could be read.
        refused: how many records of it could not be read; they go to quarantine.
        balance: the newest balance that it states, with its currency.
    """

    account: str
    currency: str
    first: date
    last: date
    rows: int
    refused: int
    balance: Decimal | None


@dataclass(frozen=True, slots=True)
class FileReading:
    """A file that was taken apart.

    Attributes:
        format: the name of its format.
        statements: what is in it.
        integration: gives its records as the pages of a run.
        proposal: what the user should confirm about the file, by the names of options.
    """

    format: str
    statements: tuple[FileStatement, ...]
    integration: Any = field(repr=False)
    proposal: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Standing:
    """What a provider says about a login that works.

    Attributes:
        grant_expires_at: when the consent ends; None if it does not end.
        hook_url: the address to which the provider sends the hooks about it; None if it sends none.
    """

    grant_expires_at: datetime | None
    hook_url: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncRequest:
    """The input of `Integration.pages`.

    Attributes:
        cursors: committed cursor of each feed; a feed that is missing here starts from its beginning.
        since: feeds by date start again at this day, whatever their cursor says.
        done: feeds that need not be read again: an earlier run read them to their end before its time limit ended it.
        hooked: a hook has said that there may be something new since the last complete run began. What is otherwise
            left out because nothing seems to have changed must be read.
        backfill: how far back a first sync reads.
        overlap: how many of the days already read a later sync by date reads again.
        window: the longest time span that one request by date asks for.
    """

    caller: Caller
    access_token: str = field(repr=False)
    cursors: Mapping[str, str]
    now: datetime
    since: date | None = None
    done: frozenset[str] = frozenset()
    hooked: bool = False
    backfill: timedelta = timedelta(days=730)
    overlap: timedelta = timedelta(days=10)
    window: timedelta = timedelta(days=365)

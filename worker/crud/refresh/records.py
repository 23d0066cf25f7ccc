"""Records of a refresh: what it reads under the lease, and what it stores (a new token, or the end of the lease)."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

import msgspec

from worker.models import new_id
from worker.process.clocks import elapsed


@dataclass(frozen=True, slots=True)
class LeasedToken:
    """A token as read under its lease. Until the lease ends, no other worker may refresh it.

    Attributes:
        refresh_token: ciphertext.
        lifetime: lifetime of the access token; None when it does not expire.
        unknowns: how often this generation was already presented without a known outcome.
        gateway_errors: in how many of these cases a gateway answered instead of the provider.
        not_before: nothing is sent before this time.
        leased_at: when it was leased, by the database's clock.
        asked_at: a moment before that, by this machine's `elapsed`.
    """

    provider_id: UUID
    provider_key: str
    generation: int
    refresh_token: str | None = field(repr=False)
    key_id: str
    lifetime: timedelta | None
    issued_at: datetime
    refresh_failures: int
    unknowns: int
    leased_at: datetime
    gateway_errors: int = 0
    not_before: datetime | None = None
    asked_at: float = field(default_factory=elapsed)

    @property
    def unanswered(self) -> int:
        """How often it was presented and no answer at all came back."""
        return self.unknowns - self.gateway_errors


@dataclass(frozen=True, slots=True)
class TokenState:
    """A provider and its token as they were last committed.

    Attributes:
        generation: None when it has no token.
        access_token: ciphertext.
        lifetime: lifetime of the access token; None when it does not expire.
        leased: a worker is refreshing it now.
        now: the database's time.
    """

    provider_id: UUID
    provider_key: str
    status: str
    status_reason: str | None
    generation: int | None
    access_token: str | None = field(repr=False)
    refresh_token: str | None = field(repr=False)
    key_id: str | None
    lifetime: timedelta | None
    access_expires_at: datetime | None
    leased: bool
    now: datetime


class AttemptBegun(msgspec.Struct, frozen=True, kw_only=True):
    """A refresh that is about to be sent, under the lease of `owner`; its answer would wait in the spool `spool_id`."""

    id: UUID
    provider_id: UUID
    generation: int
    trigger: str
    owner: UUID
    spool_id: UUID | None = None


class NewToken(msgspec.Struct, frozen=True, kw_only=True):
    """An answer, ready to be stored. The journal keeps the same record.

    Attributes:
        generation: the presented generation; the next one is stored.
        access_token, refresh_token: ciphertexts, bound to the next generation.
        action: word for the audit log.
        new_grant: the user has given a new consent: end of the grant, status and failures are set anew.
        sync_due_at: when the next sync is due; None leaves it as it is.
        lease_owner: in the journal: the lease under which the provider answered.
        provider_key: for a new grant in the journal: the provider's row may be gone when it is read.
    """

    provider_id: UUID
    generation: int
    access_token: str
    refresh_token: str | None
    key_id: str
    issued_at: datetime
    lifetime_s: int | None = None
    scope: str | None = None
    access_expires_at: datetime | None = None
    refresh_due_at: datetime | None = None
    attempt_id: UUID | None = None
    new_grant: bool = False
    grant_expires_at: datetime | None = None
    external_id: str | None = None
    sync_due_at: datetime | None = None
    action: str = "token_refreshed"
    actor: str = "system"
    reason: str | None = None
    task_id: str | None = None
    flags: tuple[str, ...] = ()
    audit_id: UUID = msgspec.field(default_factory=new_id)
    lease_owner: UUID | None = None
    provider_key: str | None = None

    def __repr__(self) -> str:
        """Leaves out the ciphertexts, so that they do not get into logs."""
        return f"NewToken(provider_id={self.provider_id}, generation={self.generation}+1)"


class Settlement(msgspec.Struct, frozen=True, kw_only=True):
    """How a lease ends without a new token.

    Attributes:
        generation: the leased generation.
        attempt_status, error, reason: the outcome of the attempt, if one was written.
        failed: whether it counts as a failure of this provider.
        keep_due: leave the provider's `refresh_due_at` as it is; otherwise it is set to the one here.
        waits: nothing is sent before `refresh_due_at`.
        status, status_reason: the provider's new status, if it changes.
    """

    provider_id: UUID
    generation: int
    attempt_id: UUID | None = None
    attempt_status: str | None = None
    error: str | None = None
    reason: str | None = None
    failed: bool = False
    keep_due: bool = False
    waits: bool = False
    refresh_due_at: datetime | None = None
    status: str | None = None
    status_reason: str | None = None
    task_id: str | None = None
    audit_id: UUID = msgspec.field(default_factory=new_id)

"""Records that operators see: logins, their refreshes, syncs and rows. None of them holds a token."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from worker.models.vocabulary import LoginState


@dataclass(frozen=True, slots=True)
class Fleet:
    """Counts and dates over all providers.

    Attributes:
        refresh_late, sync_late: providers that have been due for longer than `LATE_AFTER`.
        tokens_expired: active providers with a refresh token whose access token has expired.
        oldest_token_expires_at: the earliest expiry of such an access token; it may lie in the past.
        grants_ending: grants that end within 72 hours.
    """

    active: int
    pending: int
    needs_reauth: int
    paused: int
    unlinked: int
    refresh_due: int
    refresh_late: int
    sync_due: int
    sync_late: int
    tokens_expired: int
    oldest_token_expires_at: datetime | None
    grants_ending: int
    runs_running: int
    quarantined: int
    failures: int
    notices_waiting: int


@dataclass(frozen=True, slots=True)
class ProviderRow:
    """One provider as lists show it, without its token.

    Attributes:
        user: the user's e-mail address.
        hooked_at: when the provider's last hook about new data came.
    """

    id: UUID
    provider_key: str
    alias: str
    user_id: UUID
    user: str | None
    status: str
    status_reason: str | None
    access_expires_at: datetime | None
    grant_expires_at: datetime | None
    refreshed_at: datetime | None
    refresh_due_at: datetime | None
    refresh_failures: int
    synced_at: datetime | None
    sync_due_at: datetime | None
    sync_interval: int | None
    sync_failures: int
    created_at: datetime
    hooked_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class LoginRow:
    """One login as the HTTP API shows it.

    Attributes:
        state: a value of `LoginState`.
        connected_at: when its user last linked it; None if an older release, without this column, linked it.
        accounts: number of open accounts.
    """

    id: UUID
    user_id: UUID
    provider_key: str
    alias: str
    state: str
    connected_at: datetime | None
    synced_at: datetime | None
    created_at: datetime
    updated_at: datetime
    accounts: int

    @property
    def is_linked(self) -> bool:
        """Whether it has a grant that works, as far as we know. Also True while the login is paused."""
        return self.state in (LoginState.ACTIVE, LoginState.PAUSED)


@dataclass(frozen=True, slots=True)
class Stored:
    """Counts of one provider's stored rows: open accounts, positions, and transactions that were not withdrawn."""

    accounts: int = 0
    transactions: int = 0
    holdings: int = 0


@dataclass(frozen=True, slots=True)
class TokenFacts:
    """All facts about a token except its value."""

    generation: int
    key_id: str
    scope: str | None
    lifetime_s: int | None
    issued_at: datetime
    lease_until: datetime | None
    has_refresh_token: bool


@dataclass(frozen=True, slots=True)
class Drift:
    """One figure of an account for which the stored rows and the provider disagree."""

    account: str
    figure: str
    stated: Decimal
    stored: Decimal
    seen_at: datetime


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt to refresh a token."""

    id: UUID
    provider_id: UUID
    generation: int
    status: str
    trigger: str
    error: str | None
    reason: str | None
    started_at: datetime
    finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class Run:
    """One sync run as lists show it.

    Attributes:
        alias, user: the user's name for the login, and the user's e-mail address.
    """

    id: UUID
    provider_id: UUID
    alias: str
    user: str | None
    status: str
    trigger: str
    mode: str
    started_at: datetime
    heartbeat_at: datetime
    finished_at: datetime | None
    cancel_requested: bool
    pages: int
    added: int
    changed: int
    unchanged: int
    removed: int
    quarantined: int
    counts: dict[str, Any]
    cursor_before: dict[str, Any] | None
    cursor_after: dict[str, Any] | None
    error: str | None
    error_scope: str | None
    error_reason: str | None
    problems: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Failure:
    """A dead letter: a task that will not run again by itself.

    Attributes:
        aliases: the users' names for the logins that the task worked on, for those that still exist.
    """

    id: UUID
    task_id: str
    task_name: str
    arguments: dict[str, Any]
    reason: str
    deliveries: int
    created_at: datetime
    resolved_at: datetime | None
    resolution: str | None
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class QuarantineEntry:
    """One record that could not be trusted. The stored copy of it is masked.

    Attributes:
        alias: the user's name for the login that the record came from.
    """

    id: UUID
    provider_id: UUID
    alias: str
    run_id: UUID | None
    kind: str
    account_key: str | None
    record_key: str | None
    reason: str
    detail: str | None
    payload: Any
    created_at: datetime
    resolved_at: datetime | None
    resolution: str | None


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One change of state, as the audit log holds it."""

    created_at: datetime
    provider_id: UUID
    seq: int
    action: str
    actor: str
    reason: str | None
    task_id: str | None
    detail: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class IntegrationRow:
    """One integration: which package it is from, whether it is enabled or paused, and the state of its breaker.

    Attributes:
        package: the installed package (distribution) that contains it.
        unusable: why it cannot be used although it is installed; if set, it has no breaker.
    """

    provider_key: str
    name: str | None
    package: str | None
    link_kind: str | None
    unusable: str | None
    enabled: bool
    breaker: str | None = "closed"
    failures: int = 0
    paused_at: datetime | None = None
    paused_reason: str | None = None
    paused_by: str | None = None
    opened_at: datetime | None = None
    probe_at: datetime | None = None
    alarm: str | None = None
    alarm_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class AccountRow:
    """One stored account with its newest balance. The amounts are in the account's currency.

    Attributes:
        provider: the user's name for the login.
        mask: the last digits of the account number, as the provider states them.
        current, available: positive is the owner's money, negative is debt; None when the provider states none.
    """

    id: UUID
    provider_id: UUID
    provider: str
    name: str
    mask: str | None
    type: str
    subtype: str
    status: str
    currency: str
    current: Decimal | None
    available: Decimal | None
    taken_at: datetime | None


@dataclass(frozen=True, slots=True)
class TermsRow:
    """The terms of one card or loan. Amounts that are owed or paid are positive, the rate is in percent."""

    id: UUID
    account_id: UUID
    provider: str
    account: str
    kind: str
    currency: str
    interest_rate: Decimal | None
    last_statement_balance: Decimal | None
    next_payment_date: date | None
    next_payment_amount: Decimal | None
    is_overdue: bool | None


@dataclass(frozen=True, slots=True)
class TransactionRow:
    """One stored transaction.

    Attributes:
        amount: + is money into the account.
    """

    id: UUID
    account_id: UUID
    provider: str
    account: str
    posted_date: date
    status: str
    type: str
    description: str | None
    amount: Decimal
    currency: str


@dataclass(frozen=True, slots=True)
class Broker:
    """State of the broker and of the workers; None and empty where they could not be asked.

    Attributes:
        backlog: number of waiting messages, by queue.
        in_flight: number of messages that workers have taken and not yet acknowledged; None with RabbitMQ.
        workers: names of the workers that answered.
        kind: `Redis` or `RabbitMQ`.
    """

    reachable: bool
    backlog: dict[str, int]
    in_flight: int | None
    workers: list[str]
    kind: str

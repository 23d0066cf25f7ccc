"""Read-only queries for people: the fleet at a glance, one provider in detail.

What looks at the whole fleet reads indexes alone and never the transactions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import Select, Text, cast, func, select, text
from sqlalchemy.orm import Session

from worker.models import (
    Account,
    BookDrift,
    Holding,
    Provider,
    ProviderToken,
    Quarantine,
    Transaction,
    User,
)

LATE_AFTER = timedelta(seconds=60)
"""Due for longer than this without having been claimed is late."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """All providers in numbers.

    Attributes:
        refresh_late, sync_late: due for longer than `LATE_AFTER`.
        tokens_expired: active providers whose access token has ended although it is refreshed.
        oldest_token_expires_at: the end of the access token that is nearest to it, or furthest past it.
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


FLEET = text(
    """
    SELECT
        (SELECT count(*) FROM providers WHERE status = 'active') AS active,
        coalesce((SELECT jsonb_object_agg(status, n) FROM (
            SELECT status, count(*) AS n FROM providers WHERE status <> 'active' GROUP BY status
        ) AS inactive), '{}') AS inactive,
        (SELECT count(*) FROM providers WHERE status = 'active' AND refresh_due_at <= :now) AS refresh_due,
        (SELECT count(*) FROM providers WHERE status = 'active' AND refresh_due_at <= :late) AS refresh_late,
        (SELECT count(*) FROM providers WHERE status = 'active' AND sync_due_at <= :now) AS sync_due,
        (SELECT count(*) FROM providers WHERE status = 'active' AND sync_due_at <= :late) AS sync_late,
        (SELECT count(*) FROM providers WHERE status = 'active' AND access_expires_at <= :now) AS tokens_expired,
        (SELECT min(access_expires_at) FROM providers WHERE status = 'active') AS oldest_token_expires_at,
        (SELECT count(*) FROM providers
            WHERE status = 'active' AND grant_expires_at IS NOT NULL AND grant_expires_at <= :soon) AS grants_ending,
        (SELECT count(*) FROM sync_runs WHERE status = 'running') AS runs_running,
        (SELECT count(*) FROM quarantine WHERE resolved_at IS NULL) AS quarantined,
        (SELECT count(*) FROM task_failures WHERE resolved_at IS NULL) AS failures,
        (SELECT count(*) FROM notices WHERE sent_at IS NULL AND due_at IS NOT NULL) AS notices_waiting
    """
)


def fleet(session: Session, *, now: datetime) -> Fleet:
    """Everything that `dashtam status` says of Postgres, in one statement."""
    parameters = {"now": now, "late": now - LATE_AFTER, "soon": now + timedelta(hours=72)}
    row = dict(session.execute(FLEET, parameters).mappings().one())
    inactive = row.pop("inactive")
    return Fleet(
        **row, **{status: inactive.get(status, 0) for status in ("pending", "needs_reauth", "paused", "unlinked")}
    )


@dataclass(frozen=True, slots=True)
class ProviderRow:
    """One provider as lists show it; never a token."""

    id: UUID
    provider_key: str
    alias: str
    user_id: UUID
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


_ROW = [getattr(Provider, name) for name in ProviderRow.__slots__]


def list_providers(
    session: Session,
    *,
    limit: int,
    status: str | None = None,
    provider_key: str | None = None,
    user: str | None = None,
    ids: Sequence[UUID] | None = None,
) -> list[ProviderRow]:
    """Providers, oldest first; `user` is an e-mail address or an id."""
    query = select(*_ROW).order_by(Provider.id).limit(limit)
    if status is not None:
        query = query.where(Provider.status == status)
    if provider_key is not None:
        query = query.where(Provider.provider_key == provider_key)
    if user is not None:
        query = query.join(User).where((User.email == user) | (cast(User.id, Text) == user))
    if ids is not None:
        query = query.where(Provider.id.in_(ids))
    return [ProviderRow(*row) for row in session.execute(query)]


def find_providers(session: Session, *, first: UUID | None, last: UUID | None, alias: str) -> list[ProviderRow]:
    """At most three providers whose id lies between the two, or, when none does, whose alias is this."""
    if first is not None and last is not None:
        query = select(*_ROW).where(Provider.id >= first, Provider.id <= last).order_by(Provider.id).limit(3)
        if found := session.execute(query).all():
            return [ProviderRow(*row) for row in found]
    query = select(*_ROW).where(Provider.alias == alias).order_by(Provider.id).limit(3)
    return [ProviderRow(*row) for row in session.execute(query)]


@dataclass(frozen=True, slots=True)
class Stored:
    """What is stored of one provider: open accounts, positions and transactions that were not withdrawn."""

    accounts: int = 0
    transactions: int = 0
    holdings: int = 0


def stored(session: Session, *, provider_ids: Sequence[UUID]) -> dict[UUID, Stored]:
    """Counts of the given providers alone: it reads their transactions."""
    listed = (
        select(Account.id, Account.provider_id)
        .where(Account.provider_id.in_(provider_ids), Account.status == "active")
        .subquery()
    )
    accounts = _counts(session, select(listed.c.provider_id, func.count()).group_by(listed.c.provider_id))
    transactions = _counts(
        session,
        select(listed.c.provider_id, func.count())
        .join(Transaction, Transaction.account_id == listed.c.id)
        .where(Transaction.status != "removed")
        .group_by(listed.c.provider_id),
    )
    holdings = _counts(
        session,
        select(listed.c.provider_id, func.count())
        .join(Holding, Holding.account_id == listed.c.id)
        .where(Holding.closed_at.is_(None))
        .group_by(listed.c.provider_id),
    )
    return {id_: Stored(accounts.get(id_, 0), transactions.get(id_, 0), holdings.get(id_, 0)) for id_ in provider_ids}


def _counts(session: Session, query: Select[Any]) -> dict[UUID, int]:
    return {row[0]: row[1] for row in session.execute(query)}


@dataclass(frozen=True, slots=True)
class TokenFacts:
    """What may be said of a token: everything but its value."""

    generation: int
    key_id: str
    scope: str | None
    lifetime_s: int | None
    issued_at: datetime
    lease_until: datetime | None
    has_refresh_token: bool


def token_facts(session: Session, *, provider_id: UUID) -> TokenFacts | None:
    """Facts of a provider's token; None before it is linked."""
    columns = (
        ProviderToken.generation,
        ProviderToken.key_id,
        ProviderToken.scope,
        ProviderToken.lifetime_s,
        ProviderToken.issued_at,
        ProviderToken.lease_until,
        ProviderToken.refresh_token.is_not(None),
    )
    row = session.execute(select(*columns).where(ProviderToken.provider_id == provider_id)).one_or_none()
    return None if row is None else TokenFacts(*row)


@dataclass(frozen=True, slots=True)
class Drift:
    """A figure of an account on which stored rows and the provider disagree."""

    account: str
    figure: str
    stated: Decimal
    stored: Decimal
    seen_at: datetime


def drifts(session: Session, *, provider_id: UUID) -> list[Drift]:
    """Open disagreements of one provider."""
    query = (
        select(Account.name, BookDrift.figure, BookDrift.stated, BookDrift.stored, BookDrift.seen_at)
        .join(Account, Account.id == BookDrift.account_id)
        .where(Account.provider_id == provider_id)
        .order_by(Account.name, BookDrift.figure)
    )
    return [Drift(*row) for row in session.execute(query)]


def quarantined(session: Session, *, provider_id: UUID) -> int:
    """How many records of one provider are in quarantine."""
    query = select(func.count()).where(Quarantine.provider_id == provider_id, Quarantine.resolved_at.is_(None))
    return session.scalar(query) or 0

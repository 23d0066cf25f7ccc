"""Read-only queries for operators: an overview of the fleet, its logins and their tokens.

Queries over the whole fleet read only indexes.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Select, Text, cast, select, text
from sqlalchemy.orm import Session

from worker.crud import due_times
from worker.models import Provider, User
from worker.models.fleet import Fleet, ProviderRow, TokenFacts

LATE_AFTER = timedelta(seconds=60)
"""A provider that has been due for longer than this, without a claim, is late."""


FLEET = text(
    """
    SELECT
        (SELECT count(*) FROM providers) - (SELECT count(*) FROM providers WHERE status <> 'active') AS active,
        coalesce((SELECT jsonb_object_agg(status, n) FROM (
            SELECT status, count(*) AS n FROM providers WHERE status <> 'active' GROUP BY status
        ) AS inactive), '{}') AS inactive,
        (SELECT count(*) FROM due_times WHERE kind = 'refresh' AND due_at <= :now) AS refresh_due,
        (SELECT count(*) FROM due_times WHERE kind = 'refresh' AND due_at <= :late) AS refresh_late,
        (SELECT count(*) FROM due_times WHERE kind = 'sync' AND due_at <= :now) AS sync_due,
        (SELECT count(*) FROM due_times WHERE kind = 'sync' AND due_at <= :late) AS sync_late,
        (SELECT count(*) FROM due_times WHERE access_expires_at <= :now) AS tokens_expired,
        (SELECT min(access_expires_at) FROM due_times) AS oldest_token_expires_at,
        (SELECT count(*) FROM providers
            WHERE status = 'active' AND grant_expires_at IS NOT NULL AND grant_expires_at <= :soon) AS grants_ending,
        (SELECT count(*) FROM sync_runs WHERE status = 'running')
            + (SELECT count(*) FROM unsettled_runs) AS runs_running,
        (SELECT count(*) FROM quarantine WHERE resolved_at IS NULL) AS quarantined,
        (SELECT count(*) FROM task_failures WHERE resolved_at IS NULL) AS failures,
        (SELECT count(*) FROM notices WHERE sent_at IS NULL AND due_at IS NOT NULL) AS notices_waiting
    """
)
_FLEET_UNFILLED = text(FLEET.text.replace("FROM due_times ", f"FROM {due_times.OF_PROVIDERS} "))


def fleet(session: Session, *, now: datetime) -> Fleet:
    """All that `dashtam status` shows from Postgres."""
    parameters = {"now": now, "late": now - LATE_AFTER, "soon": now + timedelta(hours=72)}
    statement = FLEET if due_times.is_filled(session) else _FLEET_UNFILLED
    row = dict(session.execute(statement, parameters).mappings().one())
    inactive = row.pop("inactive")
    return Fleet(
        **row, **{status: inactive.get(status, 0) for status in ("pending", "needs_reauth", "paused", "unlinked")}
    )


_ROW = [User.email if name == "user" else getattr(Provider, name) for name in ProviderRow.__slots__]


def provider_rows() -> Select[Any]:
    """A query for the fields of `ProviderRow`: every provider."""
    return select(*_ROW).join(User, User.id == Provider.user_id)


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
    query = provider_rows().order_by(Provider.id).limit(limit)
    if status is not None:
        query = query.where(Provider.status == status)
    if provider_key is not None:
        query = query.where(Provider.provider_key == provider_key)
    if user is not None:
        query = query.where((User.email == user) | (cast(User.id, Text) == user))
    if ids is not None:
        query = query.where(Provider.id.in_(ids))
    return [ProviderRow(*row) for row in session.execute(query)]


def find_providers(session: Session, *, first: UUID | None, last: UUID | None, alias: str) -> list[ProviderRow]:
    """At most three providers whose id is between the two ids; if there is none, those with this alias."""
    rows = provider_rows().order_by(Provider.id).limit(3)
    if first is not None and last is not None:
        found = session.execute(rows.where(Provider.id >= first, Provider.id <= last)).all()
        if found:
            return [ProviderRow(*row) for row in found]
    return [ProviderRow(*row) for row in session.execute(rows.where(Provider.alias == alias))]


def aliases(session: Session, *, ids: Sequence[UUID] | None = None, limit: int) -> dict[UUID, str]:
    """Aliases of logins, by the providers' ids; without `ids`, of the logins that were linked last."""
    query = select(Provider.id, Provider.alias).order_by(Provider.id.desc()).limit(limit)
    if ids is not None:
        query = query.where(Provider.id.in_(ids))
    return {row[0]: row[1] for row in session.execute(query)}


# As text: `dashtam status`, which imports this file, would have to make the five tables of tokens for it.
_TOKEN_FACTS = text(
    """
    SELECT generation, key_id, scope, lifetime_s, issued_at, lease_until, refresh_token IS NOT NULL
    FROM provider_tokens WHERE provider_id = :provider_id
    """
)


def token_facts(session: Session, *, provider_id: UUID) -> TokenFacts | None:
    """Facts about a provider's token; None before it is linked."""
    row = session.execute(_TOKEN_FACTS, {"provider_id": provider_id}).one_or_none()
    return None if row is None else TokenFacts(*row)


_NEED_USER = text(
    """
    SELECT coalesce(nullif(a.official_name, ''), a.name) || coalesce(' …' || a.mask, '') FROM accounts a
    WHERE a.provider_id = :provider_id AND a.provider_account_id IN (
        SELECT problem ->> 'account'
        FROM jsonb_array_elements((
            SELECT problems -> 'problems' FROM sync_runs
            WHERE provider_id = :provider_id AND status <> 'running' ORDER BY started_at DESC LIMIT 1
        )) AS problem
        WHERE problem ->> 'kind' = 'reauth_required'
    )
    ORDER BY 1
    """
)


def need_user(session: Session, *, provider_id: UUID) -> list[str]:
    """Names of the accounts that the last run could not read because their user must act, while the login works."""
    return list(session.scalars(_NEED_USER, {"provider_id": provider_id}))

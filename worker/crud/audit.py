"""The audit log: one row per state change; rows are never changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import func, insert, select, text
from sqlalchemy.orm import Session

from worker.models import ProviderAuditLog


def record(
    session: Session,
    *,
    provider_id: UUID,
    action: str,
    actor: str = "system",
    reason: str | None = None,
    task_id: str | None = None,
    detail: dict[str, Any] | None = None,
) -> None:
    """Adds one row, in the transaction of the change that the row records."""
    session.execute(
        insert(ProviderAuditLog).values(
            provider_id=provider_id, action=action, actor=actor, reason=reason, task_id=task_id, detail=detail
        )
    )


def list_entries(
    session: Session,
    *,
    provider_id: UUID | None = None,
    action: str | None = None,
    since: datetime | None = None,
    limit: int = 100,
) -> Sequence[ProviderAuditLog]:
    """Entries of one provider, or of all (by their time-ordered ids), newest first."""
    query = select(ProviderAuditLog)
    if provider_id is not None:
        query = query.where(ProviderAuditLog.provider_id == provider_id).order_by(ProviderAuditLog.seq.desc())
    else:
        query = query.order_by(ProviderAuditLog.id.desc())
    if action is not None:
        query = query.where(ProviderAuditLog.action == action)
    if since is not None:
        query = query.where(ProviderAuditLog.created_at >= since)
    return session.scalars(query.limit(limit)).all()


@dataclass(frozen=True, slots=True)
class ChainProblem:
    """An error in a provider's hash chain.

    Attributes:
        seq: the entry at which it was found.
        problem: `altered` (the entry differs from what was hashed), `missing` (entries before it are gone) or
            `relinked` (it does not continue the entry before it).
    """

    provider_id: UUID
    seq: int
    problem: str


@dataclass(frozen=True, slots=True)
class Verification:
    """Result of a check of the chains.

    Attributes:
        heads: the last entry of each verified chain as `<seq>:<hash>`. Store them elsewhere and pass them as `expected`
            later: this also finds entries that were cut off the end, which the chain alone cannot show.
    """

    entries: int
    chains: int
    problems: list[ChainProblem]
    heads: dict[UUID, str]


_CHAINS = text(
    """
    SELECT provider_id, seq, problem FROM (
        SELECT provider_id, seq,
            CASE
                WHEN hash IS DISTINCT FROM computed THEN 'altered'
                WHEN seq <> coalesce(lag(seq) OVER chain, 0) + 1 THEN 'missing'
                WHEN prev_hash IS DISTINCT FROM lag(hash) OVER chain THEN 'relinked'
            END AS problem
        FROM (
            SELECT entry.provider_id, entry.seq, entry.hash, entry.prev_hash, provider_audit_hash(entry) AS computed
            FROM provider_audit_logs AS entry
            WHERE CAST(:provider_id AS uuid) IS NULL OR entry.provider_id = :provider_id
        ) AS entries
        WINDOW chain AS (PARTITION BY provider_id ORDER BY seq)
    ) AS walked
    WHERE problem IS NOT NULL ORDER BY provider_id, seq LIMIT :limit
    """
)

_HEADS = text(
    """
    SELECT DISTINCT ON (provider_id) provider_id, seq, hash FROM provider_audit_logs
    WHERE CAST(:provider_id AS uuid) IS NULL OR provider_id = :provider_id
    ORDER BY provider_id, seq DESC
    """
)


def verify_chains(
    session: Session,
    *,
    provider_id: UUID | None = None,
    expected: Mapping[UUID, str] | None = None,
    seconds: float = 3600.0,
    limit: int = 1000,
) -> Verification:
    """Checks one provider's chain, or all, in the database; lists at most `limit` problems.

    `expected` has heads of an earlier verification: if one of these entries is gone or changed, this is a problem. Each
    query may take `seconds`.
    """
    session.execute(text(f"SET LOCAL statement_timeout = {round(seconds * 1000)}"))
    problems = [ChainProblem(*row) for row in session.execute(_CHAINS, {"provider_id": provider_id, "limit": limit})]
    entries = select(func.count()).select_from(ProviderAuditLog)
    if provider_id is not None:
        entries = entries.where(ProviderAuditLog.provider_id == provider_id)
    newest = session.execute(_HEADS, {"provider_id": provider_id})
    heads = {id_: f"{seq}:{(hash_ or b'').hex()}" for id_, seq, hash_ in newest}
    problems += _cut_off(session, expected or {})
    return Verification(session.scalar(entries) or 0, len(heads), problems, heads)


def _cut_off(session: Session, expected: Mapping[UUID, str]) -> list[ChainProblem]:
    problems = []
    for provider_id, head in expected.items():
        seq, _, hash_ = head.partition(":")
        stored = session.scalar(
            select(ProviderAuditLog.hash).where(
                ProviderAuditLog.provider_id == provider_id, ProviderAuditLog.seq == int(seq)
            )
        )
        if stored is None or stored.hex() != hash_:
            problems.append(ChainProblem(provider_id, int(seq), "missing" if stored is None else "altered"))
    return problems

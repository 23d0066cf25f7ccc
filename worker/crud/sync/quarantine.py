"""Records that could not be trusted: each is stored once, listed, and resolved when it can be stored after all."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence, Set
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

import msgspec
from sqlalchemy import and_, or_, select, text, update
from sqlalchemy.orm import Session

from worker.models import Provider, Quarantine, new_id
from worker.models.fleet import QuarantineEntry
from worker.models.records import NOUN_OF_KIND

# Commands that only list the entries must not wait for the import of the whole sync engine.
if TYPE_CHECKING:
    from worker.crud.sync.work import RunKey, Work
    from worker.models.records import Reject


def keep(work: Work, rejects: Sequence[Reject]) -> None:
    """Stores rejects. A known one is not stored a second time; if it was resolved, it is opened again."""
    if not rejects:
        return
    rows = []
    for reject in rejects:
        fields = msgspec.to_builtins(reject)
        if reject.kind == "balance":
            del fields["payload"]  # other figures of a balance change often, but it must stay the same entry
        fingerprint = hashlib.blake2b(msgspec.json.encode(fields, order="sorted"), digest_size=16).digest()
        payload = None if reject.payload is None else msgspec.json.encode(reject.payload).decode()
        rows.append(
            (
                new_id(),
                work.run.provider_id,
                work.run.id,
                _text(reject.kind),
                _text(reject.account_key),
                _text(reject.record_key),
                _text(reject.reason),
                _text(reject.detail),
                payload,
                fingerprint,
            )
        )
    with work.connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO quarantine (id, provider_id, run_id, kind, account_key, record_key, reason, detail, payload,"
            " fingerprint) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s::jsonb, %s)"
            " ON CONFLICT (provider_id, fingerprint) DO UPDATE"
            " SET run_id = EXCLUDED.run_id, payload = EXCLUDED.payload, resolved_at = NULL, resolution = NULL",
            rows,
        )
    for reject in rejects:
        work.tally[NOUN_OF_KIND.get(reject.kind, reject.kind), "quarantined"] += 1


def _text(value: str | None) -> str | None:
    """The text without what Postgres cannot store, at most 500 characters."""
    if value is None:
        return None
    return value.replace("\x00", "").encode("utf-8", "replace").decode()[:500]


def resolve_settled(work: Work) -> None:
    """Resolves entries whose record was stored or withdrawn by this page, or was already stored as listed."""
    for keys, resolution in ((work.stored_keys, "stored"), (work.removed_keys, "withdrawn")):
        if keys:
            work.connection.execute(
                "UPDATE quarantine SET resolved_at = %s, resolution = %s"
                " WHERE provider_id = %s AND resolved_at IS NULL AND kind = 'transaction' AND record_key = ANY(%s)",
                (work.now, resolution, work.run.provider_id, keys),
            )


def resolve_liabilities(work: Work, accounts: Set[str]) -> None:
    """Resolves entries of liabilities of these accounts, all of which could be read now; not every run reads them."""
    work.connection.execute(
        "UPDATE quarantine SET resolved_at = %s, resolution = 'listed no more' WHERE provider_id = %s"
        " AND resolved_at IS NULL AND kind = 'liability' AND (account_key IS NULL OR account_key = ANY(%s))",
        (work.now, work.run.provider_id, list(accounts)),
    )


def resolve_unlisted(
    session: Session, *, run: RunKey, now: datetime, only: Set[str] | None, troubled: Set[str]
) -> None:
    """Resolves entries of nouns that every run lists completely, when a run has not met them again.

    `only`: the accounts that were read, if there may be others. Entries of `troubled` accounts stay open.
    """
    of_accounts = [Quarantine.account_key.not_in(troubled)]
    if only is not None:
        of_accounts.append(Quarantine.account_key.in_(only))
    session.execute(
        update(Quarantine)
        .where(
            Quarantine.provider_id == run.provider_id,
            Quarantine.resolved_at.is_(None),
            Quarantine.run_id != run.id,
            Quarantine.kind.in_(("account", "balance", "holding", "security")),
            or_(Quarantine.account_key.is_(None), and_(*of_accounts)),
        )
        .values(resolved_at=now, resolution="listed no more")
    )


AWAITS_READING = """
    provider_id = :provider_id AND resolved_at IS NULL AND kind = 'transaction' AND reason = 'unknown_account'
    AND account_key IN (SELECT provider_account_id FROM accounts WHERE provider_id = :provider_id)
"""
"""Condition: the entry is a transaction that was refused because its account was unknown, and it is stored by now."""

_SETTLE = text(
    f"""
    UPDATE quarantine SET resolved_at = :now, resolution = 'read again, since the account is known'
    WHERE {AWAITS_READING} RETURNING id
    """  # noqa: S608 - a constant
)


def settle_before_reading(session: Session, *, provider_id: UUID, now: datetime) -> bool:
    """Resolves the entries of `AWAITS_READING`, for a run that reads everything from the beginning; False if none.

    If that run meets such a record again, it stores it or opens its entry again.
    """
    return session.execute(_SETTLE, {"provider_id": provider_id, "now": now}).first() is not None


def has_open(session: Session, *, provider_id: UUID) -> bool:
    """Whether a provider has open entries in quarantine."""
    statement = select(Quarantine.id).where(Quarantine.provider_id == provider_id, Quarantine.resolved_at.is_(None))
    return session.scalar(statement.limit(1)) is not None


_ENTRY = [Provider.alias if name == "alias" else getattr(Quarantine, name) for name in QuarantineEntry.__slots__]
_ENTRIES = (
    select(*_ENTRY)
    .join(Provider, Provider.id == Quarantine.provider_id)
    .order_by(Quarantine.created_at.desc(), Quarantine.id)
)


def list_quarantine(
    session: Session, *, provider_id: UUID | None = None, resolved: bool = False, limit: int = 100
) -> list[QuarantineEntry]:
    """Entries, newest first; `resolved` adds the resolved ones."""
    query = _ENTRIES.limit(limit)
    if provider_id is not None:
        query = query.where(Quarantine.provider_id == provider_id)
    if not resolved:
        query = query.where(Quarantine.resolved_at.is_(None))
    return [QuarantineEntry(*row) for row in session.execute(query)]


def entries_between(session: Session, *, first: UUID, last: UUID) -> list[QuarantineEntry]:
    """At most three entries whose id is between the two ids."""
    query = _ENTRIES.where(Quarantine.id >= first, Quarantine.id <= last).limit(3)
    return [QuarantineEntry(*row) for row in session.execute(query)]


def dismiss(session: Session, *, entry_id: UUID, now: datetime, actor: str) -> None:
    """Resolves an entry that needs no correction."""
    session.execute(
        update(Quarantine).where(Quarantine.id == entry_id).values(resolved_at=now, resolution=f"dismissed by {actor}")
    )

"""What operators read about single logins: attempts, runs, stored rows, dead letters and quarantined records."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import date, datetime
from typing import Any
from uuid import UUID

from worker.crud.database import OpenTransaction
from worker.crud.fleet import history, overview, stored
from worker.crud.sync import quarantine
from worker.models.fleet import AccountRow, Failure, QuarantineEntry, Run, TermsRow, TransactionRow
from worker.services.context import Context
from worker.services.fleet import lookup, past


async def provider(runtime: Context, given: str) -> dict[str, Any]:
    """One login: dates of its token, counts of its rows, its last attempts and runs."""

    def read(session: OpenTransaction) -> dict[str, Any]:
        row = lookup.provider(session, given)
        return {
            "provider": row,
            "token": overview.token_facts(session, provider_id=row.id),
            "stored": stored.counts(session, provider_ids=[row.id])[row.id],
            "quarantined": stored.quarantined(session, provider_id=row.id),
            "drifts": stored.drifts(session, provider_id=row.id),
            "attempts": history.attempts(session, provider_ids=[row.id], limit=5),
            "runs": history.runs(session, provider_ids=[row.id], limit=5),
        }

    return await runtime.db(read)


async def happened_since(runtime: Context, ids: Sequence[UUID], since: datetime) -> dict[str, Any]:
    """What happened to these logins since then; by id: `providers`, `stored`, `attempts`, `runs`."""

    def read(session: OpenTransaction) -> dict[str, Any]:
        return {
            "providers": {row.id: row for row in overview.list_providers(session, limit=len(ids), ids=ids)},
            "stored": stored.counts(session, provider_ids=ids),
            "attempts": history.attempts(session, provider_ids=ids, since=since, limit=1000),
            "runs": history.runs(session, provider_ids=ids, since=since, limit=1000),
        }

    return await runtime.db(read)


async def runs(runtime: Context, given: str | None, *, status: str | None, limit: int) -> list[Run]:
    """Runs of one login, or of all, newest first."""

    def read(session: OpenTransaction) -> list[Run]:
        ids = None if given is None else [lookup.provider(session, given).id]
        return history.runs(session, provider_ids=ids, status=status, limit=limit)

    return await runtime.db(read)


async def run(runtime: Context, given: str) -> Run:
    """One run; see `past.run`."""
    return await runtime.db(past.run, given)


async def failures(runtime: Context, *, resolved: bool, limit: int) -> list[Failure]:
    """Dead letters, newest first; `resolved` adds those that were sent again."""

    def read(session: OpenTransaction) -> list[Failure]:
        return _named(session, history.task_failures(session, resolved=resolved, limit=limit))

    return await runtime.db(read)


async def failure(runtime: Context, given: str) -> Failure:
    """One dead letter; see `past.failure`."""

    def read(session: OpenTransaction) -> Failure:
        return _named(session, [past.failure(session, given)])[0]

    return await runtime.db(read)


def _named(session: OpenTransaction, failures: Sequence[Failure]) -> list[Failure]:
    """Adds to each failure the aliases of the logins in its arguments."""
    ids = {failure.id: list(_ids_in(failure.arguments)) for failure in failures}
    wanted = {id_ for found in ids.values() for id_ in found}
    aliases = overview.aliases(session, ids=list(wanted), limit=len(wanted)) if wanted else {}
    return [
        replace(failure, aliases=tuple(aliases[id_] for id_ in ids[failure.id] if id_ in aliases))
        for failure in failures
    ]


def _ids_in(value: Any) -> Iterator[UUID]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for part in value:
            yield from _ids_in(part)
    elif isinstance(value, str) and len(value) == 36:
        first, last = lookup.id_range(value)
        if first is not None and first == last:
            yield first


async def quarantined(runtime: Context, given: str | None, *, resolved: bool, limit: int) -> list[QuarantineEntry]:
    """Quarantined records of one login, or of all, newest first."""

    def read(session: OpenTransaction) -> list[QuarantineEntry]:
        provider_id = None if given is None else lookup.provider(session, given).id
        return quarantine.list_quarantine(session, provider_id=provider_id, resolved=resolved, limit=limit)

    return await runtime.db(read)


async def entry(runtime: Context, given: str) -> QuarantineEntry:
    """One quarantined record; see `past.entry`."""
    return await runtime.db(past.entry, given)


async def accounts(runtime: Context, given: str | None, *, closed: bool, limit: int) -> list[AccountRow]:
    """Stored accounts of one login, or of all, with their newest balances."""

    def read(session: OpenTransaction) -> list[AccountRow]:
        provider_id = None if given is None else lookup.provider(session, given).id
        return stored.accounts(session, provider_id=provider_id, closed=closed, limit=limit)

    return await runtime.db(read)


async def liabilities(runtime: Context, given: str | None, *, limit: int) -> list[TermsRow]:
    """Terms of the cards and loans of one login, or of all, in the order in which payments are due."""

    def read(session: OpenTransaction) -> list[TermsRow]:
        provider_id = None if given is None else lookup.provider(session, given).id
        return stored.liabilities(session, provider_id=provider_id, limit=limit)

    return await runtime.db(read)


async def transactions(runtime: Context, given: str | None, *, since: date | None, limit: int) -> list[TransactionRow]:
    """Stored transactions of one login, or of all, newest first."""

    def read(session: OpenTransaction) -> list[TransactionRow]:
        provider_id = None if given is None else lookup.provider(session, given).id
        return stored.transactions(session, provider_id=provider_id, since=since, limit=limit)

    return await runtime.db(read)

"""What operators read: the whole fleet, one login, its runs and rows, dead letters and quarantined records."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import MISSING, asdict, fields, replace
from datetime import date, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID

from worker.crud import heartbeats, integration_states
from worker.crud.database import OpenTransaction
from worker.crud.fleet import history, overview
from worker.crud.sync import quarantine
from worker.errors import BadArgument
from worker.integrations.registry import REGISTRY, faults, installed_keys, package_of
from worker.models import IntegrationState
from worker.models.fleet import (
    AccountRow,
    Broker,
    Failure,
    IntegrationRow,
    ProviderRow,
    QuarantineEntry,
    Run,
    TermsRow,
    TransactionRow,
)
from worker.services.context import Context
from worker.services.findings import Finding
from worker.services.fleet import held, lookup

if TYPE_CHECKING:
    from worker.integrations.kit.link_kinds import LinkKind

_NAMES = 500
_BEAT_LATE = 90
_BEAT_LATE_MIN = 15


def beat_late(tick_scale: float) -> timedelta:
    """How old a tick's heartbeat may be: while beat and the workers run, it is always younger."""
    return timedelta(seconds=max(_BEAT_LATE_MIN, _BEAT_LATE * tick_scale))


async def status(runtime: Context, *, now: datetime, broker: Broker, troubles: Sequence[Finding]) -> dict[str, Any]:
    """An overview of the fleet, as plain data. The `troubles` come first, in the given order.

    Raises:
        Unavailable: Postgres is out of reach.
    """

    def read(session: OpenTransaction) -> dict[str, Any]:
        beats = heartbeats.read_heartbeats(session)
        states = integration_states.read_states(session)
        last = max(beats.values(), default=None)
        late = beat_late(runtime.settings.tick_scale)
        return {
            "troubles": [asdict(trouble) for trouble in troubles],
            "providers": asdict(overview.fleet(session, now=now)),
            "beat": {"last_tick": last, "late": last is None or now - last > late, "ticks": beats},
            "redis": asdict(broker),
            "integrations": {
                key: {
                    "breaker": states[key].breaker if key in states else "closed",
                    "paused": key in states and states[key].paused_at is not None,
                    "paused_reason": states[key].paused_reason if key in states else None,
                    "alarm": states[key].alarm if key in states else None,
                }
                for key in runtime.settings.enabled_integrations
            },
        }

    return await runtime.db(read)


async def integrations(runtime: Context) -> list[IntegrationRow]:
    """Every installed integration with its kill switch and breaker; those that cannot be used come last."""
    states = await runtime.db(integration_states.read_states)
    enabled = runtime.settings.enabled_integrations
    rows = [integration(key, states.get(key), enabled=key in enabled) for key in sorted(REGISTRY)]
    return rows + unusable()


def integration(key: str, state: IntegrationState | None, *, enabled: bool) -> IntegrationRow:
    """One installed integration with its kill switch and breaker; `state` is None until something happened to it."""
    names = [field.name for field in fields(IntegrationRow) if field.default is not MISSING]
    stored = {} if state is None else {name: getattr(state, name) for name in names}
    known = REGISTRY[key]
    return IntegrationRow(key, known.name, package_of(key), known.link_kind.name, None, enabled, **stored)


def unusable() -> list[IntegrationRow]:
    """Integrations that are installed but cannot be used, with the reason."""
    return [
        IntegrationRow(fault.key, None, fault.package, None, fault.reason, enabled=False, breaker=None)
        for fault in faults()
    ]


def require_integration(key: str) -> None:
    """Raises `BadArgument` unless an integration with this key is installed."""
    if key not in REGISTRY:
        raise BadArgument(f"no integration is named {key!r}; there are {', '.join(sorted(REGISTRY))}")


async def link_kind(runtime: Context, key: str) -> LinkKind:
    """The form that links a login of this integration.

    Raises:
        BadArgument: no integration with this key is installed.
        Refused: it is paused.
    """
    require_integration(key)
    await runtime.db(held.refuse_paused, key)
    return REGISTRY[key].link_kind


async def providers(
    runtime: Context, *, status: str | None, provider_key: str | None, user: str | None, limit: int
) -> list[ProviderRow]:
    """Logins, oldest first; `user` is an e-mail address or an id."""
    return await runtime.db(overview.list_providers, limit=limit, status=status, provider_key=provider_key, user=user)


async def find_provider(runtime: Context, given: str) -> ProviderRow:
    """The one login that `given` names; see `lookup.provider`."""
    return await runtime.db(lookup.provider, given)


async def provider_by_id(runtime: Context, provider_id: UUID) -> ProviderRow:
    """The login with this id, which must exist."""
    (row,) = await runtime.db(overview.list_providers, limit=1, ids=[provider_id])
    return row


async def provider(runtime: Context, given: str) -> dict[str, Any]:
    """One login: dates of its token, counts of its rows, its last attempts and runs."""

    def read(session: OpenTransaction) -> dict[str, Any]:
        row = lookup.provider(session, given)
        return {
            "provider": row,
            "token": overview.token_facts(session, provider_id=row.id),
            "stored": overview.stored(session, provider_ids=[row.id])[row.id],
            "quarantined": overview.quarantined(session, provider_id=row.id),
            "drifts": overview.drifts(session, provider_id=row.id),
            "attempts": history.attempts(session, provider_ids=[row.id], limit=5),
            "runs": history.runs(session, provider_ids=[row.id], limit=5),
        }

    return await runtime.db(read)


async def happened_since(runtime: Context, ids: Sequence[UUID], since: datetime) -> dict[str, Any]:
    """What happened to these logins since then; by id: `providers`, `stored`, `attempts`, `runs`."""

    def read(session: OpenTransaction) -> dict[str, Any]:
        return {
            "providers": {row.id: row for row in overview.list_providers(session, limit=len(ids), ids=ids)},
            "stored": overview.stored(session, provider_ids=ids),
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
    """One run; see `lookup.run`."""
    return await runtime.db(lookup.run, given)


async def failures(runtime: Context, *, resolved: bool, limit: int) -> list[Failure]:
    """Dead letters, newest first; `resolved` adds those that were sent again."""

    def read(session: OpenTransaction) -> list[Failure]:
        return _named(session, history.task_failures(session, resolved=resolved, limit=limit))

    return await runtime.db(read)


async def failure(runtime: Context, given: str) -> Failure:
    """One dead letter; see `lookup.failure`."""

    def read(session: OpenTransaction) -> Failure:
        return _named(session, [lookup.failure(session, given)])[0]

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
    """One quarantined record; see `lookup.entry`."""
    return await runtime.db(lookup.entry, given)


async def accounts(runtime: Context, given: str | None, *, closed: bool, limit: int) -> list[AccountRow]:
    """Stored accounts of one login, or of all, with their newest balances."""

    def read(session: OpenTransaction) -> list[AccountRow]:
        provider_id = None if given is None else lookup.provider(session, given).id
        return overview.accounts(session, provider_id=provider_id, closed=closed, limit=limit)

    return await runtime.db(read)


async def liabilities(runtime: Context, given: str | None, *, limit: int) -> list[TermsRow]:
    """Terms of the cards and loans of one login, or of all, in the order in which payments are due."""

    def read(session: OpenTransaction) -> list[TermsRow]:
        provider_id = None if given is None else lookup.provider(session, given).id
        return overview.liabilities(session, provider_id=provider_id, limit=limit)

    return await runtime.db(read)


async def transactions(runtime: Context, given: str | None, *, since: date | None, limit: int) -> list[TransactionRow]:
    """Stored transactions of one login, or of all, newest first."""

    def read(session: OpenTransaction) -> list[TransactionRow]:
        provider_id = None if given is None else lookup.provider(session, given).id
        return overview.transactions(session, provider_id=provider_id, since=since, limit=limit)

    return await runtime.db(read)


async def names(runtime: Context) -> dict[str, list[str]]:
    """Words for the shell's completion: aliases of the logins that were linked last, and keys of integrations."""
    aliases = await runtime.db(partial(overview.aliases, limit=_NAMES))
    return {"aliases": sorted(set(aliases.values())), "integrations": installed_keys()}

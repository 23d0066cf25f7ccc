"""What operators read about the whole fleet: its state, its integrations and its logins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING, asdict, fields
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID

from worker.crud import heartbeats
from worker.crud.database import OpenTransaction
from worker.crud.fleet import breakers, overview
from worker.errors import BadArgument, Unavailable
from worker.integrations.registry import REGISTRY, faults, installed_keys, package_of
from worker.models import IntegrationState
from worker.models.fleet import (
    Broker,
    IntegrationRow,
    ProviderRow,
)
from worker.services.context import Context
from worker.services.findings import Finding, require
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
        Unavailable: Postgres is out of reach, or its tables are of another version; the error says what `troubles` say.
    """

    def read(session: OpenTransaction) -> dict[str, Any]:
        beats = heartbeats.read_heartbeats(session)
        states = breakers.read_states(session)
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

    try:
        return await runtime.db(read)
    except Unavailable as error:
        require(error.server, troubles)
        raise


async def integrations(runtime: Context) -> list[IntegrationRow]:
    """Every installed integration with its kill switch and breaker; those that cannot be used come last."""
    states = await runtime.db(breakers.read_states)
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


async def names(runtime: Context) -> dict[str, list[str]]:
    """Words for the shell's completion: aliases of the logins that were linked last, and keys of integrations."""
    aliases = await runtime.db(partial(overview.aliases, limit=_NAMES))
    return {"aliases": sorted(set(aliases.values())), "integrations": installed_keys()}

"""Syncs, refreshes and explanations of a login that the owner of an API key asks for."""

from __future__ import annotations

from uuid import UUID

from worker.services.access.keys import Principal
from worker.services.access.logins import own
from worker.services.context import Context
from worker.services.explain import Explanation, explain_provider
from worker.services.fleet import asking
from worker.services.fleet.asking import Asked, Send, SyncWish
from worker.services.health import Transport


async def sync(runtime: Context, principal: Principal, provider_id: UUID, wish: SyncWish, *, send: Send) -> Asked:
    """Asks for a sync.

    Raises:
        NotFound, NotPermitted: see `logins.own`.
        Refused, Unavailable: see `asking.sync`.
    """
    await own(runtime, principal, provider_id)
    return await asking.sync(runtime, str(provider_id), wish, send=send)


async def refresh(runtime: Context, principal: Principal, provider_id: UUID, *, send: Send) -> Asked:
    """Asks for a refresh.

    Raises:
        NotFound, NotPermitted: see `logins.own`.
        Refused, Unavailable: see `asking.refresh`.
    """
    await own(runtime, principal, provider_id)
    return await asking.refresh(runtime, str(provider_id), send=send)


async def explain(runtime: Context, principal: Principal, provider_id: UUID, *, transport: Transport) -> Explanation:
    """Why a refresh or a sync happened or not. Raises what `logins.own` raises.

    Servers and processes are left out: their findings have addresses in them, which only operators may see.
    """
    await own(runtime, principal, provider_id)
    return (await explain_provider(runtime, str(provider_id), transport if principal.user_id is None else None))[1]

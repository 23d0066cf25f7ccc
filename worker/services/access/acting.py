"""What the owner of an API key asks for: syncs, refreshes, explanations, and an operator's switches."""

from __future__ import annotations

from uuid import UUID

from worker.errors import NotPermitted
from worker.services.access.keys import Principal
from worker.services.access.logins import own
from worker.services.availability import breaker
from worker.services.context import Context
from worker.services.explain import Explanation, explain_provider
from worker.services.fleet import asking, looking, steering
from worker.services.fleet.asking import Asked, Send, SyncWish
from worker.services.transport import Transport

_PAUSED = "paused on the status page"


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


async def pause(runtime: Context, principal: Principal, provider_id: UUID) -> bool:
    """Stops the schedule's work for a login. Returns whether this changed anything.

    Raises:
        NotFound: there is no such login.
        NotPermitted: the key is a user's.
        Refused: it is neither active nor paused.
    """
    require_operator(principal)
    await own(runtime, principal, provider_id)
    return (await steering.pause(runtime, str(provider_id), actor=principal.actor, reason=_PAUSED))[1]


async def resume(runtime: Context, principal: Principal, provider_id: UUID) -> bool:
    """Makes a paused login active again. Returns and raises the same as `pause`."""
    require_operator(principal)
    await own(runtime, principal, provider_id)
    return (await steering.resume(runtime, str(provider_id), actor=principal.actor))[1]


async def pause_integration(runtime: Context, principal: Principal, key: str) -> bool:
    """Stops all calls of an integration. Returns whether this changed anything.

    Raises:
        NotPermitted: the key is a user's.
        BadArgument: no integration has this key.
    """
    require_operator(principal)
    looking.require_integration(key)
    return await breaker.pause(runtime, key, reason=_PAUSED, actor=principal.actor)


async def resume_integration(runtime: Context, principal: Principal, key: str) -> bool:
    """Lets the calls of an integration go on and closes its breaker. Returns and raises as `pause_integration`."""
    require_operator(principal)
    looking.require_integration(key)
    return await breaker.resume(runtime, key, actor=principal.actor)


async def replay(runtime: Context, principal: Principal, failure_id: UUID, *, send: Send) -> str:
    """Sends a dead letter's task again. Returns the id of the new message.

    Raises:
        NotPermitted: the key is a user's.
        NotFound, Refused, Unavailable: see `steering.replay_failure`.
    """
    require_operator(principal)
    _, task_id = await steering.replay_failure(runtime, str(failure_id), actor=principal.actor, send=send)
    return task_id


def require_operator(principal: Principal) -> None:
    """Raises `NotPermitted` unless the key is an operator's."""
    if principal.user_id is not None:
        raise NotPermitted("this needs an operator's key; nothing was changed")


async def explain(runtime: Context, principal: Principal, provider_id: UUID, *, transport: Transport) -> Explanation:
    """Why a refresh or a sync happened or not. Raises what `logins.own` raises.

    Servers and processes are left out: their findings have addresses in them, which only operators may see.
    """
    await own(runtime, principal, provider_id)
    return (await explain_provider(runtime, str(provider_id), transport if principal.user_id is None else None))[1]

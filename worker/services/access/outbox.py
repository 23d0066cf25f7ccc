"""Hooks that we send, for the owner of an API key: users have their own, operators have all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from worker.errors import NotFound, NotPermitted
from worker.models.outbox import DeliveryRow, SubscriptionRow
from worker.services.access.keys import Principal
from worker.services.context import Context
from worker.services.linking.users import find_user
from worker.services.outbox import subscriptions
from worker.services.outbox.subscriptions import Made


async def own(runtime: Context, principal: Principal, hook_id: UUID) -> SubscriptionRow:
    """The hook with this id, if the owner of the key may see it.

    Raises:
        NotFound: there is none.
        NotPermitted: it belongs to another user, or to operators.
    """
    try:
        row = await subscriptions.get(runtime, hook_id)
    except NotFound:
        raise NotFound(f"no hook has the id {hook_id}") from None
    if principal.user_id not in (None, row.user_id):
        raise NotPermitted("this hook belongs to somebody else")
    return row


@dataclass(frozen=True, slots=True)
class WantedHook:
    """A hook that is asked for.

    Attributes:
        user: e-mail address or id of the user whose events; only for an operator's key.
    """

    url: str
    events: Sequence[str]
    description: str
    user: str | None


async def add(runtime: Context, principal: Principal, wanted: WantedHook) -> Made:
    """Adds a hook for the key's user. An operator's key adds it for all users, or for `user`.

    Raises:
        NotPermitted: a user's key names a user.
        BadArgument, NotFound, Refused, Unavailable: see `subscriptions.add` and `find_user`.
    """
    user_id = principal.user_id
    if wanted.user is not None:
        if user_id is not None:
            raise NotPermitted("this API key belongs to one user: leave out user; nothing was saved")
        user_id = await find_user(runtime, wanted.user, create=False)
    return await subscriptions.add(
        runtime,
        url=wanted.url,
        events=wanted.events,
        description=wanted.description,
        user_id=user_id,
        actor=principal.actor,
    )


async def list_own(runtime: Context, principal: Principal) -> list[SubscriptionRow]:
    """The hooks that the owner of the key may see."""
    return await subscriptions.list_all(runtime, user_id=principal.user_id)


async def remove(runtime: Context, principal: Principal, hook_id: UUID) -> None:
    """Removes a hook with its deliveries. Raises what `own` raises."""
    await own(runtime, principal, hook_id)
    await subscriptions.remove(runtime, hook_id, actor=principal.actor)


async def rotate(runtime: Context, principal: Principal, hook_id: UUID) -> Made:
    """Gives a hook a new secret; the old one signs, too, for a day. Raises what `own` raises."""
    await own(runtime, principal, hook_id)
    return await subscriptions.rotate(runtime, hook_id, actor=principal.actor)


async def resume(runtime: Context, principal: Principal, hook_id: UUID) -> SubscriptionRow:
    """Sends again to a hook that is disabled or fails. Raises what `own` raises."""
    await own(runtime, principal, hook_id)
    await subscriptions.resume(runtime, hook_id, actor=principal.actor)
    return await subscriptions.get(runtime, hook_id)


async def test(runtime: Context, principal: Principal, hook_id: UUID) -> UUID:
    """Has a test event sent. Returns its id. Raises what `own` and `subscriptions.test` raise."""
    await own(runtime, principal, hook_id)
    return await subscriptions.test(runtime, hook_id, actor=principal.actor)


async def replay(
    runtime: Context, principal: Principal, hook_id: UUID, *, event_id: UUID | None, since: datetime | None
) -> int:
    """Sends deliveries again. Returns how many. Raises what `own` and `subscriptions.replay` raise."""
    await own(runtime, principal, hook_id)
    return await subscriptions.replay(runtime, hook_id, event_id=event_id, since=since)


async def deliveries(
    runtime: Context, principal: Principal, hook_id: UUID, *, state: str | None, limit: int
) -> Sequence[DeliveryRow]:
    """A hook's deliveries, newest first. Raises what `own` raises."""
    await own(runtime, principal, hook_id)
    return await subscriptions.list_deliveries(runtime, hook_id, state=state, limit=limit)

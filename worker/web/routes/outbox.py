"""Routes for the hooks that we send: who is told of what, and what became of each delivery."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query

from worker.services.access import outbox
from worker.web.asking import Reader, Services, Subscriber
from worker.web.hook_schemas import (
    DeliveryState,
    HookDeliveryList,
    HookDeliveryResponse,
    HookList,
    HookResponse,
    NewHook,
    Replay,
    Replayed,
    TestQueued,
)
from worker.web.problems import documented

router = APIRouter(prefix="/api/v1/hooks", tags=["hooks"])

_ONE = documented(401, 403, 404, 422)
_ENABLED = documented(401, 403, 404, 409, 422)


@router.post("", summary="Add a hook", status_code=201, responses=documented(400, 401, 403, 404, 409, 422))
async def add_hook(body: NewHook, runtime: Services, who: Subscriber) -> HookResponse:
    """Posts events to an address from now on. The answer has the secret that signs them; it is shown only once."""
    return HookResponse.made(await outbox.add(runtime, who, body.wanted()))


@router.get("", summary="List hooks", responses=documented(401, 403))
async def list_hooks(runtime: Services, who: Reader) -> HookList:
    """The hooks of the key's user, or all of them for an operator's key."""
    return HookList(hooks=[HookResponse.of(row) for row in await outbox.list_own(runtime, who)])


@router.get("/{hook_id}", summary="Show a hook", responses=_ONE)
async def get_hook(hook_id: UUID, runtime: Services, who: Reader) -> HookResponse:
    """One hook, with how many deliveries wait or were given up."""
    return HookResponse.of(await outbox.own(runtime, who, hook_id))


@router.delete("/{hook_id}", summary="Remove a hook", status_code=204, responses=_ONE)
async def remove_hook(hook_id: UUID, runtime: Services, who: Subscriber) -> None:
    """Removes a hook with its deliveries; nothing more is sent to it."""
    await outbox.remove(runtime, who, hook_id)


@router.get("/{hook_id}/deliveries", summary="List deliveries", responses=_ONE)
async def list_deliveries(
    hook_id: UUID,
    runtime: Services,
    who: Reader,
    state: DeliveryState | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> HookDeliveryList:
    """A hook's deliveries, newest first."""
    rows = await outbox.deliveries(runtime, who, hook_id, state=state, limit=limit)
    return HookDeliveryList(deliveries=[HookDeliveryResponse.of(row) for row in rows])


@router.post("/{hook_id}/test", summary="Test a hook", status_code=202, responses=_ENABLED)
async def test_hook(hook_id: UUID, runtime: Services, who: Subscriber) -> TestQueued:
    """Has a worker send the event `hook.test`, as it sends any other event."""
    return TestQueued(event_id=await outbox.test(runtime, who, hook_id))


@router.post("/{hook_id}/replay", summary="Send deliveries again", status_code=202, responses=_ENABLED)
async def replay_hook(hook_id: UUID, body: Replay, runtime: Services, who: Subscriber) -> Replayed:
    """Sends one event again, or all since a time; without both, those that were given up."""
    count = await outbox.replay(runtime, who, hook_id, event_id=body.event_id, since=body.since)
    return Replayed(deliveries=count)


@router.post("/{hook_id}/rotate", summary="Rotate a hook's secret", responses=_ONE)
async def rotate_hook(hook_id: UUID, runtime: Services, who: Subscriber) -> HookResponse:
    """Makes a new secret, which is shown only once. For a day, both secrets sign."""
    return HookResponse.made(await outbox.rotate(runtime, who, hook_id))


@router.post("/{hook_id}/resume", summary="Resume a hook", responses=_ONE)
async def resume_hook(hook_id: UUID, runtime: Services, who: Subscriber) -> HookResponse:
    """Sends again, from now on, to a hook that its receiver has ended by 410 Gone, or that fails."""
    return HookResponse.of(await outbox.resume(runtime, who, hook_id))

"""The stream of events (server-sent events): runs, refreshes and states of logins as they happen."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

import anyio
import msgspec
from fastapi import APIRouter, Header, Request
from sse_starlette import EventSourceResponse, ServerSentEvent

from worker.services.access.events import Events, Told
from worker.services.access.keys import Principal
from worker.web.asking import Reader
from worker.web.problems import documented

router = APIRouter(prefix="/api/v1", tags=["work"])

_EXAMPLE = 'event: refresh\ndata: {"type": "refresh", "alias": "My brokerage", "status": "done", …}\nid: …\n\n'
_STREAM = {"text/event-stream": {"schema": {"type": "string", "examples": [_EXAMPLE]}}}
_RETRY_MS = 2000
_SEND_SECONDS = 30
_LEAVE_SECONDS = 3


@router.get(
    "/events",
    summary="Listen to events",
    response_class=EventSourceResponse,
    responses={200: {"description": "a stream without an end", "content": _STREAM}, **documented(400, 401, 403, 429)},
)
async def events(
    request: Request, who: Reader, last_event_id: Annotated[str, Header(max_length=8000)] = ""
) -> EventSourceResponse:
    """What happens to the logins of the key's user, or to all logins for an operator's key.

    With `Last-Event-ID` it goes on after this event. The event `reset` says that some events can no longer be told:
    read what you need anew. The stream ends when the key is revoked.
    """
    return await stream(request, who, last_event_id)


async def stream(request: Request, who: Principal, last_id: str) -> EventSourceResponse:
    """The answer that tells events until the client goes or the key is revoked."""
    found: Events = request.app.state.events
    told, leaving = await found.listen(who, last_id), anyio.Event()
    return EventSourceResponse(
        _written(told, found, leaving),
        ping=0,
        send_timeout=_SEND_SECONDS,
        shutdown_event=leaving,
        shutdown_grace_period=_LEAVE_SECONDS,
    )


async def _written(told: AsyncIterator[Told], events: Events, leaving: anyio.Event) -> AsyncIterator[ServerSentEvent]:
    """The events as they are sent. When the server ends, `leaving` is set, and the stream ends before it."""
    ending = asyncio.create_task(_end_with_the_server(events, leaving))
    try:
        async for one in told:
            yield _event(one)
    finally:
        ending.cancel()


async def _end_with_the_server(events: Events, leaving: anyio.Event) -> None:
    await leaving.wait()
    events.end_all()


def _event(one: Told) -> ServerSentEvent:
    id_ = None if one.position is None else str(one.position)
    if one.is_reset:
        return ServerSentEvent("{}", event="reset", id=id_)
    if one.change is None:
        return ServerSentEvent(comment="alive", id=id_, retry=_RETRY_MS)
    return ServerSentEvent(msgspec.json.encode(one.change.data).decode(), event=one.change.kind, id=id_)

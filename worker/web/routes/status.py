"""The status page: whether all is well, who must act, and what is down; and its buttons."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlencode
from uuid import UUID

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse
from sse_starlette import EventSourceResponse

from worker.models.vocabulary import ProviderStatus
from worker.services.access import acting, link_sessions, watching
from worker.services.fleet.asking import SyncWish
from worker.web.asking import Services, Tasks
from worker.web.pages import HOME, PageRoute
from worker.web.routes.happenings import stream
from worker.web.signing_in import Linking, Pressing, Watching, live_page

router = APIRouter(prefix=HOME, tags=["pages"], route_class=PageRoute, include_in_schema=False)

DONE = {
    "refresh": "A refresh was asked for. Its result appears below.",
    "sync": "A sync was asked for. Its run appears below.",
    "pause": "It is paused: it is neither refreshed nor synced until somebody resumes it.",
    "resume": "It goes on.",
    "replay": "The task was sent again.",
}
"""What a page says after a button was pressed."""

Search = Annotated[str, Query(max_length=100, pattern=r"^[^\x00-\x1f\x7f]*$")]
Key = Annotated[str, Query(pattern="^([a-z][a-z0-9_]{0,31})?$")]
Status = Annotated[str, Query(pattern=f"^({'|'.join(ProviderStatus)})?$")]
Done = Annotated[str, Query(pattern=f"^({'|'.join(DONE)})?$")]


@router.get("")
async def status(
    request: Request,
    runtime: Services,
    session: Watching,
    q: Search = "",
    state: Status = "",
    integration: Key = "",
    before: UUID | None = None,
    done: Done = "",
) -> HTMLResponse:
    """The first screen, and one page of logins."""
    who = session.principal
    seen = await watching.first_screen(runtime, who, request.app.state.lookout)
    page = await watching.logins(runtime, who, text=q, status=state, provider_key=integration, before=before)
    asked = {"q": q, "state": state, "integration": integration, "before": before}
    return live_page(
        "status.html", session, seen=seen, page=page, asked=asked, states=ProviderStatus, done=DONE.get(done)
    )


@router.get("/events")
async def events(request: Request, session: Watching) -> EventSourceResponse:
    """The events that keep an open page up to date, for the script of the page."""
    return await stream(request, session.principal, request.headers.get("last-event-id", ""))


@router.get("/logins/{provider_id}")
async def login(
    provider_id: UUID, request: Request, runtime: Services, session: Watching, done: Done = ""
) -> HTMLResponse:
    """One login: its explanation, its buttons, and a timeline of refreshes and runs."""
    seen = await watching.login(runtime, session.principal, provider_id, transport=request.app.state.transport)
    return live_page("login_status.html", session, seen=seen, done=DONE.get(done))


@router.post("/logins/{provider_id}/refresh")
async def refresh(provider_id: UUID, runtime: Services, session: Pressing, send: Tasks) -> RedirectResponse:
    """Asks for a refresh."""
    await acting.refresh(runtime, session.principal, provider_id, send=send)
    return _back(f"/logins/{provider_id}", "refresh")


@router.post("/logins/{provider_id}/sync")
async def sync(provider_id: UUID, runtime: Services, session: Pressing, send: Tasks) -> RedirectResponse:
    """Asks for a sync."""
    await acting.sync(runtime, session.principal, provider_id, SyncWish(), send=send)
    return _back(f"/logins/{provider_id}", "sync")


@router.post("/logins/{provider_id}/pause")
async def pause(provider_id: UUID, runtime: Services, session: Pressing) -> RedirectResponse:
    """Pauses a login."""
    await acting.pause(runtime, session.principal, provider_id)
    return _back(f"/logins/{provider_id}", "pause")


@router.post("/logins/{provider_id}/resume")
async def resume(provider_id: UUID, runtime: Services, session: Pressing) -> RedirectResponse:
    """Resumes a login."""
    await acting.resume(runtime, session.principal, provider_id)
    return _back(f"/logins/{provider_id}", "resume")


@router.post("/logins/{provider_id}/link")
async def link_again(provider_id: UUID, runtime: Services, session: Linking) -> RedirectResponse:
    """Leads to the page on which the login is linked again."""
    made = await link_sessions.create(runtime, session.principal, link_sessions.Wanted(provider_id=provider_id))
    return RedirectResponse(f"/link?{urlencode({'session': made.token})}", 303)


@router.post("/integrations/{key}/pause")
async def pause_integration(key: str, runtime: Services, session: Pressing) -> RedirectResponse:
    """Stops all calls of an integration."""
    await acting.pause_integration(runtime, session.principal, key)
    return _back("", "pause")


@router.post("/integrations/{key}/resume")
async def resume_integration(key: str, runtime: Services, session: Pressing) -> RedirectResponse:
    """Lets the calls of an integration go on."""
    await acting.resume_integration(runtime, session.principal, key)
    return _back("", "resume")


@router.post("/failures/{failure_id}/replay")
async def replay(failure_id: UUID, runtime: Services, session: Pressing, send: Tasks) -> RedirectResponse:
    """Sends a failed task again."""
    await acting.replay(runtime, session.principal, failure_id, send=send)
    return _back("", "replay")


def _back(path: str, done: str) -> RedirectResponse:
    return RedirectResponse(f"{HOME}{path}?done={done}", 303)

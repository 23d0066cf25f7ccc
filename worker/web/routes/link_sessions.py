"""Routes that make a link session for a user's browser, and that say what became of it."""

from __future__ import annotations

from urllib.parse import urlencode
from uuid import UUID

from fastapi import APIRouter, Request

from worker.services.access import link_sessions
from worker.web.asking import Linker, Services
from worker.web.problems import documented
from worker.web.schemas import LinkSessionResponse, NewLinkSession

router = APIRouter(prefix="/api/v1/link-sessions", tags=["link sessions"])


@router.post("", summary="Make a link session", status_code=201, responses=documented(400, 401, 403, 404, 409, 422))
async def create_session(body: NewLinkSession, request: Request, runtime: Services, who: Linker) -> LinkSessionResponse:
    """The address of a page on which the user links a login. Send the browser there; it comes back to `return_url`."""
    made = await link_sessions.create(runtime, who, body.wanted())
    url = f"{str(request.base_url).rstrip('/')}/link?{urlencode({'session': made.token})}"
    return LinkSessionResponse.of(made.row, url)


@router.get("/{session_id}", summary="Show a link session", responses=documented(401, 403, 404, 422))
async def get_session(session_id: UUID, runtime: Services, who: Linker) -> LinkSessionResponse:
    """What became of it: `open`, `linked`, `cancelled` or `expired`."""
    return LinkSessionResponse.of(await link_sessions.own(runtime, who, session_id))

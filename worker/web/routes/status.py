"""The status page: whether all is well, who must act, and what is down."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from worker.web.asking import Services
from worker.web.pages import PageRoute, page
from worker.web.signing_in import Watching, form_tokens

router = APIRouter(prefix="/status", tags=["pages"], route_class=PageRoute, include_in_schema=False)


@router.get("")
async def status(runtime: Services, session: Watching) -> HTMLResponse:
    """The first screen."""
    return page("status.html", who=session.principal, token=form_tokens(session))

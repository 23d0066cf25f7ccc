"""The page of `dashtam run` that plays the part of an app: its user links a login, and sees it afterwards."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Form, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse

from worker.services.linking import demonstration
from worker.web import forms, signing_in
from worker.web.asking import Services
from worker.web.pages import PageRoute, page
from worker.web.signing_in import entering

router = APIRouter(prefix="/demonstration", tags=["pages"], route_class=PageRoute, include_in_schema=False)

PATH = "/demonstration"


@router.get("")
async def show(
    request: Request, runtime: Services, session_id: Annotated[UUID | None, Query(alias="link_session")] = None
) -> HTMLResponse:
    """The user's logins, a button that links another one, and the result of the last link."""
    seen = await demonstration.look(runtime, session_id)
    secret, _ = signing_in.login_form(request)
    response = page("demonstration.html", seen=seen, action=PATH, form_token=forms.token(secret, PATH))
    signing_in.keep_form(response, request, secret)
    return response


@router.post("", dependencies=[Depends(entering)])
async def begin(
    request: Request, runtime: Services, provider_id: Annotated[UUID | None, Form()] = None
) -> RedirectResponse:
    """Makes a link session, as an app does with its API key, and sends the browser to its page."""
    base = str(request.base_url).rstrip("/")
    made = await demonstration.begin(runtime, provider_id, f"{base}{PATH}")
    return RedirectResponse(f"/link?session={made.token}", 303)

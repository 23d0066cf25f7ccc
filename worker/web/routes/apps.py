"""The page on which a person makes a setup token for an app that speaks SimpleFIN, and revokes what apps hold."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse

from worker.services.access import apps
from worker.services.simplefin.accesses import PATH
from worker.web.asking import Services
from worker.web.pages import PageRoute
from worker.web.signing_in import Linking, Visiting, live_page

router = APIRouter(prefix=PATH, tags=["pages"], route_class=PageRoute, include_in_schema=False)


@router.get("/create")
async def show(runtime: Services, session: Visiting) -> HTMLResponse:
    """Where apps send people for a setup token: a form, and the apps that may read."""
    return live_page("simplefin.html", session, rows=await apps.listed(runtime, session.principal), made=None)


@router.post("/create")
async def create(
    request: Request,
    runtime: Services,
    session: Linking,
    name: Annotated[str, Form(max_length=200)],
    user: Annotated[str, Form(max_length=400)] = "",
) -> HTMLResponse:
    """Makes a setup token, and shows it this once."""
    who = session.principal
    made = await apps.create(runtime, who, name=name, user=user, base_url=str(request.base_url))
    return live_page("simplefin.html", session, rows=await apps.listed(runtime, who), made=made)


@router.post("/accesses/{prefix}/revoke")
async def revoke(prefix: str, runtime: Services, session: Linking) -> RedirectResponse:
    """Takes an app's access away."""
    await apps.revoke(runtime, session.principal, prefix)
    return RedirectResponse(f"{PATH}/create", 303)

"""The pages on which a person links a login: choose an institution, consent or fill in a form, go back to who asked."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from worker.errors import DashtamError
from worker.services.linking import begin, sessions
from worker.services.sync import uploading
from worker.web import cookies, link_pages
from worker.web.asking import Services
from worker.web.link_pages import Filled, Holding, filled
from worker.web.pages import PageRoute
from worker.web.uploads import Uploaded, options_of

router = APIRouter(prefix="/link", tags=["pages"], route_class=PageRoute, include_in_schema=False)


@router.get("")
async def enter(request: Request, runtime: Services, session: Annotated[str, Query(max_length=200)]) -> Response:
    """The address that `POST /api/v1/link-sessions` answers. Its secret goes into a cookie and leaves the address."""
    row, held = await sessions.enter(runtime, session)
    response = RedirectResponse(f"/link/{row.id}", 303)
    if cookies.held(request, row.id).token != held.token:  # a browser that opens it again keeps its own secret
        seconds = runtime.settings.link_session_seconds
        cookies.keep_session(response, request, row.id, held, seconds=seconds)
    return response


@router.get("/scripts/{provider_key}.js")
async def script(provider_key: str, runtime: Services) -> Response:
    """Our script that opens the provider's own form."""
    front_end = begin.enabled(runtime, provider_key).front_end
    text = "" if front_end is None else front_end.adapter
    return Response(text, media_type="text/javascript; charset=utf-8")


@router.get("/{session_id}")
async def choose(session_id: UUID, held: Holding, runtime: Services) -> Response:
    """The list of institutions; leads on if who asked has named one."""
    row = await sessions.look(runtime, session_id, held)
    if row.provider_key is not None:
        return RedirectResponse(f"/link/{session_id}/{row.provider_key}", 303)
    return link_pages.institutions(runtime, row, held)


@router.post("/{session_id}", dependencies=[Depends(filled)])
async def cancel(session_id: UUID, held: Holding, runtime: Services) -> HTMLResponse:
    """Ends the session without a link, and goes back."""
    return link_pages.ended(await sessions.cancel(runtime, session_id, held))


@router.get("/{session_id}/{provider_key}")
async def begin_page(
    session_id: UUID, provider_key: str, held: Holding, runtime: Services, twice: Annotated[str, Query()] = ""
) -> HTMLResponse:
    """Says who asks for what, and has the form of the link kind. `twice=ask`: the login was found to be linked."""
    row = await sessions.look(runtime, session_id, held)
    integration = sessions.offered(runtime, row, provider_key)
    return await link_pages.start(runtime, row, held, integration, asks_anyway=twice == "ask")


@router.post("/{session_id}/{provider_key}")
async def proceed(
    session_id: UUID, provider_key: str, request: Request, held: Holding, form: Filled, runtime: Services
) -> HTMLResponse:
    """Goes on: to the provider's address, to the provider's own form, or back with a link."""
    row = await sessions.look(runtime, session_id, held)
    integration, alias = sessions.offered(runtime, row, provider_key), form.get(sessions.ALIAS, "")
    try:
        step = await sessions.proceed(runtime, session_id, held, provider_key, form)
    except DashtamError as error:
        row = await sessions.look(runtime, session_id, held)
        return await link_pages.start(runtime, row, held, integration, error=error, alias=alias)
    seconds = runtime.settings.link_state_seconds
    return link_pages.after(step, row, held, integration, request, alias=alias, seconds=seconds)


@router.post("/{session_id}/{provider_key}/file")
async def upload(
    session_id: UUID, provider_key: str, held: Holding, given: Uploaded, runtime: Services
) -> HTMLResponse:
    """Imports a file, and goes back."""
    row, (content, form) = await sessions.look(runtime, session_id, held), given
    integration, alias = sessions.offered(runtime, row, provider_key), form.get(sessions.ALIAS, "")
    options = options_of(form)
    try:
        named = (session_id, held, provider_key)
        done = await uploading.upload(runtime, *named, content, alias=alias, options=options)
    except DashtamError as error:
        columns = await uploading.proposed(runtime, content, options) or options
        row = await sessions.look(runtime, session_id, held)
        return await link_pages.start(runtime, row, held, integration, error=error, alias=alias, columns=columns)
    return link_pages.ended(done)

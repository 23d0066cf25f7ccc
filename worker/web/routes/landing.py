"""The page to which a provider sends the browser back, with one address for each integration.

Most providers require the exact address to be registered. So it cannot contain a login's id: `/oauth/<key>/callback`.
"""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from worker.errors import DashtamError, NotFound, ProviderError, Refused
from worker.services.access import authorizing
from worker.services.linking import sessions
from worker.services.linking.duplicates import LinkedAlready
from worker.web import cookies, link_pages
from worker.web.asking import Services
from worker.web.pages import PageRoute

router = APIRouter(prefix="/oauth", tags=["authorization"], route_class=PageRoute)

_STATUSES: tuple[tuple[type[DashtamError], int], ...] = (
    (LinkedAlready, 409),
    (Refused, 400),
    (NotFound, 404),
    (ProviderError, 500),
)


@router.get(
    "/{provider_key}/callback",
    summary="Land in the browser",
    response_class=HTMLResponse,
    responses={status: {"description": "a page that says what happened"} for status in (400, 404, 409, 500, 503)},
)
async def land(provider_key: str, request: Request, runtime: Services) -> HTMLResponse:
    """Completes a link like `…/authorization/callback`, and shows the user a page with the result."""
    if (form := await link_pages.form_again(runtime, request, provider_key)) is not None:
        return form
    came = cookies.came_back(request)
    session = await sessions.of_state(runtime, came.query, came.holder)
    try:
        found = await authorizing.complete_at(runtime, provider_key, query=came.query, holder=came.holder)
    except DashtamError as error:
        status = next((status for kind, status in _STATUSES if isinstance(error, kind)), 503)
        row = session and await sessions.read(runtime, session.id)
        return link_pages.not_linked(row, provider_key, error, status=status, began_here=bool(came.holder))
    row = session and await sessions.read(runtime, session.id)
    response = link_pages.linked(row, found.login.alias)
    cookies.forget(response, came)
    return response

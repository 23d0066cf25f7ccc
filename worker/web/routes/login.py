"""Log in with an API key, and log out."""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import APIRouter, Depends, Form, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from worker.errors import NotAuthenticated
from worker.services.access import sessions
from worker.web import signing_in
from worker.web.asking import Services
from worker.web.pages import HOME, PageRoute, page
from worker.web.signing_in import Leaving, entering

router = APIRouter(tags=["pages"], route_class=PageRoute, include_in_schema=False)

_UNKNOWN = "This key is not known here, or it was revoked or has expired."
# A path of ours: one slash at its beginning, and nothing by which a browser could leave this site.
_OURS = re.compile(r"/(?!/)[A-Za-z0-9/_.~-]*(\?[A-Za-z0-9/_.~=&%+-]*)?")


@router.get("/login")
async def login_page(
    request: Request, runtime: Services, back_to: Annotated[str, Query(alias="next")] = HOME
) -> HTMLResponse:
    """The form for an API key."""
    return _form(request, runtime, _safe(back_to))


@router.post("/login", dependencies=[Depends(entering)])
async def login(
    request: Request,
    runtime: Services,
    key: Annotated[str, Form(max_length=200)],
    back_to: Annotated[str, Form(alias="next", max_length=2000)] = HOME,
) -> Response:
    """Logs the browser in and leads to the page that it wanted."""
    try:
        session = await sessions.begin(runtime, key.strip())
    except NotAuthenticated:
        return _form(
            request, runtime, _safe(back_to), told="This key is not known here, or it was revoked or has expired."
        )
    response = RedirectResponse(_safe(back_to), 303)
    signing_in.keep(response, request, session, seconds=runtime.settings.web_session_seconds)
    return response


@router.post("/logout")
async def logout(request: Request, session: Leaving) -> Response:
    """Deletes the session's cookie."""
    response = RedirectResponse("/login", 303)
    signing_in.forget(response, request)
    return response


def _form(request: Request, runtime: Services, back_to: str, *, told: str = "") -> HTMLResponse:
    secret, form_token = signing_in.login_form(request)
    by_link = runtime.settings.web_login_links
    response = page(
        "login.html",
        status=401 if told else 200,
        allow={"script-src": ["'self'"]} if by_link else None,
        form_token=form_token,
        back_to=back_to,
        told=told,
        by_link=by_link,
    )
    signing_in.keep_form(response, request, secret)
    return response


def _safe(address: str) -> str:
    return address if _OURS.fullmatch(address) else HOME

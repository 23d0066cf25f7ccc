"""The cookie of a browser that is logged in, and the dependencies of pages that need a login."""

from __future__ import annotations

import re
import secrets
from functools import partial
from typing import Annotated, Any

from fastapi import Depends, Request, Response, Security
from fastapi.responses import HTMLResponse
from fastapi.security import SecurityScopes

from worker.models.vocabulary import KeyScope
from worker.services.access import keys, sessions
from worker.services.access.sessions import BrowserSession
from worker.web import forms
from worker.web.asking import Services, require_rate
from worker.web.forms import FormToken
from worker.web.pages import page

_SESSION, _FORM = "dashtam_session", "dashtam_form"
_FORM_SECONDS = 3600
_SECRET_BYTES = 24
_SECRET = re.compile(r"[A-Za-z0-9_-]{32}")


async def signed_in(request: Request, runtime: Services, scopes: SecurityScopes) -> BrowserSession:
    """The session of the browser.

    Raises:
        NotAuthenticated: the browser is not logged in, or its key was revoked.
        NotPermitted: the key lacks one of the route's scopes.
        HTTPException: 429; too many requests with this key.
    """
    session = await sessions.read(runtime, request.cookies.get(_name(request, _SESSION)))
    await require_rate(request, session.principal)
    keys.require(session.principal, scopes.scopes)
    return session


async def pressed(
    request: Request, session: Annotated[BrowserSession, Depends(signed_in)], form_token: FormToken = ""
) -> BrowserSession:
    """The session of a browser that sends a form of ours.

    Raises:
        NotPermitted: the form is not ours; and what `signed_in` raises.
    """
    forms.require(request, session.secret, form_token)
    return session


async def entering(request: Request, form_token: FormToken = "") -> None:
    """Raises `NotPermitted` unless the login form is ours."""
    forms.require(request, request.cookies.get(_name(request, _FORM), ""), form_token)


def login_form(request: Request) -> tuple[str, str]:
    """The secret for the cookie of the login page, kept if the browser has one, and the token of its form."""
    given = request.cookies.get(_name(request, _FORM), "")
    secret = given if _SECRET.fullmatch(given) else secrets.token_urlsafe(_SECRET_BYTES)
    return secret, forms.token(secret, "/login")


def live_page(template: str, session: BrowserSession, **values: Any) -> HTMLResponse:
    """A page for somebody who is logged in, which our script keeps up to date.

    The template gets `who`, the owner of the key; `may_press` and `may_link`; and `token`, which makes the tokens of
    forms.
    """
    who = session.principal
    allow = {"script-src": ["'self'"], "connect-src": ["'self'"]}
    may = {"may_press": KeyScope.OPERATE in who.scopes, "may_link": KeyScope.LINK in who.scopes}
    return page(template, allow=allow, who=who, token=partial(forms.token, session.secret), **may, **values)


def keep_form(response: Response, request: Request, secret: str) -> None:
    """Sets the cookie of the login page."""
    _keep(response, request, _FORM, secret, _FORM_SECONDS)


def keep(response: Response, request: Request, value: str, *, seconds: int) -> None:
    """Sets the session's cookie, which scripts cannot read and other sites cannot make the browser send with a form."""
    _keep(response, request, _SESSION, value, seconds)
    response.delete_cookie(_name(request, _FORM), secure=_is_secure(request), httponly=True)


def forget(response: Response, request: Request) -> None:
    """Deletes the session's cookie from the browser."""
    response.delete_cookie(_name(request, _SESSION), secure=_is_secure(request), httponly=True)


def _keep(response: Response, request: Request, name: str, value: str, seconds: int) -> None:
    secure = _is_secure(request)
    response.set_cookie(
        _name(request, name), value, max_age=seconds, secure=secure, httponly=True, samesite="lax", path="/"
    )


def _name(request: Request, name: str) -> str:
    """The cookie's name. With the prefix, which needs HTTPS, a browser takes it from this very host alone."""
    return f"__Host-{name}" if _is_secure(request) else name


def _is_secure(request: Request) -> bool:
    return request.url.scheme == "https"


Watching = Annotated[BrowserSession, Security(signed_in, scopes=[KeyScope.READ])]
Visiting = Annotated[BrowserSession, Security(signed_in, scopes=[KeyScope.LINK])]
Pressing = Annotated[BrowserSession, Security(pressed, scopes=[KeyScope.OPERATE])]
Linking = Annotated[BrowserSession, Security(pressed, scopes=[KeyScope.LINK])]
Leaving = Annotated[BrowserSession, Security(pressed, scopes=[])]

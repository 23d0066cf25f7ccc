"""Makes HTML pages. Style and scripts are files of this server, so the policy of a page allows nothing inline.

Routes of pages belong to a router with `route_class=PageRoute`; then errors become pages, too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import cache
from http import HTTPStatus
from importlib.resources import files
from typing import Any
from urllib.parse import urlencode

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.routing import APIRoute
from jinja2 import Environment, PackageLoader
from starlette.exceptions import HTTPException

from worker.errors import DashtamError, NotAuthenticated
from worker.models.fleet import Run
from worker.text.spans import when
from worker.web import problems

HOME = "/status"
"""Where a browser comes after its login."""

_POLICY = {
    "default-src": ("'none'",),
    "style-src": ("'self'",),
    "script-src": ("'none'",),
    "connect-src": ("'none'",),
    "img-src": ("'self'",),
    "form-action": ("'self'",),
    "frame-ancestors": ("'none'",),
    "base-uri": ("'none'",),
}


def page(
    template: str, *, status: int = 200, allow: Mapping[str, Sequence[str]] | None = None, **values: Any
) -> HTMLResponse:
    """A page made from a file in `templates`; all values that are inserted are escaped.

    Args:
        template: the file's name.
        status: the HTTP status.
        allow: sources that this page needs, by directive of the Content-Security-Policy: `{"script-src": ["'self'"]}`
            for a script of ours. They replace the directive's default.
        values: what the template inserts.
    """
    directives = {**_POLICY, **(allow or {})}
    policy = "; ".join(f"{name} {' '.join(sources)}" for name, sources in directives.items())
    text = _templates().get_template(template).render(**values)
    return HTMLResponse(text, status, headers={"Content-Security-Policy": policy})


def told(title: str, text: str, *, status: int = 200, back_to: str = "") -> HTMLResponse:
    """A page that tells one thing; `back_to` is the address of a link below it."""
    return page("told.html", status=status, title=title, text=text, back_to=back_to)


def error_page(status: int, text: str, *, back_to: str = "") -> HTMLResponse:
    """A page that tells an error; `text` is a sentence, which may begin in lower case."""
    return told(HTTPStatus(status).phrase, f"{text[:1].upper()}{text[1:]}.", status=status, back_to=back_to)


@cache
def asset(name: str) -> bytes:
    """A file of `static`."""
    return files("worker.web").joinpath("static", name).read_bytes()


@cache
def asset_url(name: str) -> str:
    """The address of a file of `static`. It changes with the file, so browsers may keep what they have."""
    return f"/static/{hashlib.sha256(asset(name)).hexdigest()[:12]}/{name}"


def login_address(back_to: str) -> str:
    """The address of the login page, which afterwards goes to `back_to`."""
    return f"/login?{urlencode({'next': back_to})}"


class PageRoute(APIRoute):
    """A route of a page: errors are told in a page, and a browser that is not logged in is sent to the login page."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """See FastAPI."""
        handle = super().get_route_handler()
        back_to = HOME if self.path.startswith(HOME) else ""

        async def handle_and_tell(request: Request) -> Response:
            try:
                return await handle(request)
            except NotAuthenticated as error:
                if request.method == "GET":
                    path, query = request.url.path, request.url.query
                    return RedirectResponse(login_address(f"{path}?{query}" if query else path), 303)
                return error_page(401, f"{error}: log in at /login and try again", back_to=back_to)
            except DashtamError as error:
                return error_page(problems.status_of(error), str(error), back_to=back_to)
            except RequestValidationError as error:
                told = f"the request was not understood, nothing was changed: {problems.wrong(error)}"
                return error_page(422, told, back_to=back_to)
            except HTTPException as error:
                page = error_page(error.status_code, str(error.detail), back_to=back_to)
                page.headers.update(error.headers or {})
                return page

        return handle_and_tell


@cache
def _templates() -> Environment:
    found = Environment(loader=PackageLoader("worker.web"), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    found.globals["asset"] = asset_url
    found.filters["when"] = when
    found.tests["run"] = lambda one: isinstance(one, Run)
    return found

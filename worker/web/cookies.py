"""The cookie by which a link can be completed only in the browser in which it began."""

from __future__ import annotations

import hashlib
from typing import NamedTuple
from urllib.parse import parse_qs

from fastapi import Request, Response

from worker.services.linking.begin import LinkBegun

_NAME = "dashtam_link_"
_PATH = "/"


class CameBack(NamedTuple):
    """The data that a browser sends when it comes back from a provider.

    Attributes:
        query: the whole query, unchanged.
        cookie: the name of the link's cookie.
        holder: the cookie's value; "" if the browser has none.
    """

    query: str
    cookie: str
    holder: str


def came_back(request: Request) -> CameBack:
    """Reads this data from a request."""
    query = request.scope["query_string"].decode("latin-1")
    cookie = _name(state_in(query))
    return CameBack(query, cookie, request.cookies.get(cookie, ""))


def keep(response: Response, request: Request, state: str, begun: LinkBegun, *, seconds: int) -> None:
    """Sets the link's cookie. The browser sends it when the provider redirects back here; scripts cannot read it."""
    response.set_cookie(
        _name(state),
        begun.holder,
        max_age=seconds,
        path=_PATH,
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="lax",
    )


def forget(response: Response, came: CameBack) -> None:
    """Deletes the cookie from the browser."""
    response.delete_cookie(came.cookie, path=_PATH)


def state_in(query: str) -> str:
    """The state in a query; "" if there is none."""
    return parse_qs(query).get("state", [""])[0]


def _name(state: str) -> str:
    """The cookie's name. Each unfinished link has its own cookie; the name does not reveal the state."""
    return _NAME + hashlib.sha256(state.encode()).hexdigest()[:16]

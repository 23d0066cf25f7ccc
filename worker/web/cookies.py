"""The cookie that ties a link to the browser in which it was begun."""

from __future__ import annotations

import hashlib
from typing import NamedTuple
from urllib.parse import parse_qs

from fastapi import Request, Response

from worker.services.linking.begin import LinkBegun

_NAME = "dashtam_link_"
_PATH = "/"


class CameBack(NamedTuple):
    """What a browser brings back from a provider.

    Attributes:
        query: all of it, as it came.
        cookie: the name of the link's cookie.
        holder: its value; "" when the browser has none.
    """

    query: str
    cookie: str
    holder: str


def came_back(request: Request) -> CameBack:
    """What this request brings."""
    query = request.scope["query_string"].decode("latin-1")
    cookie = _name(state_in(query))
    return CameBack(query, cookie, request.cookies.get(cookie, ""))


def keep(response: Response, request: Request, state: str, begun: LinkBegun, *, seconds: int) -> None:
    """Puts the link's holder into the browser: sent back when the provider leads it here, unreadable for scripts."""
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
    """Takes the cookie out of the browser again."""
    response.delete_cookie(came.cookie, path=_PATH)


def state_in(query: str) -> str:
    """The state that a query names; "" if there is none."""
    return parse_qs(query).get("state", [""])[0]


def _name(state: str) -> str:
    """One cookie for each link that is under way; its name does not give the state away."""
    return _NAME + hashlib.sha256(state.encode()).hexdigest()[:16]

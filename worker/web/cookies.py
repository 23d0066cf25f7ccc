"""The cookies by which a link can be completed only in the browser in which it began."""

from __future__ import annotations

import base64
import hashlib
from typing import NamedTuple
from uuid import UUID

import msgspec
from fastapi import Request, Response

from worker.services.linking.begin import LinkBegun, state_in
from worker.services.linking.sessions import Held

_NAME = "dashtam_link_"
_FORM = "dashtam_form_"
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


def keep(response: Response, request: Request, begun: LinkBegun, *, seconds: int) -> None:
    """Sets the link's cookie. The browser sends it when the provider redirects back here; scripts cannot read it."""
    response.set_cookie(
        _name(begun.state),
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


def keep_session(response: Response, request: Request, session_id: UUID, held: Held, *, seconds: int) -> None:
    """Sets the cookie of a link session. Other sites cannot make the browser send it with a form."""
    response.set_cookie(
        _session(session_id),
        ".".join(held),
        max_age=seconds,
        path=_PATH,
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="lax",
    )


def held(request: Request, session_id: UUID) -> Held:
    """What the browser holds of a link session; empty secrets if it holds nothing."""
    token, _, browser = request.cookies.get(_session(session_id), "").partition(".")
    return Held(token, browser)


class OpenForm(msgspec.Struct, array_like=True):
    """The provider's own form that a browser has open: kept while the institution's login takes the page's place.

    Attributes:
        token: what opens the form.
        renewing, alias, anyway: the fields of our page's form.
    """

    session_id: UUID
    token: str
    renewing: bool
    alias: str
    anyway: bool = False


def keep_form(response: Response, request: Request, provider_key: str, form: OpenForm, *, seconds: int) -> None:
    """Keeps the open form, for the address to which an institution sends the browser back."""
    response.set_cookie(
        _FORM + provider_key,
        base64.urlsafe_b64encode(msgspec.json.encode(form)).decode().rstrip("="),
        max_age=seconds,
        path=f"/oauth/{provider_key}",
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="lax",
    )


def open_form(request: Request, provider_key: str) -> OpenForm | None:
    """The open form that the browser keeps; None if there is none that can be read."""
    kept = request.cookies.get(_FORM + provider_key, "")
    try:
        return msgspec.json.decode(base64.urlsafe_b64decode(kept + "=" * (-len(kept) % 4)), type=OpenForm)
    except (msgspec.MsgspecError, ValueError):
        return None


def _session(session_id: UUID) -> str:
    return f"dashtam_link_session_{session_id.hex}"


def _name(state: str) -> str:
    """The cookie's name. Each unfinished link has its own cookie; the name does not reveal the state."""
    return _NAME + hashlib.sha256(state.encode()).hexdigest()[:16]

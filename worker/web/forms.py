"""Protects forms against requests that another site makes a browser send.

Each form has a hidden field `form_token`, made from a secret that only this browser's cookie and this server know, and
from the address that the form is sent to. A browser that says where a request comes from must also name this site.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import Form, Request

from worker.errors import NotPermitted

_TOKEN_BYTES = 18

FormToken = Annotated[str, Form(max_length=200)]
"""The type of the field `form_token`, which `require` checks."""


def token(secret: str, action: str) -> str:
    """The token of a form.

    Args:
        secret: a random secret that is in a cookie of the browser, which scripts cannot read.
        action: the path that the form is sent to.
    """
    made = hmac.new(secret.encode(), b"form " + action.encode(), hashlib.sha256).digest()
    return base64.urlsafe_b64encode(made[:_TOKEN_BYTES]).decode()


def require(request: Request, secret: str, given: Any) -> None:
    """Checks that a request comes from a form of ours.

    Args:
        request: the request; its path is the form's `action`.
        secret: the secret in the browser's cookie; "" if the browser sent none.
        given: the field `form_token`.

    Raises:
        NotPermitted: it does not. Nothing was changed.
    """
    expected = token(secret, request.scope["path"])
    is_ours = bool(secret) and isinstance(given, str) and hmac.compare_digest(expected.encode(), given.encode())
    if not is_ours or not _comes_from_here(request):
        raise NotPermitted(
            "this form is not from a page that this browser has open, or the page is too old; nothing was changed. Go"
            " back, reload the page, and try again"
        )


def _comes_from_here(request: Request) -> bool:
    """Whether what the browser says of the request's origin names this site; older browsers say nothing."""
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return False
    origin = request.headers.get("origin")
    # With Referrer-Policy: no-referrer, browsers send `null` for a form of our own.
    return origin in (None, "null") or urlsplit(origin).netloc == request.headers.get("host")

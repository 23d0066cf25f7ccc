"""What the SimpleFIN routes share: the credentials of an access URL, and errors in words that apps understand."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import Depends, HTTPException, Request, Response
from fastapi.routing import APIRoute
from fastapi.security import HTTPBasic, HTTPBasicCredentials

from worker.errors import DashtamError
from worker.models.simplefin import AccessRow
from worker.services.simplefin import accesses
from worker.web import problems
from worker.web.asking import Services

_CODES = {400: "gen.api", 403: "gen.auth"}

EXAMPLE = {
    "accounts": [
        {
            "org": {
                "domain": "bank.example",
                "name": "My bank",
                "sfin-url": "https://dashtam.example/simplefin",
                "id": "example",
            },
            "id": "01998a3e-5f7c-7d21-9c7e-0f6a2b9d4e11",
            "name": "Checking (1234)",
            "currency": "USD",
            "balance": "100.50",
            "available-balance": "75.50",
            "balance-date": 1767607200,
            "holdings": [],
            "extra": {"type": "depository", "subtype": "checking"},
            "transactions": [
                {
                    "id": "01998a3e-5f7c-7d21-9c7e-0f6a2b9d4e12",
                    "posted": 1767607200,
                    "amount": "-12.34",
                    "description": "Bait shop",
                    "payee": "Bait shop",
                    "memo": "",
                    "transacted_at": 1767607200,
                }
            ],
        }
    ],
    "errors": ["Connection to My bank may need attention"],
}
"""An answer of version 1."""


_PROBLEM = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "instance", "errors", "errlist", "accounts"],
    "properties": {
        **{key: {"type": "string"} for key in ("type", "title", "detail", "instance")},
        "status": {"type": "integer"},
        "errors": {"type": "array", "items": {"type": "string"}},
        "errlist": {"type": "array", "items": {"type": "object", "required": ["code", "msg"]}},
        **{key: {"type": "array", "maxItems": 0} for key in ("accounts", "connections")},
    },
}


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The value for a route's `responses` that says what the errors of `SimplefinRoute` look like."""
    content = {"application/problem+json": {"schema": _PROBLEM}}
    return {status: {"description": HTTPStatus(status).phrase, "content": content} for status in (*statuses, 429, 503)}


class SimplefinRoute(APIRoute):
    """A route for apps: an error is a problem document that also has the members in which apps look for errors."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """See FastAPI."""
        handle = super().get_route_handler()

        async def handle_and_tell(request: Request) -> Response:
            try:
                return await handle(request)
            except DashtamError as error:
                return _told(self.path, problems.status_of(error), str(error))
            except HTTPException as error:
                return _told(self.path, error.status_code, str(error.detail), error.headers)

        return handle_and_tell


def _told(path: str, status: int, text: str, headers: Any = None) -> Response:
    # The path is the route's, not the request's: that of a claim has a secret in it.
    entry = {"code": _CODES.get(status, "gen."), "msg": text}
    members = {"errors": [text], "errlist": [entry], "connections": [], "accounts": []}
    wait = {"Retry-After": "30"} if status == 503 else {}
    return problems.answer(path, status, text, headers={**wait, **(headers or {})}, members=members)


class _Credentials(HTTPBasic):
    """User name and password, however wrong they are written: an app must get 403 for them and not 401."""

    async def __call__(self, request: Request) -> HTTPBasicCredentials:  # type: ignore[override]
        try:
            found = await super().__call__(request)
        except HTTPException:
            found = None
        return found or HTTPBasicCredentials(username="", password="")


_credentials = _Credentials(
    auto_error=False,
    scheme_name="SimpleFIN",
    description="User name and password of the access URL for which an app has exchanged its setup token.",
)


async def authenticate(
    request: Request, runtime: Services, given: Annotated[HTTPBasicCredentials, Depends(_credentials)]
) -> AccessRow:
    """The access that the request comes with.

    Raises:
        NotPermitted: the credentials are missing, unknown or revoked.
        HTTPException: 429; too many requests with this access.
    """
    access = await accesses.authenticate(runtime, given.username, given.password)
    rate = request.app.state.runtime.settings.web_key_rate
    wait_s = await request.app.state.rates.wait(rate, "simplefin", access.prefix)
    if wait_s is not None:
        seconds = max(1, round(wait_s))
        raise HTTPException(429, f"this access may ask {rate}: try again in {seconds} s", {"Retry-After": str(seconds)})
    return access


Access = Annotated[AccessRow, Depends(authenticate)]

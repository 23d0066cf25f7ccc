"""Error answers: each is a problem document (RFC 9457), with `detail` in the form that clients of FastAPI expect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from worker.errors import (
    BadArgument,
    DashtamError,
    Fenced,
    NotAuthenticated,
    NotFound,
    NotPermitted,
    ProviderError,
    Refused,
    Taken,
    Unavailable,
)
from worker.models.feed_cursor import CursorLost
from worker.services.access.events import TooManyStreams
from worker.telemetry.redaction import redact

_RETRY_SECONDS = 5


class FieldError(BaseModel):
    """The error of one field."""

    field: str
    code: str
    message: str


class Problem(BaseModel):
    """A problem document (RFC 9457)."""

    type: str = "about:blank"
    title: str = Field(examples=["Not Found"])
    status: int = Field(examples=[404])
    detail: str = Field(examples=["no provider has this id"])
    instance: str = Field(examples=["/api/v1/providers/0199…"])
    errors: list[FieldError] | None = None


class _Answer(JSONResponse):
    media_type = "application/problem+json"


_STATUSES: tuple[tuple[type[DashtamError], int], ...] = (
    (NotAuthenticated, 401),
    (NotPermitted, 403),
    (NotFound, 404),
    (BadArgument, 400),
    (CursorLost, 410),
    (Taken, 409),
    (Refused, 409),
    (Fenced, 409),
    (TooManyStreams, 429),
    (Unavailable, 503),
    (ProviderError, 502),
)


def answer(
    path: str,
    status: int,
    detail: str,
    *,
    headers: Mapping[str, str] | None = None,
    errors: Sequence[Any] = (),
    type_: str = "about:blank",
    members: Mapping[str, Any] | None = None,
) -> JSONResponse:
    """A problem document.

    Args:
        path: the path of the request.
        status: the HTTP status.
        detail: a sentence that says what happened and what to do.
        headers: additional headers.
        errors: the errors of single fields; members of `FieldError`.
        type_: by which programs tell this problem from others with the same status.
        members: further members of the document.
    """
    title = HTTPStatus(status).phrase
    content: dict[str, Any] = {"type": type_, "title": title, "status": status, "detail": detail}
    content["instance"] = redact(path)  # that of a SimpleFIN claim has a secret in it
    if errors:
        content["errors"] = list(errors)
    content.update(members or {})
    return _Answer(content, status, dict(headers or {}))


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The value for a route's `responses` that says: answers with these statuses are problem documents."""
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": HTTPStatus(status).phrase, "content": content} for status in sorted(statuses)}


def install(app: FastAPI) -> None:
    """Turns every error that a route raises into a problem document."""
    app.add_exception_handler(DashtamError, _ours)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)


def status_of(error: Exception) -> int:
    """The HTTP status for one of our errors."""
    return next((status for kind, status in _STATUSES if isinstance(error, kind)), 500)


def wrong(error: Exception) -> str:
    """What is wrong with which field. The given values are not repeated, because they may be secrets."""
    return "; ".join(f"{one['field'] or 'the body'}: {one['message']}" for one in _fields(error))


async def _ours(request: Request, error: Exception) -> JSONResponse:
    status = status_of(error)
    headers = {}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if status in (429, 503):
        headers["Retry-After"] = str(_RETRY_SECONDS)
    told = f"{error}; {error.for_clients}" if isinstance(error, Refused) and error.for_clients else str(error)
    type_ = f"urn:dashtam:cursor:{error.kind}" if isinstance(error, CursorLost) else "about:blank"
    return answer(request.url.path, status, told, headers=headers, type_=type_)


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    told = f"the request was not understood, nothing was changed: {wrong(error)}"
    return answer(request.url.path, 422, told, errors=_fields(error))


def _fields(error: Exception) -> list[dict[str, str]]:
    found = error.errors() if isinstance(error, RequestValidationError) else []
    return [
        {"field": "", "code": one["type"], "message": "it is no JSON"}  # its `loc` is a position in the text
        if one["type"] == "json_invalid"
        else {"field": ".".join(str(part) for part in one["loc"][1:]), "code": one["type"], "message": one["msg"]}
        for one in found
    ]


async def _http(request: Request, error: Exception) -> JSONResponse:
    status, detail, headers = 500, "", None
    if isinstance(error, HTTPException):
        status, detail, headers = error.status_code, str(error.detail), error.headers
    return answer(request.url.path, status, _TOLD.get(detail, detail), headers=headers)


_TOLD = {
    "Not Found": "there is nothing at this address; /docs lists what there is",
    "Method Not Allowed": "this address does not take that method; /docs lists those that it takes",
    "There was an error parsing the body": "the body is no JSON that can be read; nothing was changed",
}


def too_often(path: str, who: str, rate: str, wait_s: float) -> JSONResponse:
    """The answer 429 to a request that is over the limit."""
    seconds = max(1, round(wait_s))
    told = f"this {who} may ask {rate}: try again in {seconds} s"
    return answer(path, 429, told, headers={"Retry-After": str(seconds)})

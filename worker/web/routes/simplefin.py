"""Routes for apps that speak SimpleFIN: what versions there are, exchanging a setup token, reading accounts."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import PlainTextResponse, StreamingResponse

from worker.services.simplefin import accesses, currencies, serving, wishes
from worker.web.asking import Services
from worker.web.simplefin_answers import EXAMPLE, Access, SimplefinRoute, documented

router = APIRouter(prefix=accesses.PATH, tags=["SimpleFIN"], route_class=SimplefinRoute)

_SET: dict[str, Any] = {"schema": {"type": "object", "required": ["accounts"], "examples": [EXAMPLE]}}
_URL: dict[str, Any] = {
    "schema": {"type": "string"},
    "example": "https://1f2e3d4c:sfa_…@dashtam.example/simplefin",
}


@router.get("/info", summary="Show the versions of SimpleFIN", responses=documented())
async def info() -> dict[str, list[str]]:
    """The versions of the protocol that this server speaks. The first one is used if an app names none."""
    return {"versions": ["1.0", "2.0"]}


@router.post(
    "/claim/{token}",
    summary="Exchange a setup token",
    response_class=PlainTextResponse,
    responses={200: {"description": "the access URL", "content": {"text/plain": _URL}}, **documented(403)},
)
async def claim(token: str, request: Request, runtime: Services) -> PlainTextResponse:
    """The access URL of a setup token, once. `dashtam simplefin create` makes setup tokens."""
    return PlainTextResponse(await accesses.claim(runtime, token, base_url=str(request.base_url)))


@router.get(
    "/accounts",
    summary="Read accounts by SimpleFIN",
    response_class=StreamingResponse,
    responses={200: {"description": "an account set", "content": {"application/json": _SET}}, **documented(400, 403)},
)
async def accounts(
    request: Request,
    runtime: Services,
    access: Access,
    version: str = "",
    start_date: Annotated[str, Query(alias="start-date")] = "",
    end_date: Annotated[str, Query(alias="end-date")] = "",
    pending: str = "",
    balances_only: Annotated[str, Query(alias="balances-only")] = "",
    account: Annotated[tuple[str, ...], Query()] = (),
) -> Response:
    """Accounts with balances, positions and transactions. Dates are seconds since 1970; the end is not included."""
    wish = wishes.read(
        version=version,
        start_date=start_date,
        end_date=end_date,
        pending=pending,
        balances_only=balances_only,
        accounts=account,
    )
    parts = await serving.answer(runtime, access, wish, accesses.root(runtime, str(request.base_url)))
    return StreamingResponse(parts, media_type="application/json")


@router.get("/currencies/{code}", summary="Describe a custom currency", responses=documented(404))
async def currency(code: str) -> dict[str, str]:
    """The name of a currency that is not in ISO 4217, as SimpleFIN wants it behind the currency's address."""
    return currencies.described(code)

"""The route to which providers post their hooks."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Request, Response

from worker.integrations.kit.hooks import Delivery
from worker.services.hooks import receiving
from worker.web.asking import Services
from worker.web.problems import documented

router = APIRouter(prefix="/webhooks", tags=["hooks"])

_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"description": "it was received; an unknown kind or login changes nothing"},
    401: {"description": "it is not signed as the provider signs its hooks, or it comes too late; the body is empty"},
    503: {"description": "it could not be verified or stored now: send it again; the body is empty"},
}


@router.post(
    "/{provider_key}",
    summary="Receive a hook",
    response_class=Response,
    responses={**documented(404, 408, 413), **_ANSWERS},
)
async def receive(provider_key: str, request: Request, runtime: Services) -> Response:
    """Providers post here when something has changed. No API key is needed: the provider's signature is checked."""
    headers = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers.raw)
    delivery = Delivery(headers, await request.body(), datetime.now(UTC))
    receipt = await receiving.receive(runtime, provider_key, delivery)
    if receipt.asks:
        request.app.state.bell.ring(receipt.asks, after_s=receipt.after_s)
    return Response(status_code=receipt.status)

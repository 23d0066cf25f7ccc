"""The route of the change feed."""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import Annotated, Any, get_type_hints
from uuid import UUID

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, create_model

from worker.models.feed import STATES, Kind, Noun, WantedChanges
from worker.services import feed
from worker.web.asking import Reader, Services
from worker.web.problems import documented

router = APIRouter(prefix="/api/v1", tags=["rows"])


def _model(kind: type) -> type[BaseModel]:
    """The same for the OpenAPI document, which takes no structs of msgspec."""
    fields: dict[str, Any] = {name: (hint, ...) for name, hint in get_type_hints(kind).items()}
    return create_model(kind.__name__, __doc__=kind.__doc__, **fields)


_ROWS: Any = reduce(or_, (_model(state) for state in STATES.values()), None)
_CHANGE = create_model(
    "Change", noun=(Noun, ...), change=(Kind, ...), id=(UUID, ...), row=(_ROWS, ...), __doc__="What happened to a row."
)
_CHANGES = create_model("Changes", items=(list[_CHANGE], ...), cursor=(str, ...), has_more=(bool, ...))
_ID = "01998a3e-5f7c-7d21-9c7e-0f6a2b9d4e11"
_EXAMPLE = {
    "items": [
        {
            "noun": "transactions",
            "change": "added",
            "id": _ID,
            "row": {
                "id": _ID,
                "account_id": "01998a3e-5f7c-7d21-9c7e-0f6a2b9d4e12",
                "posted_date": "2026-01-05",
                "occurred_at": None,
                "settlement_date": None,
                "status": "posted",
                "type": "payment",
                "subtype": None,
                "description": "CORNER GROCERY",
                "counterparty": "Corner Grocery",
                "category": "FOOD_AND_DRINK",
                "amount": "-12.34",
                "currency": "USD",
                "security_id": None,
                "symbol": None,
                "quantity": None,
                "price": None,
                "fees": None,
            },
        },
        {"noun": "balances", "change": "removed", "id": "01998a3e-5f7c-7d21-9c7e-0f6a2b9d4e13", "row": None},
    ],
    "cursor": "AZnEEH…",
    "has_more": False,
}
_ANSWERS = documented(400, 401, 403, 410, 422) | {200: {"content": {"application/json": {"example": _EXAMPLE}}}}


@router.get("/changes", summary="Read the change feed", response_model=_CHANGES, responses=_ANSWERS)
async def list_changes(runtime: Services, who: Reader, wanted: Annotated[WantedChanges, Query()]) -> Response:
    """What was added, modified and removed since the cursor; without a cursor, all rows.

    Apply the items in their order: store each `row` under its `id`, and delete what is `removed`. Then store `cursor`
    and give it to the next request. While `has_more` is true, ask again at once.
    """
    found = await feed.page(runtime, user_id=who.user_id, cursor=wanted.cursor, limit=wanted.limit)
    return Response(found.json, media_type="application/json")

"""Routes that create, list, rename and remove logins."""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Query

from worker.models.vocabulary import LoginState
from worker.services.access import logins
from worker.services.access.logins import LoginQuery
from worker.web.asking import Linker, Numbers, Reader, Services
from worker.web.problems import documented
from worker.web.schemas import Message, NewProvider, ProviderChange, ProviderPage, ProviderResponse

router = APIRouter(prefix="/api/v1/providers", tags=["providers"])


@router.post("", summary="Create a provider", responses=documented(400, 401, 403, 409, 422))
async def create_provider(body: NewProvider, runtime: Services, who: Linker) -> ProviderResponse:
    """Creates a login, which is then linked by its authorization. An operator's key creates it for its own user."""
    row = await logins.create(runtime, who, provider_key=body.provider_key, alias=body.alias)
    return ProviderResponse.of(row)


@router.get("", summary="List providers", responses=documented(400, 401, 403, 422))
async def list_providers(
    runtime: Services,
    totals: Numbers,
    who: Reader,
    page: Annotated[int, Query(ge=1, le=1_000_000)] = 1,
    per_page: Annotated[int, Query(ge=1, le=100)] = 50,
    status: LoginState | None = None,
    provider_key: Annotated[str | None, Query(pattern="^[a-z][a-z0-9_]{0,31}$")] = None,
    sort: Annotated[str, Query(description="created_at, updated_at, alias or provider_key")] = "created_at",
    order: Literal["asc", "desc"] = "desc",
) -> ProviderPage:
    """One page of logins: those of the key's user, or all of them for an operator's key."""
    query = LoginQuery(who.user_id, status, provider_key, sort, order == "desc", page, per_page)
    rows, total = await logins.page(runtime, totals, query)
    return ProviderPage.of(rows, total=total, page=page, per_page=per_page)


@router.get("/{provider_id}", summary="Show a provider", responses=documented(401, 403, 404, 422))
async def get_provider(provider_id: UUID, runtime: Services, who: Reader) -> ProviderResponse:
    """One login."""
    return ProviderResponse.of(await logins.own(runtime, who, provider_id))


@router.patch("/{provider_id}", summary="Rename a provider", responses=documented(401, 403, 404, 409, 422))
async def rename_provider(provider_id: UUID, body: ProviderChange, runtime: Services, who: Linker) -> ProviderResponse:
    """Gives a login another alias; nothing else changes."""
    return ProviderResponse.of(await logins.rename(runtime, who, provider_id, alias=body.alias))


@router.delete("/{provider_id}", summary="Remove a provider", responses=documented(401, 403, 404, 409, 422))
async def remove_provider(provider_id: UUID, runtime: Services, who: Linker) -> Message:
    """Ends the grant and removes the login with all its synced data. The audit log keeps its entries."""
    login, revoked = await logins.remove(runtime, who, provider_id)
    detail = "Its grant was ended at the provider." if revoked else None
    return Message(message=f"{login.alias} was removed", detail=detail)

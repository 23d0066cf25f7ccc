"""Routes that list the integrations with which logins can be linked."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from worker.services.access import catalogue
from worker.services.access.catalogue import ProviderType
from worker.web import row_examples
from worker.web.asking import Services
from worker.web.problems import documented

router = APIRouter(prefix="/api/v1/provider-types", tags=["provider types"])

_LIST = documented(422) | row_examples.shown([row_examples.TYPE])
_ONE = documented(404) | row_examples.shown(row_examples.TYPE)


@router.get("", summary="List provider types", response_model=list[ProviderType], responses=_LIST)
async def list_types(runtime: Services, configured: bool | None = None) -> Any:
    """Every installed integration. With `configured`, only those with which logins can (or cannot) be linked here."""
    return catalogue.types(runtime, configured=configured)


@router.get("/{key}", summary="Show a provider type", response_model=ProviderType, responses=_ONE)
async def get_type(key: str, runtime: Services) -> Any:
    """One integration."""
    return catalogue.type_of(runtime, key)

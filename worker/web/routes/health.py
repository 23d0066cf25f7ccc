"""Routes that say whether this process works, and whether Postgres and Redis answer."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from worker.services import health
from worker.web.asking import Services

router = APIRouter(tags=["health"])


@router.get("/healthz", summary="Alive")
async def alive() -> dict[str, str]:
    """This process answers. Nothing else is checked."""
    return {"status": "alive"}


@router.get("/readyz", summary="Ready", responses={503: {"description": "Postgres or Redis is out of reach"}})
async def ready(request: Request, response: Response, runtime: Services) -> dict[str, Any]:
    """Postgres and Redis answer."""
    trouble = await health.readiness(runtime, request.app.state.transport)
    response.status_code = 503 if any(trouble.values()) else 200
    checks = {name: found or "ok" for name, found in trouble.items()}
    return {"status": "not ready" if any(trouble.values()) else "ready", "checks": checks}


@router.get("/health", summary="State")
async def state(request: Request, runtime: Services) -> dict[str, Any]:
    """Whether the database answers, in the format of earlier versions of this API."""
    trouble = await health.readiness(runtime, request.app.state.transport)
    status = "degraded" if any(trouble.values()) else "healthy"
    database = "disconnected" if trouble["postgres"] else "connected"
    return {"status": status, "database": database, "version": request.app.version}


@router.get("/api/v1/health", summary="Alive")
async def alive_v1() -> dict[str, str]:
    """This version of the API answers."""
    return {"status": "healthy", "version": "v1"}


@router.get("/", summary="What this is")
async def root(request: Request) -> dict[str, Any]:
    """The name of this server and the address of its documentation."""
    endpoints = {"providers": "/api/v1/providers", "provider_types": "/api/v1/provider-types"}
    return {
        "name": request.app.title,
        "version": request.app.version,
        "status": "running",
        "docs": "/docs",
        "api": {"v1": "/api/v1", "endpoints": endpoints},
    }

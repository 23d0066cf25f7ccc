"""Routes that request a sync or a refresh of one login, and that show the results."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response

from worker.models.reading import RunSlice
from worker.models.vocabulary import RunStatus
from worker.services.access import acting, reading
from worker.web import row_examples
from worker.web.asking import Operator, Reader, Services, Tasks
from worker.web.problems import documented
from worker.web.schemas import Explained, Requested, SyncRequest, encoded

router = APIRouter(prefix="/api/v1/providers/{provider_id}", tags=["work"])

_RUNS = documented(401, 403, 404, 422) | row_examples.slice_of(row_examples.RUN)


@router.post("/syncs", summary="Ask for a sync", status_code=202, responses=documented(401, 403, 404, 409, 422))
async def ask_for_sync(
    provider_id: UUID, runtime: Services, who: Operator, send: Tasks, body: SyncRequest | None = None
) -> Requested:
    """Sends the same task that the schedule sends. `GET …/runs` shows the run."""
    wish = (body or SyncRequest()).wish()
    return Requested.of(provider_id, await acting.sync(runtime, who, provider_id, wish, send=send))


@router.post("/refreshes", summary="Ask for a refresh", status_code=202, responses=documented(401, 403, 404, 409, 422))
async def ask_for_refresh(provider_id: UUID, runtime: Services, who: Operator, send: Tasks) -> Requested:
    """Sends the same task that the schedule sends. `GET …/explain` shows the result."""
    return Requested.of(provider_id, await acting.refresh(runtime, who, provider_id, send=send))


@router.get("/runs", summary="List runs", response_model=RunSlice, responses=_RUNS)
async def list_runs(
    provider_id: UUID,
    runtime: Services,
    who: Reader,
    status: RunStatus | None = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 20,
) -> Response:
    """The login's sync runs, newest first."""
    return encoded(await reading.runs(runtime, who, provider_id, status=status, limit=limit))


@router.get("/explain", summary="Explain", responses=documented(401, 403, 404, 422))
async def explain(provider_id: UUID, runtime: Services, who: Reader, request: Request) -> Explained:
    """Why a refresh or a sync did or did not happen, what is next, and who must act: in sentences."""
    transport = request.app.state.transport
    return Explained.of(provider_id, await acting.explain(runtime, who, provider_id, transport=transport))

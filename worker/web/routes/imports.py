"""The route that takes a file of a bank."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request

from worker.services.access import importing
from worker.services.sync.importing import ALIAS
from worker.web.asking import Linker, Services
from worker.web.import_schemas import ImportedFile
from worker.web.problems import documented
from worker.web.schemas import Alias

router = APIRouter(prefix="/api/v1/imports", tags=["work"])

_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


@router.post("", summary="Import a file", responses=documented(400, 401, 403, 404, 409, 413, 422), openapi_extra=_BODY)
async def import_file(
    request: Request,
    runtime: Services,
    who: Linker,
    alias: Annotated[Alias, Query()] = ALIAS,
    set_: Annotated[list[str] | None, Query(alias="set", description="What a column means: NAME=COLUMN.")] = None,
    dry_run: bool = False,
) -> ImportedFile:
    """Stores what is in a file that a bank has handed out; the body is the file. Importing it again changes nothing."""
    content = await request.body()
    done = await importing.import_file(runtime, who, content, alias=alias, options=set_ or [], dry_run=dry_run)
    return ImportedFile.of(done)

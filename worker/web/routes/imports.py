"""The route that takes a file of a bank."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query

from worker.services.access import importing
from worker.services.sync.importing import ALIAS
from worker.web.asking import Linker, Services
from worker.web.import_schemas import ImportedFile
from worker.web.problems import documented
from worker.web.schemas import Alias
from worker.web.uploads import Arriving

router = APIRouter(prefix="/api/v1/imports", tags=["work"])

_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


@router.post(
    "", summary="Import a file", responses=documented(400, 401, 403, 404, 408, 409, 413, 422), openapi_extra=_BODY
)
async def import_file(
    runtime: Services,
    who: Linker,
    content: Arriving,
    alias: Annotated[Alias, Query()] = ALIAS,
    set_: Annotated[list[str] | None, Query(alias="set", description="What a column means: NAME=COLUMN.")] = None,
    dry_run: bool = False,
) -> ImportedFile:
    """Stores what is in a file that a bank has handed out; the body is the file. Importing it again changes nothing."""
    done = await importing.import_file(runtime, who, content, alias=alias, options=set_ or [], dry_run=dry_run)
    return ImportedFile.of(done)

"""The stylesheet and the scripts of our pages."""

from __future__ import annotations

from fastapi import APIRouter, HTTPException, Response

from worker.web.pages import asset, asset_url

router = APIRouter(prefix="/static", tags=["pages"])

_TYPES = {
    "style.css": "text/css; charset=utf-8",
    "enter.js": "text/javascript; charset=utf-8",
    "live.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
_FOR_EVER = "public, max-age=31536000, immutable"


@router.get("/{version}/{name}", include_in_schema=False)
async def static(version: str, name: str) -> Response:
    """One file. An address of another version of it leads nowhere, so that no browser keeps a wrong one."""
    if name not in _TYPES or asset_url(name) != f"/static/{version}/{name}":
        raise HTTPException(404)
    return Response(asset(name), media_type=_TYPES[name], headers={"Cache-Control": _FOR_EVER})

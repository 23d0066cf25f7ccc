"""`/docs`: shows the OpenAPI document as one HTML page that loads nothing but the stylesheet of this server."""

from __future__ import annotations

import json
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from worker.web.pages import page

router = APIRouter(tags=["documentation"])


@router.get("/docs", include_in_schema=False)
async def docs(request: Request) -> HTMLResponse:
    """The page with the documentation of the HTTP API."""
    schema = request.app.openapi()
    return page("docs.html", schema=schema, tags=_by_tag(schema))


def _by_tag(schema: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The operations by their first tag, in the order of the document."""
    found: dict[str, list[dict[str, Any]]] = {}
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            found.setdefault(operation["tags"][0], []).append(
                {
                    "method": method.upper(),
                    "path": path,
                    "operation": operation,
                    "scopes": ", ".join(
                        scope for need in operation.get("security", ()) for scope in need.get("ApiKey", ())
                    ),
                    "body": _example(operation.get("requestBody"), schema),
                    "answer": _example(operation["responses"].get("200"), schema),
                }
            )
    return found


def _example(described: dict[str, Any] | None, schema: dict[str, Any]) -> str:
    """The first example of a body, as JSON text; "" if there is none."""
    content = (described or {}).get("content", {}).get("application/json", {}).get("schema", {})
    name = content.get("$ref", "").rpartition("/")[2]
    examples = schema["components"]["schemas"].get(name, {}).get("examples") or content.get("examples")
    return json.dumps(examples[0], indent=2, ensure_ascii=False) if examples else ""

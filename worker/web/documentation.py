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
                    "answer": _example(_success(operation), schema),
                }
            )
    return found


def _success(operation: dict[str, Any]) -> dict[str, Any]:
    """The answer to a request that was successful."""
    answers: dict[str, Any] = operation["responses"]
    return next((answer for status, answer in answers.items() if status.startswith("2")), {})


def _example(described: dict[str, Any] | None, schema: dict[str, Any]) -> str:
    """The first example of a body, as JSON text; "" if there is none."""
    content = (described or {}).get("content", {}).get("application/json", {})
    part = content.get("schema", {})
    examples = [content["example"]] if "example" in content else _resolved(part, schema).get("examples")
    return json.dumps(examples[0], indent=2, ensure_ascii=False) if examples else ""


def complete_examples(schema: dict[str, Any]) -> None:
    """Puts back each null of an example. FastAPI leaves them out, and then the example is none of its own schema."""
    for operations in schema["paths"].values():
        for operation in operations.values():
            for described in (operation.get("requestBody", {}), *operation["responses"].values()):
                for content in described.get("content", {}).values():
                    _add_nulls(content.get("example"), content.get("schema", {}), schema)
    for model in schema["components"]["schemas"].values():
        for example in model.get("examples", ()):
            _add_nulls(example, model, schema)


def _add_nulls(example: Any, part: dict[str, Any], schema: dict[str, Any]) -> None:
    part = _resolved(part, schema)
    if isinstance(example, list):
        for item in example:
            _add_nulls(item, part.get("items", {}), schema)
    if isinstance(example, dict):
        possible = [_resolved(one, schema) for one in part.get("anyOf", [part])]
        known: list[dict[str, Any]] = [one.get("properties", {}) for one in possible]
        fields = next((names for names in known if example.keys() <= names.keys()), {})
        for name, field in fields.items():
            if name in example:
                _add_nulls(example[name], field, schema)
            elif {"type": "null"} in field.get("anyOf", ()):
                example[name] = None


def _resolved(part: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    name = part.get("$ref", "").rpartition("/")[2]
    found: dict[str, Any] = schema["components"]["schemas"].get(name, part)
    return found

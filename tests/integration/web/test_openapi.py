"""What the OpenAPI document promises holds for whatever is asked: schemathesis makes the requests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi import checks
from structlog.testing import capture_logs

from tests.integration.web.conftest import HOST, Person
from worker.web.application import ROUTERS

pytestmark = pytest.mark.deep

ENDLESS = {"/api/v1/events"}
"""Its answer has no end, so there is nothing to validate; see test_events.py."""
OPERATIONS = sorted(
    (method, route.path)
    for router in ROUTERS
    for route in router.routes
    if route.include_in_schema and route.path not in ENDLESS  # type: ignore[attr-defined]
    for method in route.methods  # type: ignore[attr-defined]
)
CHECKS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
    checks.response_headers_conformance,
]
EXAMPLES = 15


@pytest.fixture(scope="module")
def schema(client: TestClient) -> Any:
    """The application's document."""
    return schemathesis.openapi.from_dict(client.get("/openapi.json").json())


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_answers_are_what_the_document_says(
    client: TestClient, person: Person, schema: Any, method: str, path: str
) -> None:
    operation = schema[path][method]

    @given(case=operation.as_strategy())
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.generate],
    )
    def ask(case: Any) -> None:
        request = case.as_transport_kwargs(base_url=HOST, headers=person.headers)
        request.pop("cookies", None)
        request["content"] = request.pop("data", None)
        response = client.request(**request, follow_redirects=False)
        case.validate_response(response, checks=CHECKS)

    with capture_logs():
        ask()


def _leaves(schema: dict[str, Any], part: dict[str, Any], within: tuple[str, ...] = ()) -> Iterator[str]:
    """The texts in a schema for which it shows no example; other types show themselves what they are."""
    if part.keys() & {"example", "examples", "default", "enum", "const", "format"}:
        return
    if name := part.get("$ref", "").rpartition("/")[2]:
        if name not in within:
            yield from _leaves(schema, schema["components"]["schemas"][name], (*within, name))
    elif "properties" in part:
        for field, inner in part["properties"].items():
            yield from (f"{field} {left}".strip() for left in _leaves(schema, inner, within))
    elif part.get("type") == "array":
        yield from _leaves(schema, part.get("items", {}), within)
    elif part.get("type") == "string":
        yield ""
    for inner in part.get("anyOf", []):
        yield from _leaves(schema, inner, within)


def test_every_answer_and_body_in_json_is_shown_by_an_example_that_its_schema_accepts(client: TestClient) -> None:
    schema = client.get("/openapi.json").json()
    without, shown = [], 0

    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            told = [
                operation.get("requestBody", {}),
                *(operation["responses"][code] for code in operation["responses"]),
            ]
            for content in (one.get("content", {}).get("application/json", {}) for one in told):
                part = content.get("schema", {})
                if "example" in content:
                    shown += 1
                    jsonschema.validate(content["example"], {**part, "components": schema["components"]})
                else:
                    without += [(method, path, left) for left in _leaves(schema, part)]

    assert without == []
    assert shown >= 10
    for model in schema["components"]["schemas"].values():
        for example in model.get("examples", []):
            jsonschema.validate(example, {**model, "components": schema["components"]})

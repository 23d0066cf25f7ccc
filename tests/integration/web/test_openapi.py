"""What the OpenAPI document promises holds for whatever is asked: schemathesis makes the requests."""

from __future__ import annotations

from typing import Any

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

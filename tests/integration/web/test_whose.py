"""Nobody sees or changes another user's rows, or does what their key is not for: each route is tried."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from fastapi.testclient import TestClient
from sqlalchemy.orm import Session

from tests.factories import make_account, make_linked_provider, make_transaction
from tests.integration.web.conftest import Person, Sent, make_key
from worker.models import User
from worker.models.vocabulary import KeyScope
from worker.runtime import Runtime
from worker.web.application import ROUTERS
from worker.web.asking import authenticate

pytestmark = pytest.mark.deep

BODIES: dict[tuple[str, str], Any] = {
    ("POST", "/api/v1/providers"): {"provider_key": "schwab", "alias": "New"},
    ("POST", "/api/v1/link-sessions"): {"alias": "New"},
    ("PATCH", "/api/v1/providers/{provider_id}"): {"alias": "Stolen"},
    ("PUT", "/api/v1/providers/{provider_id}/authorization"): {"public_token": "x"},
}
"""What is sent where a body is needed."""


def _guarded() -> list[tuple[str, str, frozenset[str]]]:
    """Method, path and scopes of every route that asks for a key."""
    found = []
    for route in (route for router in ROUTERS for route in router.routes):
        needs = [part for part in route.dependant.dependencies if part.call is authenticate]
        found += [(method, route.path, frozenset(needs[0].own_oauth_scopes or ())) for method in route.methods if needs]
    return sorted(found)


ROUTES = _guarded()
OF_ONE_LOGIN = [(method, path) for method, path, _ in ROUTES if "{provider_id}" in path]


@pytest.fixture(scope="module")
def hers(web_runtime: Runtime, person: Person) -> UUID:
    """A login of the module's user, with an account and a transaction."""
    with Session(web_runtime.engine) as rows, rows.begin():
        user = rows.get_one(User, person.user_id)
        provider = make_linked_provider(rows, web_runtime.encryption, user=user, alias="Hers")
        make_transaction(rows, account=make_account(rows, provider=provider))
        return provider.id


def _ask(client: TestClient, method: str, path: str, headers: dict[str, str], provider_id: UUID) -> Any:
    url = path.replace("{provider_id}", str(provider_id))
    return client.request(method, url, headers=headers, json=BODIES.get((method, path)))


@pytest.mark.parametrize(("method", "path"), OF_ONE_LOGIN)
def test_a_stranger_gets_nothing_and_changes_nothing(
    client: TestClient, stranger: Person, person: Person, hers: UUID, sent: Sent, method: str, path: str
) -> None:
    before = client.get(f"/api/v1/providers/{hers}", headers=person.headers).json()
    messages = len(sent.tasks)

    response = _ask(client, method, path, stranger.headers, hers)

    assert response.status_code == 403, response.text
    assert response.json()["detail"] == "this provider belongs to another user"
    assert "Hers" not in response.text
    assert client.get(f"/api/v1/providers/{hers}", headers=person.headers).json() == before
    assert len(sent.tasks) == messages


@pytest.mark.parametrize(("method", "path", "scopes"), ROUTES)
def test_without_a_key_that_opens_nothing_is_done(
    client: TestClient, hers: UUID, method: str, path: str, scopes: frozenset[str]
) -> None:
    for headers in (
        {},
        {"Authorization": "Bearer dashtam_00000000_" + "x" * 43},
        {"Authorization": "Bearer "},
        {"Authorization": "Basic YTpi"},
        {"Authorization": "Bearer " + "\x7f" * 100},
    ):
        response = _ask(client, method, path, headers, hers)
        assert response.status_code == 401, (headers, response.text)
        assert response.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("given", KeyScope)
def test_a_key_does_what_its_scope_is_for_and_nothing_else(
    client: TestClient, web_runtime: Runtime, person: Person, hers: UUID, given: KeyScope
) -> None:
    headers = make_key(web_runtime, person.user_id, given)

    for method, path, scopes in ROUTES:
        assert len(scopes) == 1, path
        if scopes != {given}:
            response = _ask(client, method, path, headers, hers)
            assert response.status_code == 403, (method, path)
            assert "lacks the scope" in response.json()["detail"]


STREAM = "/api/v1/events"
"""Its answer has no end; `test_events.py` asks it with the keys of others."""
LISTS = [path for method, path, _ in ROUTES if method == "GET" and "{" not in path and path != STREAM]


@pytest.mark.parametrize("path", LISTS)
def test_lists_have_no_row_of_others(client: TestClient, stranger: Person, hers: UUID, path: str) -> None:
    response = client.get(path, headers=stranger.headers)

    assert response.status_code == 200
    assert str(hers) not in response.text
    assert "Hers" not in response.text

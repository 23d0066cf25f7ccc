"""Hooks that we send, over the HTTP API: own ones alone, secrets once, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
from fastapi.testclient import TestClient

from tests.integration.web.conftest import Person, make_key
from worker.integrations import receivers
from worker.models.vocabulary import KeyScope
from worker.runtime import Runtime

pytestmark = pytest.mark.deep

HOOKS = "/api/v1/hooks"
URL = "https://93.184.215.14/hooks"


@pytest.fixture(scope="module")
def hers(web_runtime: Runtime, person: Person) -> dict[str, str]:
    """A key of the module's user that may change hooks."""
    return make_key(web_runtime, person.user_id, KeyScope.READ, KeyScope.HOOKS)


@pytest.fixture(scope="module")
def theirs(web_runtime: Runtime, stranger: Person) -> dict[str, str]:
    """The same of another user."""
    return make_key(web_runtime, stranger.user_id, KeyScope.READ, KeyScope.HOOKS)


@pytest.fixture(scope="module")
def operators(web_runtime: Runtime) -> dict[str, str]:
    """The same of an operator."""
    return make_key(web_runtime, None, KeyScope.READ, KeyScope.HOOKS)


@pytest.fixture
def hook(client: TestClient, hers: dict[str, str]) -> Iterator[dict[str, Any]]:
    """A hook of the module's user."""
    made = client.post(HOOKS, headers=hers, json={"url": URL, "events": ["sync.completed"]})
    assert made.status_code == 201, made.text
    yield made.json()
    client.delete(f"{HOOKS}/{made.json()['id']}", headers=hers)


def test_secret_is_shown_once_and_a_rotation_shows_the_next(
    client: TestClient, hers: dict[str, str], hook: dict[str, Any]
) -> None:
    path = f"{HOOKS}/{hook['id']}"
    assert hook["secret"].startswith("whsec_")
    assert client.get(path, headers=hers).json()["secret"] is None
    assert hook["secret"] not in client.get(HOOKS, headers=hers).text

    rotated = client.post(f"{path}/rotate", headers=hers).json()

    assert rotated["secret"] not in (None, hook["secret"])
    assert rotated["old_secret_until"] is not None


def test_test_event_waits_among_the_deliveries_and_can_be_replayed(
    client: TestClient, hers: dict[str, str], hook: dict[str, Any]
) -> None:
    path = f"{HOOKS}/{hook['id']}"
    asked = client.post(f"{path}/test", headers=hers)
    assert asked.status_code == 202

    (delivery,) = client.get(f"{path}/deliveries", headers=hers, params={"state": "waiting"}).json()["deliveries"]
    assert (delivery["event_id"], delivery["type"]) == (asked.json()["event_id"], "hook.test")
    assert client.get(path, headers=hers).json()["waiting"] == 1
    again = client.post(f"{path}/replay", headers=hers, json={"event_id": delivery["event_id"]})
    assert (again.status_code, again.json()) == (202, {"deliveries": 1})
    assert client.post(f"{path}/replay", headers=hers, json={}).json() == {"deliveries": 0}
    assert client.post(f"{path}/replay", headers=hers, json={"event_id": str(UUID(int=1))}).status_code == 404
    assert client.post(f"{path}/resume", headers=hers).json()["id"] == hook["id"]


def test_strangers_see_and_change_no_hook_of_others(
    client: TestClient, theirs: dict[str, str], hers: dict[str, str], operators: dict[str, str], hook: dict[str, Any]
) -> None:
    path = f"{HOOKS}/{hook['id']}"
    before = client.get(path, headers=hers).json()
    for method, url in (
        ("GET", path),
        ("GET", f"{path}/deliveries"),
        ("POST", f"{path}/test"),
        ("POST", f"{path}/replay"),
        ("POST", f"{path}/rotate"),
        ("POST", f"{path}/resume"),
        ("DELETE", path),
    ):
        refused = client.request(method, url, headers=theirs, json={} if url.endswith("replay") else None)
        assert refused.status_code == 403, (method, url)
        assert URL not in refused.text
    assert client.get(HOOKS, headers=theirs).json() == {"hooks": []}
    assert client.get(path, headers=hers).json() == before
    assert client.get(path, headers=operators).json() == before


def test_user_s_key_makes_hooks_for_its_user_alone(
    client: TestClient, person: Person, hers: dict[str, str], operators: dict[str, str]
) -> None:
    for given, status in (
        ({"url": URL, "user": str(person.user_id)}, 403),
        ({"url": URL, "events": ["integration.alarm"]}, 400),
    ):
        assert client.post(HOOKS, headers=hers, json=given).status_code == status
    own = client.post(HOOKS, headers=hers, json={"url": URL}).json()
    for_her = client.post(HOOKS, headers=operators, json={"url": URL, "user": str(person.user_id)}).json()
    for_all = client.post(HOOKS, headers=operators, json={"url": URL}).json()

    assert own["user_id"] == for_her["user_id"] == str(person.user_id)
    assert for_all["user_id"] is None
    assert {row["id"] for row in client.get(HOOKS, headers=hers).json()["hooks"]} == {own["id"], for_her["id"]}
    for made in (own, for_her, for_all):
        assert client.delete(f"{HOOKS}/{made['id']}", headers=operators).status_code == 204


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 422),
        ({"url": "https://127.0.0.1/"}, 400),
        ({"url": "https://[::ffff:169.254.169.254]/"}, 400),
        ({"url": "file:///etc/passwd"}, 400),
        ({"url": "https://ada:pw@93.184.215.14/"}, 400),
        ({"url": "https://93.184.215.14/#x"}, 400),
        ({"url": "http://93.184.215.14/"}, 400),
        ({"url": URL, "events": ["nothing"]}, 400),
        ({"url": URL, "events": ["sync.completed"] * 21}, 422),
        ({"url": URL, "description": "a\u202eb"}, 400),
        ({"url": URL, "secret": "whsec_mine"}, 422),
        ({"url": "https://93.184.215.14/" + "x" * 2000}, 422),
    ],
)
def test_what_cannot_be_a_hook_is_refused_and_nothing_is_saved(
    client: TestClient, hers: dict[str, str], body: dict[str, Any], status: int
) -> None:
    refused = client.post(HOOKS, headers=hers, json=body)

    assert refused.status_code == status, refused.text
    assert client.get(HOOKS, headers=hers).json() == {"hooks": []}


def test_name_is_looked_up_before_it_is_saved(
    client: TestClient, hers: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def inside(host: str, port: int) -> list[str]:
        return ["10.0.0.1"]

    monkeypatch.setattr(receivers.Receivers.__init__, "__kwdefaults__", {"seconds": 15, "look_up": inside, "tls": None})

    refused = client.post(HOOKS, headers=hers, json={"url": "https://intranet.example.org/"})

    assert refused.status_code == 400
    assert "private network" in refused.json()["detail"]

"""The provider API: the statuses and bodies that its first version described, to the letter."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text
from sqlalchemy.orm import Session

from tests.factories import make_account, make_linked_provider, make_provider
from tests.integration.web.conftest import Person, make_person
from tests.support.providers import LASTING_KEY, REFRESHED_KEY
from worker.models import User
from worker.runtime import Runtime

PROVIDERS = "/api/v1/providers"
FIELDS = {
    "id",
    "provider_key",
    "alias",
    "status",
    "is_connected",
    "needs_reconnection",
    "connected_at",
    "last_sync_at",
    "accounts_count",
}


@pytest.mark.deep
def test_create_provider_endpoint(client: TestClient, superuser_token_headers: dict[str, str]):  # type: ignore[no-untyped-def]
    data = {"provider_key": "schwab", "alias": "My Schwab Account"}
    response = client.post("/api/v1/providers/", headers=superuser_token_headers, json=data)
    assert response.status_code == 200
    content = response.json()
    assert content["provider_key"] == "schwab"
    assert content["alias"] == "My Schwab Account"
    assert "id" in content


@pytest.fixture
def ada(web_runtime: Runtime) -> Person:
    """A user who has no login yet."""
    return make_person(web_runtime)


def _make(client: TestClient, person: Person, alias: str = "Main", key: str = REFRESHED_KEY) -> dict[str, Any]:
    response = client.post(PROVIDERS, headers=person.headers, json={"provider_key": key, "alias": alias})
    assert response.status_code == 200, response.text
    made: dict[str, Any] = response.json()
    return made


def _linked(rows: Session, web_runtime: Runtime, person: Person, **values: Any) -> UUID:
    user = rows.get_one(User, person.user_id)
    provider = make_linked_provider(rows, web_runtime.encryption, user=user, **values)
    rows.commit()
    return provider.id


@pytest.mark.deep
def test_new_login_is_pending_and_must_be_linked(client: TestClient, ada: Person) -> None:
    made = _make(client, ada)

    assert made.keys() == FIELDS
    assert (made["status"], made["is_connected"], made["needs_reconnection"]) == ("pending", False, True)
    assert (made["connected_at"], made["last_sync_at"], made["accounts_count"]) == (None, None, 0)
    assert client.get(f"{PROVIDERS}/{made['id']}", headers=ada.headers).json() == made


def test_the_audit_log_says_which_key_made_it(client: TestClient, ada: Person, rows: Session) -> None:
    made = _make(client, ada)
    client.patch(f"{PROVIDERS}/{made['id']}", headers=ada.headers, json={"alias": "Other"})
    client.delete(f"{PROVIDERS}/{made['id']}", headers=ada.headers)

    log = rows.execute(
        text("SELECT action, actor FROM provider_audit_logs WHERE provider_id = :id ORDER BY seq"), {"id": made["id"]}
    ).all()

    assert [entry.action for entry in log] == ["created", "renamed", "unlinked", "removed"]
    prefix = ada.headers["Authorization"].split("_")[1]
    assert {entry.actor for entry in log} == {f"user:key {prefix}"}


@pytest.mark.deep
@pytest.mark.parametrize(
    ("data", "status"),
    [
        ({"provider_key": "nobank", "alias": "x"}, 400),
        ({"provider_key": REFRESHED_KEY}, 422),
        ({"alias": "x"}, 422),
        ({"provider_key": REFRESHED_KEY, "alias": ""}, 422),
        ({"provider_key": REFRESHED_KEY, "alias": " "}, 422),
        ({"provider_key": REFRESHED_KEY, "alias": "x" * 101}, 422),
        ({"provider_key": REFRESHED_KEY, "alias": "a\u202eb"}, 422),
        ({"provider_key": REFRESHED_KEY, "alias": "a\r\nSet-Cookie: b"}, 422),
        ({"provider_key": "", "alias": "x"}, 422),
        ({"provider_key": "x" * 51, "alias": "x"}, 422),
        ({"provider_key": 7, "alias": []}, 422),
        ([], 422),
        (None, 422),
    ],
)
def test_login_that_cannot_be_made_is_refused_and_nothing_is(
    client: TestClient, ada: Person, data: Any, status: int
) -> None:
    response = client.post(PROVIDERS, headers=ada.headers, json=data)

    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert isinstance(response.json()["detail"], str)
    assert client.get(PROVIDERS, headers=ada.headers).json()["total"] == 0


@pytest.mark.deep
@pytest.mark.parametrize(
    "body",
    [
        b"[" * 10_000,
        b'{"alias":' * 10_000,
        b'{"alias":"\xff\xfe"}',
        b"{",
        b"",
        b'{"alias":"\\ud800","provider_key":"x"}',
    ],
    ids=["nested", "nested objects", "no UTF-8", "cut off", "empty", "half a character"],
)
def test_body_that_is_no_json_is_a_clear_problem(client: TestClient, ada: Person, body: bytes) -> None:
    headers = ada.headers | {"Content-Type": "application/json"}

    response = client.post(PROVIDERS, headers=headers, content=body)

    assert response.status_code in (400, 422)
    assert response.headers["content-type"] == "application/problem+json"
    assert "Traceback" not in response.text
    told = {error["field"] for error in response.json().get("errors", [])}
    assert not any(name.isdigit() for name in told), "a position in the text is no field"
    assert client.get(PROVIDERS, headers=ada.headers).json()["total"] == 0


@pytest.mark.deep
def test_an_alias_is_had_once_whoever_is_first(client: TestClient, ada: Person, stranger: Person) -> None:
    _make(client, ada, "Main")
    data = {"provider_key": LASTING_KEY, "alias": "Main"}

    again = client.post(PROVIDERS, headers=ada.headers, json=data)

    assert again.status_code == 409
    assert client.post(PROVIDERS, headers=stranger.headers, json=data).status_code == 200


@pytest.mark.deep
def test_two_that_ask_at_once_for_the_same_alias_make_one_login(client: TestClient, ada: Person) -> None:
    data = {"provider_key": REFRESHED_KEY, "alias": "Main"}

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: client.post(PROVIDERS, headers=ada.headers, json=data), range(4)))

    assert sorted(answer.status_code for answer in answers) == [200, 409, 409, 409]


@pytest.mark.deep
def test_page_of_logins(client: TestClient, ada: Person, stranger: Person) -> None:
    made = [_make(client, ada, alias) for alias in ("b", "a", "c")]
    _make(client, stranger, "not hers")

    first = client.get(f"{PROVIDERS}?per_page=2", headers=ada.headers).json()
    second = client.get(f"{PROVIDERS}/?per_page=2&page=2", headers=ada.headers).json()
    beyond = client.get(f"{PROVIDERS}?page=9", headers=ada.headers).json()

    assert [item["id"] for item in first["items"] + second["items"]] == [one["id"] for one in reversed(made)]
    assert {name: first[name] for name in first if name != "items"} == {
        "total": 3,
        "page": 1,
        "per_page": 2,
        "pages": 2,
        "has_next": True,
        "has_prev": False,
    }
    assert (second["has_next"], second["has_prev"]) == (False, True)
    assert (beyond["items"], beyond["total"]) == ([], 3)


@pytest.mark.deep
def test_logins_are_sorted_and_filtered(client: TestClient, ada: Person, web_runtime: Runtime, rows: Session) -> None:
    for alias, key in (("b", REFRESHED_KEY), ("a", LASTING_KEY)):
        _make(client, ada, alias, key)
    _linked(rows, web_runtime, ada, alias="c", synced_at=datetime.now(UTC))

    def aliases(query: str) -> list[str]:
        answer = client.get(f"{PROVIDERS}?{query}", headers=ada.headers)
        assert answer.status_code == 200, answer.text
        return [item["alias"] for item in answer.json()["items"]]

    assert aliases("sort=alias&order=asc") == ["a", "b", "c"]
    assert aliases("sort=created_at&order=asc") == ["b", "a", "c"]
    assert aliases("sort=updated_at") == ["c", "a", "b"]
    assert aliases("status=active") == ["c"]
    assert aliases(f"provider_key={LASTING_KEY}") == ["a"]
    assert aliases("sort=provider_key&order=asc")[0] == "a"


@pytest.mark.deep
@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("sort=balance", 400),
        ("sort=id; DROP TABLE providers", 400),
        ("status=fine", 422),
        ("page=0", 422),
        ("per_page=0", 422),
        ("per_page=101", 422),
        ("page=1e9", 422),
        ("order=sideways", 422),
        ("provider_key=%00", 422),
        ("provider_key=a'b", 422),
    ],
)
def test_page_that_cannot_be_is_refused(client: TestClient, ada: Person, query: str, status: int) -> None:
    assert client.get(f"{PROVIDERS}?{query}", headers=ada.headers).status_code == status


@pytest.mark.deep
@pytest.mark.parametrize(
    ("stored", "reason", "told", "connected", "reconnect"),
    [
        ("active", None, "active", True, False),
        ("paused", "asked", "paused", False, False),
        ("needs_reauth", "grant_expired", "expired", False, True),
        ("needs_reauth", "lost_rotation", "error", False, True),
        ("needs_reauth", "invalid_grant", "revoked", False, True),
        ("unlinked", None, "revoked", False, True),
    ],
)
def test_each_status_is_told_in_the_words_of_the_interface(
    client: TestClient,
    ada: Person,
    web_runtime: Runtime,
    rows: Session,
    stored: str,
    reason: str | None,
    told: str,
    connected: bool,
    reconnect: bool,
) -> None:
    id_ = _linked(rows, web_runtime, ada, alias="x", status=stored, status_reason=reason)

    shown = client.get(f"{PROVIDERS}/{id_}", headers=ada.headers).json()
    filtered = client.get(f"{PROVIDERS}?status={told}", headers=ada.headers).json()

    assert (shown["status"], shown["is_connected"], shown["needs_reconnection"]) == (told, connected, reconnect)
    assert [item["id"] for item in filtered["items"]] == [str(id_)]


@pytest.mark.deep
def test_open_accounts_are_counted(client: TestClient, ada: Person, web_runtime: Runtime, rows: Session) -> None:
    provider = make_provider(rows, user=rows.get_one(User, ada.user_id), alias="x")
    for status in ("active", "active", "closed"):
        make_account(rows, provider=provider, status=status)
    rows.commit()

    assert client.get(f"{PROVIDERS}/{provider.id}", headers=ada.headers).json()["accounts_count"] == 2


@pytest.mark.deep
def test_operator_sees_everybodys_logins(
    client: TestClient, ada: Person, superuser_token_headers: dict[str, str]
) -> None:
    made = _make(client, ada)

    listed = client.get(f"{PROVIDERS}?per_page=100", headers=superuser_token_headers).json()

    assert made["id"] in [item["id"] for item in listed["items"]]
    assert client.get(f"{PROVIDERS}/{made['id']}", headers=superuser_token_headers).status_code == 200


@pytest.mark.deep
def test_renaming_changes_the_alias_alone(client: TestClient, ada: Person) -> None:
    made, other = _make(client, ada, "old"), _make(client, ada, "taken")

    renamed = client.patch(f"{PROVIDERS}/{made['id']}/", headers=ada.headers, json={"alias": "new"})
    taken = client.patch(f"{PROVIDERS}/{made['id']}", headers=ada.headers, json={"alias": "taken"})
    same = client.patch(f"{PROVIDERS}/{other['id']}", headers=ada.headers, json={"alias": "taken"})
    bad = client.patch(f"{PROVIDERS}/{made['id']}", headers=ada.headers, json={"alias": ""})

    assert (renamed.status_code, renamed.json()) == (200, made | {"alias": "new"})
    assert (taken.status_code, same.status_code, bad.status_code) == (409, 200, 422)


@pytest.mark.deep
def test_removing_takes_the_rows_and_frees_the_alias(
    client: TestClient, ada: Person, web_runtime: Runtime, rows: Session
) -> None:
    provider = make_provider(rows, user=rows.get_one(User, ada.user_id), alias="Main")
    make_account(rows, provider=provider)
    rows.commit()

    removed = client.delete(f"{PROVIDERS}/{provider.id}", headers=ada.headers)
    gone = client.get(f"{PROVIDERS}/{provider.id}", headers=ada.headers)

    assert (removed.status_code, removed.json()["message"]) == (200, "Main was removed")
    assert gone.status_code == 404
    assert _make(client, ada, "Main")
    left = rows.execute(text("SELECT count(*) FROM accounts WHERE provider_id = :id"), {"id": provider.id}).scalar()
    assert left == 0


@pytest.mark.deep
@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
@pytest.mark.parametrize(("id_", "status"), [("01890000-0000-7000-8000-00000000abcd", 404), ("not-a-uuid", 422)])
def test_login_that_is_not_there(client: TestClient, ada: Person, method: str, id_: str, status: int) -> None:
    body = {"alias": "x"} if method == "PATCH" else None

    assert client.request(method, f"{PROVIDERS}/{id_}", headers=ada.headers, json=body).status_code == status


def test_provider_types(client: TestClient) -> None:
    listed = client.get("/api/v1/provider-types/").json()
    one = client.get(f"/api/v1/provider-types/{REFRESHED_KEY}")

    assert {REFRESHED_KEY, LASTING_KEY} <= {item["key"] for item in listed}
    assert one.json() in listed
    assert one.json().keys() == {
        "key",
        "name",
        "provider_type",
        "description",
        "icon_url",
        "is_configured",
        "supported_features",
    }
    assert client.get("/api/v1/provider-types?configured=false").json() == []
    assert client.get("/api/v1/provider-types?configured=true").json() == listed
    assert client.get("/api/v1/provider-types/nobank").status_code == 404

"""Files of banks that are sent to the HTTP API."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from tests.integration.web.conftest import Person, make_key, make_person
from tests.unit.integrations.statement_files.test_ofx import NUMBER, sgml, sgml_row
from worker.models.vocabulary import KeyScope
from worker.runtime import Runtime

pytestmark = pytest.mark.deep

IMPORTS = "/api/v1/imports"
CSV = b"Date,Text,Amount\n13/03/2025,Bait,-1.50\n"


@pytest.fixture
def ada(web_runtime: Runtime) -> Person:
    """A user of their own."""
    return make_person(web_runtime)


def logins(client: TestClient, person: Person) -> list[str]:
    return [one["alias"] for one in client.get("/api/v1/providers", headers=person.headers).json()["items"]]


def test_file_is_looked_at_and_stored_and_stored_again(client: TestClient, ada: Person) -> None:
    content = sgml(sgml_row(), sgml_row("2", "20250230"))

    looked = client.post(IMPORTS, headers=ada.headers, content=content, params={"dry_run": "true"}).json()
    none_yet = logins(client, ada)
    stored = client.post(IMPORTS, headers=ada.headers, content=content).json()
    again = client.post(IMPORTS, headers=ada.headers, content=content).json()

    assert (looked["run_id"], looked["statements"][0]["rows"], none_yet) == (None, 1, [])
    assert (stored["added"], stored["quarantined"], stored["statements"][0]["balance"]) == (3, 1, "100.00")
    assert (again["added"], again["changed"]) == (0, 0)
    assert logins(client, ada) == ["Files"]
    assert NUMBER not in f"{looked}{stored}{again}"


def test_columns_of_a_csv_file_are_proposed_and_confirmed(client: TestClient, ada: Person) -> None:
    looked = client.post(IMPORTS, headers=ada.headers, content=CSV, params={"dry_run": "true"}).json()
    unconfirmed = client.post(IMPORTS, headers=ada.headers, content=CSV)
    chosen = [f"{name}={value}" for name, value in {**looked["proposal"], "currency": "USD", "account": "1"}.items()]
    stored = client.post(IMPORTS, headers=ada.headers, content=CSV, params={"set": chosen, "alias": "Mine"})

    assert unconfirmed.status_code == 409
    assert (stored.status_code, stored.json()["statements"][0]["rows"]) == (200, 1)
    assert logins(client, ada) == ["Mine"]


@pytest.mark.parametrize(
    ("content", "params", "status"),
    [
        (b"", {}, 409),
        (b"hello", {}, 409),
        (sgml(sgml_row())[:-30], {}, 409),
        (CSV, {"set": "date"}, 400),
        (CSV, {"alias": "\x00"}, 422),
        (b"x" * 300_000, {}, 413),
    ],
)
def test_what_cannot_be_read_is_refused_and_nothing_is_stored(
    client: TestClient, ada: Person, content: bytes, params: dict[str, str], status: int
) -> None:
    response = client.post(IMPORTS, headers=ada.headers, content=content, params=params)

    assert response.status_code == status, response.text
    assert logins(client, ada) == []


def test_key_of_an_operator_is_told_to_use_that_of_the_user(client: TestClient, web_runtime: Runtime) -> None:
    response = client.post(IMPORTS, headers=make_key(web_runtime, None, KeyScope.LINK), content=CSV)

    assert response.status_code == 403
    assert "use a key of that user" in response.json()["detail"]

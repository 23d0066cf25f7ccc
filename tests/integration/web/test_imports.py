"""Files of banks that are sent to the HTTP API."""

from __future__ import annotations

import asyncio

import pytest
from fastapi.testclient import TestClient

from tests.integration.web.conftest import Person, make_key, make_person
from tests.support.link_journey import Journey, form_of
from tests.unit.integrations.statement_files.test_ofx import NUMBER, sgml, sgml_row
from worker.models.vocabulary import KeyScope
from worker.runtime import Runtime
from worker.web import uploads

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


def test_file_may_be_longer_than_other_bodies_and_a_stranger_s_is_not_read(client: TestClient, ada: Person) -> None:
    content = sgml(sgml_row()).replace(b"</OFX>", b" " * 400_000 + b"</OFX>")
    assert client.post(IMPORTS, headers=ada.headers, content=content).status_code == 200
    assert client.post(IMPORTS, headers=ada.headers, content=(b"x" * (1 << 20) for _ in range(12))).status_code == 413
    assert client.post(IMPORTS, content=b"x" * (11 << 20)).status_code == 401


def test_person_uploads_a_file_on_the_pages_of_a_link(client: TestClient, ada: Person) -> None:
    journey = Journey.begin(client, ada.headers)
    page = journey.open("statement_files")
    form = form_of(page)

    nothing = client.post(form.action.removesuffix("/file"), data=form.fields)
    forged = client.post(form.action, data=form.fields | {"form_token": "x"}, files={"file": ("a", CSV)})
    asked = client.post(form.action, data=form.fields, files={"file": ("march.csv", CSV)})
    chosen = "date=Date\norder=dmy\namount=Amount\ndecimal=.\ncurrency=USD\naccount=1"
    none_yet = logins(client, ada)
    done = client.post(form.action, data=form.fields | {"columns": chosen}, files={"file": ("march.csv", CSV)})

    assert 'enctype="multipart/form-data"' in page.text
    assert (nothing.status_code, forged.status_code, asked.status_code, none_yet) == (403, 403, 409, [])
    assert "order=dmy" in asked.text.splitlines()
    assert {"currency=", "account=</textarea>"} & set(asked.text.splitlines()), "what is still to be filled in"
    assert "--set" not in asked.text
    assert (done.status_code, logins(client, ada)) == (200, ["Files"])
    assert journey.state(ada.headers)["status"] == "linked"
    (files,) = client.get("/api/v1/providers", headers=ada.headers).json()["items"]
    more = Journey.begin(client, ada.headers, provider_id=files["id"])
    form = form_of(more.open())
    again = client.post(form.action, data=form.fields, files={"file": ("march.csv", CSV)})
    assert (again.status_code, more.state(ada.headers)["provider_id"]) == (200, files["id"])


def test_file_waits_while_as_many_as_fit_are_in_memory(
    client: TestClient, ada: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client.app.state, "uploads", asyncio.Semaphore(0))  # type: ignore[attr-defined]
    monkeypatch.setattr(uploads, "_PATIENCE", 0.001)

    response = client.post(IMPORTS, headers=ada.headers, content=sgml(sgml_row()))

    assert response.status_code == 408
    assert logins(client, ada) == []


@pytest.mark.parametrize(
    ("content", "params", "status"),
    [
        (b"", {}, 409),
        (b"hello", {}, 409),
        (sgml(sgml_row())[:-30], {}, 409),
        (CSV, {"set": "date"}, 400),
        (CSV, {"alias": "\x00"}, 422),
        (b"x" * (11 << 20), {}, 413),
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

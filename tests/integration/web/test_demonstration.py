"""The page of `dashtam run` on which a person links a login of the sandbox."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from fastapi.testclient import TestClient

from tests.integration.web.conftest import HOST, Person
from tests.support.link_journey import Journey, form_of, leads_to
from tests.support.providers import LASTING_KEY
from tests.support.sandbox import SandboxAdmin
from worker.runtime import Runtime

pytestmark = pytest.mark.deep

PAGE = "/demonstration"


@pytest.fixture
def demonstration(web_runtime: Runtime, client: TestClient) -> Iterator[TestClient]:
    """A browser, with the demonstration switched on."""
    client.cookies.clear()
    before = web_runtime.settings
    web_runtime.settings = before.model_copy(
        update={"demonstration_user": "demo@dashtam.localhost", "link_return_origins": HOST}
    )
    yield client
    web_runtime.settings = before
    client.cookies.clear()


def _link(client: TestClient, sandbox: SandboxAdmin, alias: str, *, number: int) -> str:
    """Links a login of the sandbox, and returns the address to which the browser goes back."""
    form = form_of(client.get(PAGE))
    choice = client.post(form.action, data=form.fields)
    assert "The demonstration</b> asks you" in choice.text
    journey = Journey(client, {})
    opened = journey.send(client.get(f"{choice.url.path}/{LASTING_KEY}"), alias=alias)
    name = sandbox.create_logins(LASTING_KEY, number)[-1]  # its Item has an id that no other test's has
    return leads_to(journey.send(opened, public_token=sandbox.link(name)["public_token"]))


def test_user_links_a_login_and_sees_it(demonstration: TestClient, sandbox: SandboxAdmin) -> None:
    address = _link(demonstration, sandbox, "My bank", number=1)

    assert address.startswith(f"{HOST}{PAGE}?link_session=")
    assert "<b>Linked.</b> My bank is active" in demonstration.get(address).text


def test_login_is_linked_again_from_its_row(demonstration: TestClient, sandbox: SandboxAdmin) -> None:
    _link(demonstration, sandbox, "Another", number=3)
    form = form_of(demonstration.get(PAGE), of=1)

    start = demonstration.post(form.action, data=form.fields)
    cancelled = Journey(demonstration, {}).cancel(start)

    assert "provider_id" in form.fields
    assert "renew the consent" in start.text
    assert "Nothing was linked." in demonstration.get(leads_to(cancelled)).text


def test_elsewhere_there_is_no_demonstration(client: TestClient) -> None:
    client.cookies.clear()

    assert client.get(PAGE).status_code == 404
    assert client.post(PAGE).status_code == 403


def test_page_shows_nothing_of_others(demonstration: TestClient, person: Person) -> None:
    made = demonstration.post("/api/v1/link-sessions", headers=person.headers, json={}).json()
    login = demonstration.post(
        "/api/v1/providers", headers=person.headers, json={"provider_key": LASTING_KEY, "alias": "Hers"}
    ).json()
    form = form_of(demonstration.get(PAGE))

    assert demonstration.get(f"{PAGE}?link_session={made['id']}").status_code == 404
    assert demonstration.post(PAGE, data=form.fields | {"provider_id": login["id"]}).status_code == 404
    assert urlsplit(made["url"]).path == "/link"

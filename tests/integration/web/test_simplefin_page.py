"""The page on which a person makes a setup token and revokes what apps hold: for users their own, for operators all."""

from __future__ import annotations

import base64
import re
from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.integration.web.conftest import Person, make_key, make_person, runtime_run
from tests.integration.web.test_login import browser, form_token, log_in
from worker.models import User
from worker.runtime import Runtime
from worker.services.simplefin import accesses

__all__ = ["browser"]  # fixture

PAGE = "/simplefin/create"


def send(browser: TestClient, action: str, **fields: str) -> Any:
    fields |= {"form_token": form_token(browser.get(PAGE).text, action)}
    return browser.post(action, data=fields, follow_redirects=False)


def made(browser: TestClient, **fields: str) -> tuple[str, str]:
    """The setup token and the prefix of a new access."""
    page = send(browser, PAGE, **fields)
    assert page.status_code == 200, page.text
    (token,) = re.findall(r'id="setup-token" value="([^"]+)"', page.text)
    return token, re.findall(r'id="access-([0-9a-f]{8})"', page.text)[-1]


def test_a_user_makes_a_setup_token_that_is_shown_once_and_revokes_it(
    browser: TestClient, web_runtime: Runtime
) -> None:
    ada = make_person(web_runtime)
    log_in(browser, ada.headers)

    token, prefix = made(browser, name="Actual <b>")
    url = browser.post(base64.b64decode(token).decode()).text
    page = browser.get(PAGE).text
    revoked = send(browser, f"/simplefin/accesses/{prefix}/revoke")

    assert "Actual &lt;b&gt;" in page
    assert token not in page
    assert prefix in url
    assert revoked.status_code == 303
    assert prefix not in browser.get(PAGE).text
    assert browser.get(f"{url}/accounts").status_code == 403


@pytest.mark.deep
def test_an_operator_names_the_user(browser: TestClient, web_runtime: Runtime) -> None:
    ada = make_person(web_runtime)
    log_in(browser, make_key(web_runtime, None))
    with web_runtime.transaction() as session:
        email = session.get_one(User, ada.user_id).email

    _, prefix = made(browser, name="Sure", user=f" {email} ")

    (row,) = runtime_run(web_runtime, accesses.list_accesses(web_runtime, user_id=ada.user_id, ended=False, limit=9))
    assert (row.prefix, row.name) == (prefix, "Sure")
    assert row.created_by.startswith("operator:key ")
    for user, status in (("", 400), ("nobody@example.org", 404), ("nobody", 400)):
        assert send(browser, PAGE, name="Sure", user=user).status_code == status


@pytest.mark.deep
def test_a_user_sees_and_revokes_no_access_of_others(
    browser: TestClient, web_runtime: Runtime, stranger: Person
) -> None:
    made_for = make_person(web_runtime).user_id
    other = runtime_run(
        web_runtime, accesses.create(web_runtime, user_id=made_for, name="Hers", account_ids=(), actor="operator:tests")
    )
    log_in(browser, stranger.headers)
    _, own = made(browser, name="Mine")
    page = browser.get(PAGE).text
    own_action = f"/simplefin/accesses/{own}/revoke"

    refused = browser.post(
        f"/simplefin/accesses/{other.row.prefix}/revoke", data={"form_token": form_token(page, own_action)}
    )

    assert "Hers" not in page
    assert refused.status_code == 403  # the token is of another form
    (row,) = runtime_run(web_runtime, accesses.list_accesses(web_runtime, user_id=made_for, ended=False, limit=9))
    assert row.revoked_at is None


@pytest.mark.deep
def test_the_page_needs_a_login_and_the_scope_link(browser: TestClient, web_runtime: Runtime, person: Person) -> None:
    to_log_in = browser.get(PAGE, follow_redirects=False)
    log_in(browser, make_key(web_runtime, person.user_id, "read"))

    assert to_log_in.headers["location"] == "/login?next=%2Fsimplefin%2Fcreate"
    assert browser.get(PAGE).status_code == 403
    assert PAGE not in browser.get("/status").text

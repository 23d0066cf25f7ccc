"""The change feed by HTTP: slices with a cursor, own rows alone, and a problem of its own for each bad cursor."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text
from sqlalchemy.orm import Session

from tests.factories import make_account, make_provider, make_transaction
from tests.integration.web.conftest import Person, make_person
from worker.models import Provider, User
from worker.models.feed_cursor import Cursor
from worker.runtime import Runtime


@pytest.fixture(scope="module")
def ada(web_runtime: Runtime) -> Person:
    """A user of this module's own."""
    return make_person(web_runtime)


@pytest.fixture(scope="module")
def login(web_runtime: Runtime, ada: Person) -> Iterator[UUID]:
    """Her login with an account and three transactions."""
    with Session(web_runtime.engine) as rows, rows.begin():
        login = make_provider(rows, user=rows.get_one(User, ada.user_id), status="active")
        account = make_account(rows, provider=login)
        for _ in range(3):
            make_transaction(rows, account=account)
        id_ = login.id
    yield id_
    with Session(web_runtime.engine) as rows, rows.begin():
        rows.delete(rows.get_one(Provider, id_))


def ask(client: TestClient, person: Person, **query: Any) -> Any:
    return client.get("/api/v1/changes", headers=person.headers, params=query)


def read(client: TestClient, person: Person, **query: Any) -> tuple[list[dict[str, Any]], str]:
    """All items to the end, and the last cursor."""
    items: list[dict[str, Any]] = []
    while True:
        answer = ask(client, person, **query)
        assert answer.status_code == 200, answer.text
        told = answer.json()
        items += told["items"]
        query["cursor"] = told["cursor"]
        if not told["has_more"]:
            return items, told["cursor"]


@pytest.mark.usefixtures("login")
def test_all_rows_and_then_what_changed(client: TestClient, ada: Person, rows: Session) -> None:
    items, cursor = read(client, ada, limit=2)
    assert [(item["noun"], item["change"]) for item in items] == [
        ("accounts", "added"),
        *[("transactions", "added")] * 3,
    ]
    assert items[1]["row"]["amount"] == "-12.34"
    assert read(client, ada, cursor=cursor) == ([], cursor)
    id_ = items[1]["id"]
    rows.execute(text("UPDATE transactions SET amount = 0.10 WHERE id = :id"), {"id": id_})
    rows.commit()

    changed, cursor = read(client, ada, cursor=cursor)

    assert [(item["change"], item["id"], item["row"]["amount"]) for item in changed] == [("modified", id_, "0.10")]
    rows.execute(text("DELETE FROM transactions WHERE id = :id"), {"id": id_})
    rows.commit()
    gone, _ = read(client, ada, cursor=cursor)
    assert gone == [{"noun": "transactions", "change": "removed", "id": id_, "row": None}]


@pytest.mark.deep
@pytest.mark.usefixtures("login")
def test_stranger_gets_none_of_them_and_cannot_use_the_cursor(
    client: TestClient, ada: Person, stranger: Person, superuser_token_headers: dict[str, str]
) -> None:
    items, cursor = read(client, ada)

    ids = {item["id"] for item in items}
    assert ids & {item["id"] for item in read(client, stranger)[0]} == set()
    refused = ask(client, stranger, cursor=cursor)
    assert refused.status_code == 403
    assert "another user's rows" in refused.json()["detail"]
    operator = Person(uuid4(), superuser_token_headers)
    assert ids <= {item["id"] for item in read(client, operator)[0]}
    assert ask(client, operator, cursor=cursor).status_code == 403


@pytest.mark.deep
@pytest.mark.parametrize("limit", ["0", "-1", "1001", "1000000000", "1e9", "many", ""])
def test_limit_out_of_bounds_is_a_problem_that_names_it(client: TestClient, ada: Person, limit: str) -> None:
    answer = ask(client, ada, limit=limit)

    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["errors"][0]["field"] == "limit"


@pytest.mark.deep
@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ({"origin": uuid4()}, "of-another-database"),
        ({"place": b"elsewher"}, "before-a-restore"),
        ({"read": uuid4()}, "before-a-restore"),
        ({"xid": 2**62}, "of-the-future"),
    ],
)
def test_lost_cursor_is_a_problem_of_its_own(
    client: TestClient, ada: Person, values: dict[str, Any], kind: str
) -> None:
    _, cursor = read(client, ada)

    answer = ask(client, ada, cursor=str(msgspec.structs.replace(Cursor.parse(cursor), **values)))

    assert answer.status_code == 410
    assert answer.json()["type"] == f"urn:dashtam:cursor:{kind}"
    assert "without a cursor" in answer.json()["detail"]


@pytest.mark.deep
@pytest.mark.parametrize("cursor", ["", "garbage", "null", "A" * 601])
def test_garbage_is_refused_and_says_what_to_do(client: TestClient, ada: Person, cursor: str) -> None:
    answer = ask(client, ada, cursor=cursor)

    assert answer.status_code == (422 if len(cursor) > 600 else 400)
    assert "cursor" in answer.text

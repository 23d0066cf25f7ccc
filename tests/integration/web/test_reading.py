"""Rows by the HTTP API: accounts, balances, positions, transactions; each once, in order, with a cursor."""

from __future__ import annotations

import base64
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest
from fastapi.testclient import TestClient
from sqlalchemy.orm import Session

from tests.factories import make_account, make_provider, make_transaction
from tests.integration.web.conftest import Person, make_person
from worker.models import Balance, BalanceDay, Holding, Liability, Security, User, new_id
from worker.runtime import Runtime

DAY = date(2026, 1, 5)


@pytest.fixture(scope="module")
def ada(web_runtime: Runtime) -> Person:
    """A user with two logins; the first has two accounts, one of them closed, the second has one."""
    return make_person(web_runtime)


@pytest.fixture(scope="module")
def accounts(web_runtime: Runtime, ada: Person) -> list[tuple[UUID, UUID]]:
    """Her accounts, each with its login's id; 7 transactions on each, some on the same day."""
    made = []
    with Session(web_runtime.engine) as rows, rows.begin():
        user = rows.get_one(User, ada.user_id)
        logins = [make_provider(rows, user=user, alias=alias, status="active") for alias in ("one", "two")]
        for number, (login, status) in enumerate(
            zip((logins[0], logins[0], logins[1]), ("active", "closed", "active"), strict=True)
        ):
            account = make_account(rows, provider=login, status=status)
            made.append((account.id, login.id))
            for i in range(7):
                make_transaction(rows, account=account, posted_date=DAY - timedelta(days=i // 2), amount=Decimal(i) / 3)
            make_transaction(rows, account=account, posted_date=DAY, status="removed")
            _value(rows, account.id, number)
    return made


def _value(rows: Session, account_id: UUID, number: int) -> None:
    """Three balances and two positions, one of them closed."""
    for days in range(3):
        stated = {"account_id": account_id, "current": Decimal("100.10") + days, "currency": "USD"}
        taken_at = datetime(2026, 1, 3 + days, 12, tzinfo=UTC)
        rows.add(Balance(**stated, source="stated", content_hash=b"x", taken_at=taken_at))
        rows.add(BalanceDay(**stated, day=taken_at.date()))
    for key, closed in (("credit", None), ("student", datetime.now(UTC))):
        terms = {"liability_key": key, "kind": key, "currency": "USD", "interest_rate": Decimal("15.240")}
        details = {"aprs": [{"percentage": "15.240"}]}
        rows.add(Liability(account_id=account_id, **terms, details=details, content_hash=b"x", closed_at=closed))
    security = Security(
        id=new_id(), key=f"k{number}", type="equity", symbol="ACME", multiplier=1, source="s", content_hash=b"x"
    )
    rows.add(security)
    rows.flush()
    for key, closed in (("open", None), ("closed", datetime.now(UTC))):
        rows.add(
            Holding(
                account_id=account_id,
                holding_key=key,
                security_id=security.id,
                quantity=Decimal("1.5"),
                currency="USD",
                content_hash=b"x",
                closed_at=closed,
            )
        )


def _all(client: TestClient, path: str, headers: dict[str, str], **query: Any) -> list[dict[str, Any]]:
    """Every row, slice by slice."""
    found: list[dict[str, Any]] = []
    while True:
        answer = client.get(f"/api/v1/{path}", headers=headers, params=query)
        assert answer.status_code == 200, answer.text
        assert len(answer.json()["items"]) <= query.get("limit", 100)
        found += answer.json()["items"]
        query["cursor"] = answer.json()["next_cursor"]
        if query["cursor"] is None:
            return found


@pytest.mark.deep
@pytest.mark.parametrize("limit", [3, 20, 21, 500])
def test_transactions_come_newest_first_and_each_once(
    client: TestClient, ada: Person, accounts: list[tuple[UUID, UUID]], limit: int
) -> None:
    found = _all(client, "transactions", ada.headers, limit=limit)

    assert len(found) == len({row["id"] for row in found}) == 21
    order = [(row["posted_date"], row["id"]) for row in found]
    assert order == sorted(order, reverse=True)
    assert {row["status"] for row in found} == {"posted"}


@pytest.mark.deep
def test_row_that_comes_while_somebody_reads_moves_no_other(
    client: TestClient, ada: Person, accounts: list[tuple[UUID, UUID]], rows: Session
) -> None:
    whole = _all(client, "transactions", ada.headers)
    first = client.get("/api/v1/transactions?limit=5", headers=ada.headers).json()
    late = make_transaction(
        rows, account=rows.get_one(type(_account(rows, accounts[0][0])), accounts[0][0]), posted_date=DAY
    )
    rows.commit()

    rest = _all(client, "transactions", ada.headers, limit=5, cursor=first["next_cursor"])

    rows.delete(late)
    rows.commit()
    assert first["items"] + rest == whole


def _account(rows: Session, account_id: UUID) -> Any:
    from worker.models import Account

    return rows.get_one(Account, account_id)


def test_transactions_of_a_login_an_account_days_and_kind(
    client: TestClient, ada: Person, accounts: list[tuple[UUID, UUID]]
) -> None:
    (first, login), (second, _), (third, other) = accounts

    def of(**query: Any) -> list[dict[str, Any]]:
        return _all(client, "transactions", ada.headers, **query)

    assert {row["account_id"] for row in of(provider_id=str(login))} == {str(first), str(second)}
    assert {row["account_id"] for row in of(account_id=str(third), provider_id=str(other))} == {str(third)}
    assert of(account_id=str(third), provider_id=str(login)) == []
    assert {row["posted_date"] for row in of(since="2026-01-04", until="2026-01-04")} == {"2026-01-04"}
    assert of(type="trade") == []
    assert len(of(type="payment", status="posted")) == 21
    assert of(status="removed") == []


def test_amounts_are_exact(client: TestClient, ada: Person, accounts: list[tuple[UUID, UUID]]) -> None:
    (row, *_) = _all(client, "balances", ada.headers)

    assert row["current"] == "102.10"
    assert row["taken_at"] == "2026-01-05T12:00:00Z"


@pytest.mark.deep
@pytest.mark.parametrize("limit", [1, 4, 100])
def test_balances_have_their_history(
    client: TestClient, ada: Person, accounts: list[tuple[UUID, UUID]], limit: int
) -> None:
    found = _all(client, "balances", ada.headers, limit=limit)
    of_a_day = _all(client, "balances", ada.headers, since="2026-01-04", until="2026-01-04")

    assert len({row["id"] for row in found}) == len(found) == 9
    assert [row["taken_at"] for row in found] == sorted((row["taken_at"] for row in found), reverse=True)
    assert len(of_a_day) == 3


@pytest.mark.deep
@pytest.mark.parametrize("limit", [1, 4, 100])
def test_balances_by_day_come_newest_first_and_each_once(
    client: TestClient, ada: Person, accounts: list[tuple[UUID, UUID]], limit: int
) -> None:
    found = _all(client, "balance-days", ada.headers, limit=limit)
    of_a_day = _all(client, "balance-days", ada.headers, since="2026-01-04", until="2026-01-04")
    of_one = _all(client, "balance-days", ada.headers, account_id=str(accounts[0][0]), until="2026-01-04")

    order = [(row["day"], row["account_id"]) for row in found]
    assert order == sorted(set(order), reverse=True)
    assert len(found) == 9
    assert {(row["day"], row["current"]) for row in of_a_day} == {("2026-01-04", "101.10")}
    assert [row["day"] for row in of_one] == ["2026-01-04", "2026-01-03"]


@pytest.mark.deep
@pytest.mark.parametrize("limit", [1, 100])
def test_open_terms_of_cards_and_loans(
    client: TestClient, ada: Person, accounts: list[tuple[UUID, UUID]], limit: int
) -> None:
    found = _all(client, "liabilities", ada.headers, limit=limit)

    assert {row["account_id"] for row in found} == {str(account) for account, _ in accounts}
    assert {(row["kind"], row["interest_rate"]) for row in found} == {("credit", "15.240")}
    assert found[0]["details"] == {"aprs": [{"percentage": "15.240"}]}


@pytest.mark.deep
@pytest.mark.parametrize("limit", [1, 100])
def test_open_positions(client: TestClient, ada: Person, accounts: list[tuple[UUID, UUID]], limit: int) -> None:
    found = _all(client, "holdings", ada.headers, limit=limit)

    assert len(found) == 3
    assert {(row["symbol"], row["quantity"]) for row in found} == {("ACME", "1.5")}


@pytest.mark.parametrize("limit", [pytest.param(1, marks=pytest.mark.deep), 100])
def test_accounts_have_their_newest_balance(
    client: TestClient, ada: Person, accounts: list[tuple[UUID, UUID]], limit: int
) -> None:
    found = _all(client, "accounts", ada.headers, limit=limit)
    closed = _all(client, "accounts", ada.headers, limit=limit, closed=True)

    assert [row["id"] for row in found] == [str(accounts[0][0]), str(accounts[2][0])]
    assert {row["current"] for row in found} == {"102.10"}
    assert len(closed) == 3


@pytest.mark.deep
@pytest.mark.parametrize("path", ["accounts", "balances", "balance-days", "holdings", "liabilities", "transactions"])
def test_rows_of_others_are_refused_by_whatever_id(
    client: TestClient, stranger: Person, accounts: list[tuple[UUID, UUID]], path: str
) -> None:
    account_id, provider_id = accounts[0]
    for query, status in (
        (f"account_id={account_id}", 403),
        (f"provider_id={provider_id}", 403),
        (f"account_id={uuid4()}", 404),
        (f"provider_id={uuid4()}", 404),
        ("account_id=x", 422),
    ):
        answer = client.get(f"/api/v1/{path}?{query}", headers=stranger.headers)
        assert answer.status_code == status, (query, answer.text)
    assert _all(client, path, stranger.headers) == []


@pytest.mark.deep
@pytest.mark.parametrize("path", ["balances", "balance-days", "holdings", "liabilities", "transactions"])
def test_cursor_of_somebody_else_opens_no_row(
    client: TestClient, ada: Person, stranger: Person, accounts: list[tuple[UUID, UUID]], path: str
) -> None:
    cursor = client.get(f"/api/v1/{path}?limit=1", headers=ada.headers).json()["next_cursor"]

    assert cursor
    assert _all(client, path, stranger.headers, cursor=cursor) == []


@pytest.mark.deep
@pytest.mark.parametrize("path", ["balances", "balance-days", "holdings", "liabilities", "transactions"])
def test_operator_says_whose_rows(
    client: TestClient, superuser_token_headers: dict[str, str], accounts: list[tuple[UUID, UUID]], path: str
) -> None:
    whose = client.get(f"/api/v1/{path}", headers=superuser_token_headers)

    assert whose.status_code == 400
    assert "provider_id" in whose.json()["detail"]
    assert _all(client, path, superuser_token_headers, provider_id=str(accounts[2][1]))
    assert _all(client, "accounts", superuser_token_headers, provider_id=str(accounts[2][1]))


_NAIVE = msgspec.json.encode(["2026-01-05T12:00:00", str(UUID(int=0))])
BAD_CURSORS = [
    base64.urlsafe_b64encode(_NAIVE).decode(),
    "x",
    "é",
    "AAAA",
    base64.urlsafe_b64encode(msgspec.json.encode([1, 2])).decode(),
    "'; DROP TABLE",
]


@pytest.mark.deep
@pytest.mark.parametrize("cursor", BAD_CURSORS)
@pytest.mark.parametrize("path", ["accounts", "balances", "balance-days", "holdings", "liabilities", "transactions"])
def test_cursor_that_is_none_of_ours_is_refused(client: TestClient, ada: Person, path: str, cursor: str) -> None:
    answer = client.get(f"/api/v1/{path}", headers=ada.headers, params={"cursor": cursor})

    assert answer.status_code == 400
    assert "cursor" in answer.json()["detail"]


@pytest.mark.deep
@pytest.mark.parametrize(
    "query", ["limit=0", "limit=501", "since=yesterday", "status=fine", "unknown=1", "cursor=" + "x" * 201]
)
def test_question_that_means_nothing_is_refused(client: TestClient, ada: Person, query: str) -> None:
    assert client.get(f"/api/v1/transactions?{query}", headers=ada.headers).status_code == 422

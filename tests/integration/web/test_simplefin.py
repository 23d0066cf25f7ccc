"""SimpleFIN, served: each fact that existing apps rely on, by the routes that they ask."""

from __future__ import annotations

import base64
import tracemalloc
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text
from sqlalchemy.orm import Session
from structlog.testing import capture_logs

from tests.factories import make_account, make_provider, make_transaction
from tests.integration.web.conftest import HOST, make_person, runtime_run
from worker.models import Balance, Holding, Provider, Security, SyncRun, User, new_id
from worker.runtime import Runtime
from worker.services.simplefin import accesses, serving
from worker.services.simplefin.wishes import Wish

DAY = date(2026, 1, 5)
NOON = 12 * 3600


def at(day: date) -> int:
    """Noon of a day in UTC, in seconds since 1970: where the rows of the day are placed."""
    return int(datetime(day.year, day.month, day.day, 12, tzinfo=UTC).timestamp())


@dataclass
class App:
    """An app that has claimed an access URL."""

    client: TestClient
    access_url: str

    @property
    def credentials(self) -> tuple[str, str]:
        found = urlsplit(self.access_url)
        return found.username or "", found.password or ""

    def ask(self, **parameters: Any) -> Any:
        return self.client.get(
            "/simplefin/accounts",
            params={name.replace("_", "-"): value for name, value in parameters.items()},
            auth=self.credentials,
        )

    def read(self, **parameters: Any) -> Any:
        response = self.ask(**parameters)
        assert response.status_code == 200, response.text
        assert response.headers["content-type"] == "application/json"
        return response.json()

    def account(self, id_: UUID, **parameters: Any) -> Any:
        return next(one for one in self.read(**parameters)["accounts"] if one["id"] == str(id_))


@dataclass
class Books:
    """A user with a login, a checking account and a brokerage account."""

    user_id: UUID
    login_id: UUID
    checking: UUID
    brokerage: UUID
    pending: UUID


def setup_token(runtime: Runtime, user_id: UUID, **more: Any) -> accesses.AccessMade:
    values = {"name": "tests", "account_ids": (), "actor": "operator:tests", "base_url": HOST} | more
    made: accesses.AccessMade = runtime_run(runtime, accesses.create(runtime, user_id=user_id, **values))
    return made


def claim_address(token: str) -> str:
    return base64.b64decode(token).decode()


def connected(client: TestClient, runtime: Runtime, user_id: UUID, **more: Any) -> App:
    token = setup_token(runtime, user_id, **more).setup_token
    return App(client, client.post(claim_address(token)).text)


def state_balance(rows: Session, account_id: UUID, current: str | None, currency: str = "USD", **more: Any) -> None:
    figure = None if current is None else Decimal(current)
    values = {"source": "stated", "content_hash": b"x", "taken_at": datetime(2026, 1, 6, 8, tzinfo=UTC)} | more
    rows.add(Balance(account_id=account_id, current=figure, currency=currency, **values))
    rows.flush()


@pytest.fixture(scope="module")
def books(web_runtime: Runtime) -> Books:
    person = make_person(web_runtime)
    with Session(web_runtime.engine) as rows, rows.begin():
        user = rows.get_one(User, person.user_id)
        synced_at = datetime(2026, 1, 6, 9, tzinfo=UTC)
        login = make_provider(rows, user=user, alias="My bank", status="active", synced_at=synced_at)
        checking = make_account(
            rows, provider=login, name="Checking", mask="1234", type="depository", subtype="checking"
        )
        brokerage = make_account(rows, provider=login, name="Brokerage", mask=None)
        state_balance(rows, checking.id, "99.5", taken_at=datetime(2026, 1, 5, 8, tzinfo=UTC))
        state_balance(rows, checking.id, "100.5", available=Decimal(75))
        state_balance(rows, brokerage.id, "2500", as_of=datetime(2026, 1, 5, 21, tzinfo=UTC))
        _hold(rows, brokerage.id)
        for days in range(4):
            make_transaction(
                rows,
                account=checking,
                posted_date=DAY - timedelta(days=days),
                amount=Decimal(-10) - days,
                description=f"Shop {days}",
                category="FOOD_AND_DRINK",
            )
        pending = make_transaction(
            rows,
            account=checking,
            status="pending",
            posted_date=DAY,
            amount=Decimal("-3.3"),
            counterparty="Cafe",
            occurred_at=datetime(2026, 1, 5, 7, 30, tzinfo=UTC),
        )
        for status in ("failed", "canceled", "removed"):
            make_transaction(rows, account=checking, status=status, posted_date=DAY)
        return Books(user.id, login.id, checking.id, brokerage.id, pending.id)


def _hold(rows: Session, account_id: UUID) -> None:
    security = Security(
        id=new_id(),
        key=f"s-{account_id}",
        type="equity",
        symbol="ACME",
        name="Acme Inc",
        multiplier=1,
        source="s",
        content_hash=b"x",
    )
    rows.add(security)
    rows.flush()
    for key, closed_at in (("open", None), ("closed", datetime.now(UTC))):
        rows.add(
            Holding(
                account_id=account_id,
                holding_key=key,
                security_id=security.id,
                quantity=Decimal("12.5"),
                market_value=Decimal("2500.125"),
                average_price=Decimal("150.0001"),
                cost_basis=None,
                currency="USD",
                as_of=DAY,
                closed_at=closed_at,
                content_hash=b"x",
            )
        )


@pytest.fixture(scope="module")
def app(client: TestClient, web_runtime: Runtime, books: Books) -> App:
    return connected(client, web_runtime, books.user_id)


@pytest.fixture
def new_books(web_runtime: Runtime, client: TestClient, rows: Session) -> tuple[Provider, App]:
    """A login of a new user, for tests that change it."""
    user_id = make_person(web_runtime).user_id
    login = make_provider(rows, user=rows.get_one(User, user_id), alias="Other bank", status="active")
    login.synced_at = datetime(2026, 1, 6, 9, tzinfo=UTC)
    rows.commit()
    return login, connected(client, web_runtime, user_id)


# What apps read -------------------------------------------------------------------------------------------------------


@pytest.mark.deep
def test_version_1_is_the_default_with_errors_and_accounts_alone(app: App) -> None:
    assert app.read().keys() == {"accounts", "errors"}
    assert app.read(version="1") == app.read() == app.read(version="1.0")


def test_version_2_has_errlist_and_connections_when_it_is_asked_for(app: App, books: Books) -> None:
    answer = app.read(version="2")

    assert answer.keys() == {"errlist", "connections", "accounts"}
    (connection,) = answer["connections"]
    assert connection["conn_id"] == str(books.login_id)
    assert connection["name"] == "My bank"
    assert connection["org_id"]
    assert connection["sfin_url"] == f"{HOST}/simplefin"
    assert {one["conn_id"] for one in answer["accounts"]} == {connection["conn_id"]}
    assert all("org" not in one for one in answer["accounts"])


def test_an_account_of_version_1_has_all_members_that_apps_need(app: App, books: Books) -> None:
    account = app.account(books.checking)
    transactions, organisation = account.pop("transactions"), account.pop("org")

    assert len(transactions) == 4
    assert account == {
        "id": str(books.checking),
        "name": "Checking (1234)",
        "currency": "USD",
        "balance": "100.50",
        "available-balance": "75.00",
        "balance-date": int(datetime(2026, 1, 6, 8, tzinfo=UTC).timestamp()),
        "holdings": [],
        "extra": {"type": "depository", "subtype": "checking"},
    }
    assert organisation.pop("domain")
    assert organisation.pop("id")
    assert organisation == {"name": "My bank", "sfin-url": f"{HOST}/simplefin"}


def test_a_transaction_has_all_members_that_apps_need(app: App, books: Books) -> None:
    first = app.account(books.checking)["transactions"][0]

    assert UUID(first.pop("id"))
    assert first == {
        "posted": at(DAY - timedelta(days=3)),
        "amount": "-13.00",
        "description": "Shop 3",
        "payee": "Shop 3",
        "memo": "",
        "transacted_at": at(DAY - timedelta(days=3)),
        "extra": {"category": "FOOD_AND_DRINK"},
    }


@pytest.mark.deep
def test_transactions_are_ordered_by_posted(app: App, books: Books) -> None:
    for pending in ("0", "1"):
        posted = [one["posted"] for one in app.account(books.checking, pending=pending)["transactions"]]
        assert posted == sorted(posted)


@pytest.mark.deep
def test_the_balance_date_is_the_institutions_when_it_states_one(app: App, books: Books) -> None:
    stated = datetime(2026, 1, 5, 21, tzinfo=UTC)

    assert app.account(books.brokerage)["balance-date"] == int(stated.timestamp())


@pytest.mark.deep
def test_an_available_balance_that_is_not_stated_equals_the_balance(app: App, books: Books) -> None:
    account = app.account(books.brokerage)

    assert account["available-balance"] == account["balance"] == "2500.00"


def test_open_positions_are_holdings_with_the_names_that_apps_read(app: App, books: Books) -> None:
    (holding,) = app.account(books.brokerage)["holdings"]

    assert UUID(holding.pop("id"))
    assert holding == {
        "created": at(DAY),
        "currency": "USD",
        "cost_basis": None,
        "description": "Acme Inc",
        "market_value": "2500.125",
        "purchase_price": "150.0001",
        "shares": "12.5",
        "symbol": "ACME",
    }


@pytest.mark.deep
def test_only_posted_transactions_come_without_pending_1(app: App, books: Books) -> None:
    for parameters in ({}, {"pending": "0"}, {"pending": ""}):
        rows = app.account(books.checking, **parameters)["transactions"]
        assert len(rows) == 4
        assert all("pending" not in row for row in rows)


def test_a_pending_transaction_has_posted_0_and_the_time_at_which_it_happened(app: App, books: Books) -> None:
    rows = app.account(books.checking, pending="1")["transactions"]
    (pending,) = [row for row in rows if row.get("pending")]

    assert len(rows) == 5
    assert pending["id"] == str(books.pending)
    assert (pending["posted"], pending["amount"], pending["payee"]) == (0, "-3.30", "Cafe")
    assert pending["transacted_at"] == int(datetime(2026, 1, 5, 7, 30, tzinfo=UTC).timestamp())


@pytest.mark.deep
def test_a_transaction_keeps_its_id_when_it_posts(new_books: tuple[Provider, App], rows: Session) -> None:
    login, app = new_books
    account = make_account(rows, provider=login)
    state_balance(rows, account.id, "1")
    row = make_transaction(rows, account=account, status="pending", posted_date=DAY)
    rows.commit()
    (before,) = app.account(account.id, pending="1")["transactions"]
    row.status, row.posted_date = "posted", DAY + timedelta(days=1)
    rows.commit()

    (after,) = app.account(account.id, pending="1")["transactions"]

    assert (before["id"], before["posted"]) == (after["id"], 0)
    assert after["posted"] == at(DAY + timedelta(days=1))
    assert "pending" not in after


@pytest.mark.deep
def test_balances_only_leaves_transactions_out(app: App, books: Books) -> None:
    account = app.account(books.checking, balances_only="1", pending="1")

    assert account["transactions"] == []
    assert account["balance"] == "100.50"


@pytest.mark.deep
def test_account_may_be_given_more_than_once(app: App, books: Books) -> None:
    one = app.read(account=[str(books.brokerage)])
    both = app.read(account=[str(books.brokerage), str(books.checking), str(books.checking)])

    assert [found["id"] for found in one["accounts"]] == [str(books.brokerage)]
    assert {found["id"] for found in both["accounts"]} == {str(books.brokerage), str(books.checking)}
    assert len(both["accounts"]) == 2
    assert one["errors"] == both["errors"] == []


@pytest.mark.deep
def test_parameters_that_are_not_known_are_ignored(app: App) -> None:
    assert app.read(unknown="1") == app.read()


@pytest.mark.deep
def test_answers_are_not_kept_by_anybody(app: App) -> None:
    assert app.ask().headers["cache-control"] == "no-store"


def test_info_names_both_versions(client: TestClient) -> None:
    assert client.get("/simplefin/info").json() == {"versions": ["1.0", "2.0"]}


# Money ----------------------------------------------------------------------------------------------------------------


@pytest.mark.deep
@pytest.mark.parametrize(
    ("currency", "stored", "told"),
    [
        ("USD", "100.5", "100.50"),
        ("USD", "100", "100.00"),
        ("USD", "-0.5", "-0.50"),
        ("USD", "1E+3", "1000.00"),
        ("USD", "-0.00", "0.00"),
        ("EUR", "123456789012345678901.25", "123456789012345678901.25"),
        ("JPY", "1500.00", "1500"),
        ("KWD", "1.5", "1.500"),
        ("CLF", "1.5", "1.5000"),
    ],
)
def test_amounts_have_exactly_the_decimals_of_their_currency(
    new_books: tuple[Provider, App], rows: Session, currency: str, stored: str, told: str
) -> None:
    login, app = new_books
    account = make_account(rows, provider=login, currency=currency)
    state_balance(rows, account.id, stored, currency)
    make_transaction(rows, account=account, amount=Decimal(stored))
    rows.commit()

    found = app.account(account.id)

    assert (found["currency"], found["balance"]) == (currency, told)
    assert found["transactions"][0]["amount"] == told
    assert "extra" not in found["transactions"][0]


@pytest.mark.deep
def test_an_amount_finer_than_its_currency_is_rounded_and_told_exactly_beside(
    new_books: tuple[Provider, App], rows: Session
) -> None:
    login, app = new_books
    account = make_account(rows, provider=login)
    state_balance(rows, account.id, "10.125")
    make_transaction(rows, account=account, amount=Decimal("-0.0051"))
    rows.commit()

    found = app.account(account.id)

    assert (found["balance"], found["extra"]["balance"]) == ("10.12", "10.125")
    assert found["transactions"][0]["amount"] == "-0.01"
    assert found["transactions"][0]["extra"] == {"amount": "-0.0051"}


def test_a_currency_outside_iso_4217_is_an_address_that_names_it(
    new_books: tuple[Provider, App], rows: Session, client: TestClient
) -> None:
    login, app = new_books
    account = make_account(rows, provider=login, currency="USDT")
    state_balance(rows, account.id, "0.123456789", "USDT")
    rows.commit()

    found = app.account(account.id)

    assert found["balance"] == "0.123456789"
    assert found["currency"] == f"{HOST}/simplefin/currencies/USDT"
    assert client.get(found["currency"]).json() == {"name": "USDT", "abbr": "USDT"}
    assert client.get("/simplefin/currencies/USD").status_code == 404


def test_a_transaction_in_another_currency_is_left_out_and_said_so(
    new_books: tuple[Provider, App], rows: Session
) -> None:
    login, app = new_books
    account = make_account(rows, provider=login, name="Foreign", mask=None)
    state_balance(rows, account.id, "1")
    for currency in ("USD", "EUR", "EUR"):
        make_transaction(rows, account=account, currency=currency)
    rows.commit()

    answer = app.read(version="2")

    assert len(answer["accounts"][0]["transactions"]) == 1
    assert answer["errlist"] == [
        {
            "code": "act.missingdata",
            "msg": "2 transactions in another currency than that of Foreign are left out",
            "account_id": str(account.id),
        }
    ]


# Dates ----------------------------------------------------------------------------------------------------------------


@pytest.mark.deep
@pytest.mark.parametrize(
    ("start", "end", "days"),
    [
        (at(DAY), None, [0]),
        (at(DAY) + 1, None, []),
        (at(DAY) - 0.5, None, [0]),
        (f"{at(DAY)}.0", None, [0]),
        (f"{at(DAY)}.25", None, []),
        (at(DAY - timedelta(days=1)) - NOON, None, [1, 0]),
        (None, at(DAY), [3, 2, 1]),
        (None, at(DAY) + 1, [3, 2, 1, 0]),
        (None, f"{at(DAY)}.5", [3, 2, 1, 0]),
        (at(DAY - timedelta(days=2)), at(DAY), [2, 1]),
        (at(DAY), at(DAY), []),
        (0, 253_402_300_799, [3, 2, 1, 0]),
        (-62_135_596_800, "", [3, 2, 1, 0]),
        ("", " ", [3, 2, 1, 0]),
    ],
)
def test_the_start_is_included_the_end_is_not_and_fractions_are_read(
    app: App, books: Books, start: Any, end: Any, days: list[int]
) -> None:
    dates = {"start_date": start, "end_date": end}
    answer = app.read(**{name: value for name, value in dates.items() if value is not None})

    found = next(one for one in answer["accounts"] if one["id"] == str(books.checking))["transactions"]
    assert [one["description"] for one in found] == [f"Shop {day}" for day in days]
    assert answer["errors"] == []


@pytest.mark.deep
@pytest.mark.parametrize("chunk_days", [1, 2, 3])
def test_windows_side_by_side_have_each_transaction_once(app: App, books: Books, chunk_days: int) -> None:
    start, met = at(DAY) - 10 * 86400 + 1234, []
    for _ in range(12):
        end = start + chunk_days * 86400
        rows = app.account(books.checking, start_date=start, end_date=end, pending="1")["transactions"]
        met += [row["id"] for row in rows]
        start = end

    assert len(met) == len(set(met)) == 5


def test_reversed_dates_have_no_transactions_and_say_so(app: App, books: Books) -> None:
    answer = app.read(version="2", start_date=at(DAY), end_date=at(DAY) - 1)

    assert [one["transactions"] for one in answer["accounts"]] == [[], []]
    assert answer["errlist"] == [
        {"code": "gen.api", "msg": "end-date is before start-date, so there are no transactions between them"}
    ]


@pytest.mark.deep
@pytest.mark.parametrize("name", ["start-date", "end-date"])
@pytest.mark.parametrize(
    "given",
    [
        "yesterday",
        "2026-01-05",
        "NaN",
        "Infinity",
        "1e9",
        "0x10",
        "1,5",
        str(at(DAY) * 1000),
        "9" * 40,
        "-9" * 9,
        "\u0661",
    ],
)
def test_a_date_that_means_nothing_is_refused_in_words_that_apps_read(app: App, name: str, given: str) -> None:
    response = app.ask(**{name: given})

    assert response.status_code == 400
    problem = response.json()
    assert problem["detail"].startswith(f"{name} must be seconds since 1970")
    assert problem["errors"] == [problem["detail"]]
    assert problem["errlist"] == [{"code": "gen.api", "msg": problem["detail"]}]
    assert problem["accounts"] == []


@pytest.mark.deep
@pytest.mark.parametrize("version", ["3", "0", "two", "1.1"])
def test_a_version_that_does_not_exist_is_refused(app: App, version: str) -> None:
    assert app.ask(version=version).json()["errlist"][0]["code"] == "gen.api"


# Whose accounts -------------------------------------------------------------------------------------------------------


def test_nobody_reads_accounts_of_others(client: TestClient, web_runtime: Runtime, books: Books) -> None:
    stranger = connected(client, web_runtime, make_person(web_runtime).user_id)

    answer = stranger.read(account=str(books.checking), version="2", pending="1")

    assert answer["accounts"] == answer["connections"] == []
    assert [one["code"] for one in answer["errlist"]] == ["act."]
    assert "My bank" not in str(answer)


@pytest.mark.deep
@pytest.mark.parametrize("given", ["", "nonsense", "00000000-0000-0000-0000-000000000000", "' OR 1=1", "x" * 100])
def test_an_account_that_does_not_exist_is_named_in_the_errors(app: App, books: Books, given: str) -> None:
    answer = app.read(account=[given, str(books.checking)], version="2")

    assert [one["id"] for one in answer["accounts"]] == [str(books.checking)]
    assert answer["errlist"] == [{"code": "act.", "msg": f"There is no account {given} here", "account_id": given}]


def test_an_account_that_is_no_longer_listed_is_left_out_and_told_when_it_is_asked_for(
    new_books: tuple[Provider, App], rows: Session
) -> None:
    login, app = new_books
    account = make_account(rows, provider=login, status="inaccessible", name="Gone")
    state_balance(rows, account.id, "1")
    rows.commit()

    assert app.read() == {"accounts": [], "errors": []}
    assert app.read(account=str(account.id))["errors"] == ["Gone is no longer listed by its institution"]


def test_an_account_without_a_balance_is_left_out_and_named(new_books: tuple[Provider, App], rows: Session) -> None:
    login, app = new_books
    for current in (None, "none stated"):
        account = make_account(rows, provider=login, name="Unknown", mask=None)
        if current is None:
            state_balance(rows, account.id, None)
    rows.commit()

    assert app.read() == {"accounts": [], "errors": ["The balance of Unknown is not known, so it is left out"] * 2}


@pytest.mark.deep
def test_an_access_for_some_accounts_sees_no_others(
    client: TestClient, web_runtime: Runtime, books: Books, app: App
) -> None:
    narrow = connected(client, web_runtime, books.user_id, account_ids=[books.brokerage])

    assert [one["id"] for one in narrow.read()["accounts"]] == [str(books.brokerage)]
    assert narrow.read(account=str(books.checking))["errors"] == [f"There is no account {books.checking} here"]


@pytest.mark.deep
def test_two_accounts_of_one_name_are_told_apart(new_books: tuple[Provider, App], rows: Session) -> None:
    login, app = new_books
    for _ in range(2):
        account = make_account(rows, provider=login, name="Savings", mask=None)
        state_balance(rows, account.id, "1")
    rows.commit()

    names = [one["name"] for one in app.read()["accounts"]]

    assert len(set(names)) == 2
    assert all(name.startswith("Savings ") for name in names)


def test_two_logins_of_one_name_are_told_apart(new_books: tuple[Provider, App], rows: Session) -> None:
    login, app = new_books
    user = rows.get_one(User, login.user_id)
    make_provider(rows, user=user, alias=login.alias, status="needs_reauth", provider_key="elsewhere")
    rows.commit()

    answer = app.read(version="2")

    names = [one["name"] for one in answer["connections"]]
    assert len(set(names)) == 2
    assert answer["errlist"][0]["msg"] == "Connection to Other bank (elsewhere) may need attention"


# Trouble with a login -------------------------------------------------------------------------------------------------


@pytest.mark.deep
def test_a_login_that_needs_its_user_is_told_in_the_words_that_apps_look_for(
    new_books: tuple[Provider, App], rows: Session
) -> None:
    login, app = new_books
    account = make_account(rows, provider=login)
    state_balance(rows, account.id, "1")
    login.status = "needs_reauth"
    rows.commit()

    old, new = app.read(), app.read(version="2")

    assert old["errors"] == ["Connection to Other bank may need attention"]
    assert old["accounts"][0]["org"]["name"] == "Other bank"
    assert new["errlist"] == [
        {"code": "con.auth", "msg": "Connection to Other bank may need attention", "conn_id": str(login.id)}
    ]


@pytest.mark.deep
@pytest.mark.parametrize(
    ("status", "last_run", "is_synced", "told"),
    [
        ("active", "completed", True, []),
        ("active", None, False, ["Other bank has not been synced yet."]),
        ("active", "failed", True, ["The last sync of Other bank failed. It was last synced on 2026-01-06."]),
        (
            "active",
            "partial",
            True,
            ["The last sync of Other bank was not complete. It was last synced on 2026-01-06."],
        ),
        ("paused", "completed", True, ["Other bank is paused on this server. It was last synced on 2026-01-06."]),
        ("unlinked", "completed", True, []),
        ("pending", None, False, []),
    ],
)
def test_figures_that_may_be_old_are_told(
    new_books: tuple[Provider, App], rows: Session, status: str, last_run: str | None, is_synced: bool, told: list[str]
) -> None:
    login, app = new_books
    login.status = status
    login.synced_at = login.synced_at if is_synced else None
    if last_run:
        rows.add(SyncRun(**_run(login.id, last_run)))
    rows.commit()

    answer = app.read(version="2")

    assert [one["msg"] for one in answer["errlist"]] == told == app.read()["errors"]
    assert all(one["code"] == "con." and one["conn_id"] == str(login.id) for one in answer["errlist"])


def _run(provider_id: UUID, status: str) -> dict[str, Any]:
    now = datetime.now(UTC)
    return {
        "provider_id": provider_id,
        "trigger": "schedule",
        "mode": "incremental",
        "status": status,
        "owner": uuid4(),
        "started_at": now,
        "heartbeat_at": now,
        "finished_at": now,
    }


# Claims and access URLs -----------------------------------------------------------------------------------------------


@pytest.mark.deep
def test_a_setup_token_is_the_base64_form_of_a_claim_address(web_runtime: Runtime, books: Books) -> None:
    address = claim_address(setup_token(web_runtime, books.user_id).setup_token)

    assert address.startswith(f"{HOST}/simplefin/claim/")


@pytest.mark.deep
def test_a_claim_gives_the_access_url_as_plain_text(client: TestClient, web_runtime: Runtime, books: Books) -> None:
    made = setup_token(web_runtime, books.user_id)

    response = client.post(claim_address(made.setup_token), content=b"", headers={"Content-Length": "0"})

    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain")
    url = urlsplit(response.text)
    assert (url.scheme, url.path, url.username) == ("http", "/simplefin", made.row.prefix)
    assert response.text == response.text.strip()
    assert f"{url.hostname}:{url.port}" == "127.0.0.1:8000"


def _stored(runtime: Runtime, made: accesses.AccessMade) -> Any:
    with runtime.transaction() as session:
        found = session.execute(text("SELECT * FROM simplefin_accesses WHERE id = :id"), {"id": made.row.id})
        return found.mappings().one()


def test_a_setup_token_is_good_for_one_claim(client: TestClient, web_runtime: Runtime, books: Books) -> None:
    made = setup_token(web_runtime, books.user_id)
    address = claim_address(made.setup_token)
    first = App(client, client.post(address).text)
    before = _stored(web_runtime, made)

    second = client.post(address)

    assert second.status_code == 403
    assert "used before" in second.json()["detail"]
    assert address.rpartition("/")[2] not in second.text
    assert _stored(web_runtime, made) == before
    assert first.ask().status_code == 200


@pytest.mark.deep
def test_an_expired_setup_token_is_refused(
    client: TestClient, web_runtime: Runtime, books: Books, rows: Session
) -> None:
    made = setup_token(web_runtime, books.user_id)
    earlier = {"id": made.row.id, "at": datetime.now(UTC) - timedelta(seconds=1)}
    rows.execute(text("UPDATE simplefin_accesses SET claim_expires_at = :at WHERE id = :id"), earlier)
    rows.commit()

    assert client.post(claim_address(made.setup_token)).status_code == 403
    assert _stored(web_runtime, made)["claimed_at"] is None


@pytest.mark.deep
@pytest.mark.parametrize("cut", [1, 10, 42, 47])
def test_a_truncated_setup_token_is_refused_and_stays_good(
    client: TestClient, web_runtime: Runtime, books: Books, cut: int
) -> None:
    address = claim_address(setup_token(web_runtime, books.user_id).setup_token)

    assert client.post(address[:-cut]).status_code in (403, 404)
    assert client.post(address).status_code == 200


@pytest.mark.deep
def test_a_revoked_setup_token_is_refused(client: TestClient, web_runtime: Runtime, books: Books) -> None:
    made = setup_token(web_runtime, books.user_id)
    runtime_run(web_runtime, accesses.revoke(web_runtime, made.row.prefix, actor="operator:tests"))

    assert client.post(claim_address(made.setup_token)).status_code == 403


@pytest.mark.deep
def test_a_claim_is_a_post_and_never_a_redirect(client: TestClient, web_runtime: Runtime, books: Books) -> None:
    address = claim_address(setup_token(web_runtime, books.user_id).setup_token)

    assert client.get(address, follow_redirects=False).status_code == 405
    assert client.post(f"{address}/", follow_redirects=False).status_code == 200


@pytest.mark.deep
def test_a_revoked_access_is_answered_403(client: TestClient, web_runtime: Runtime, books: Books) -> None:
    made = setup_token(web_runtime, books.user_id)
    app = App(client, client.post(claim_address(made.setup_token)).text)
    assert app.ask().status_code == 200

    runtime_run(web_runtime, accesses.revoke(web_runtime, made.row.prefix, actor="operator:tests"))

    refused = app.ask()
    assert refused.status_code == 403
    assert refused.json()["errlist"] == [{"code": "gen.auth", "msg": refused.json()["detail"]}]
    assert "www-authenticate" not in refused.headers


@pytest.mark.deep
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Basic "},
        {"Authorization": "Basic %%%"},
        {"Authorization": "Basic " + base64.b64encode(b"no colon").decode()},
        {"Authorization": "Basic " + base64.b64encode(b"1f2e3d4c:sfa_" + b"x" * 43).decode()},
        {"Authorization": "Basic " + base64.b64encode(b"\xff\xfe:\xff").decode()},
        {"Authorization": "Bearer dashtam_00000000_" + "x" * 43},
    ],
)
def test_credentials_that_are_wrong_are_answered_403(client: TestClient, headers: dict[str, str]) -> None:
    response = client.get("/simplefin/accounts", headers=headers)

    assert response.status_code == 403
    assert response.json()["errlist"][0]["code"] == "gen.auth"


@pytest.mark.deep
def test_the_password_of_one_access_does_not_open_another(
    app: App, client: TestClient, web_runtime: Runtime, books: Books
) -> None:
    other = connected(client, web_runtime, books.user_id)

    mixed = client.get("/simplefin/accounts", auth=(app.credentials[0], other.credentials[1]))

    assert mixed.status_code == 403


@pytest.mark.deep
def test_secrets_are_stored_as_hashes_and_in_no_log(client: TestClient, web_runtime: Runtime, books: Books) -> None:
    from worker.telemetry.redaction import redact

    made = setup_token(web_runtime, books.user_id)
    address = claim_address(made.setup_token)
    with capture_logs() as lines:
        app = App(client, client.post(address).text)
        app.ask()
        client.post(address)
    secrets = (address.rpartition("/")[2], app.credentials[1])

    stored = str(dict(_stored(web_runtime, made)))
    with web_runtime.transaction() as session:
        query = text("SELECT row_to_json(a)::text FROM provider_audit_logs a WHERE provider_id = :id")
        audited = [row[0] for row in session.execute(query, {"id": made.row.id})]
    assert len(audited) == 2
    for secret in secrets:
        assert secret not in stored + repr(made) + "".join(audited)
        assert secret not in redact(str(lines))


@pytest.mark.deep
def test_when_an_access_was_last_used_is_noted(client: TestClient, web_runtime: Runtime, books: Books) -> None:
    made = setup_token(web_runtime, books.user_id)
    app = App(client, client.post(claim_address(made.setup_token)).text)
    assert _stored(web_runtime, made)["last_used_at"] is None

    app.ask()
    first = _stored(web_runtime, made)["last_used_at"]
    app.ask()

    assert first is not None
    assert _stored(web_runtime, made)["last_used_at"] == first


# Long answers ---------------------------------------------------------------------------------------------------------


@pytest.mark.deep
@pytest.mark.parametrize("at_once", [1, 2, 3, 5, 7, 100])
def test_an_answer_in_parts_is_the_same_document(app: App, monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    whole = {version: app.ask(version=version, pending="1").content for version in ("1", "2")}
    monkeypatch.setattr(serving, "_AT_ONCE", at_once)

    for version, expected in whole.items():
        assert app.ask(version=version, pending="1").content == expected


_MANY = text(
    """
    INSERT INTO transactions (id, account_id, provider_transaction_id, type, status, amount, currency, posted_date,
        description, content_hash)
    SELECT gen_random_uuid(), :account, 'many-' || n, 'payment', 'posted', -n, 'USD', date '2020-01-01' + n % 1000,
        'Row ' || n, 'x'
    FROM generate_series(1, :count) AS n
    """
)


@pytest.mark.deep
def test_an_answer_with_many_transactions_takes_no_more_memory_and_has_each_once(
    new_books: tuple[Provider, App], rows: Session, web_runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "_AT_ONCE", 500)
    login, _ = new_books
    row = setup_token(web_runtime, login.user_id).row
    peaks = []
    for count in (2_000, 12_000):
        account = make_account(rows, provider=login)
        state_balance(rows, account.id, "1")
        rows.execute(_MANY, {"account": account.id, "count": count})
        rows.commit()

        async def read(only: tuple[str, ...] = (str(account.id),)) -> int:
            found = 0
            answer = await serving.answer(web_runtime, row, Wish(accounts=only), HOST)
            tracemalloc.start()
            async for part in answer:
                found += part.count(b'"posted":')
                assert len(part) < 500_000
            return found

        assert runtime_run(web_runtime, read()) == count
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()

    assert peaks[1] < 1.5 * peaks[0] + 200_000, peaks

"""The views of `dashtam_v1`: columns stay as they are, each has a comment, and the queries of docs/data.md work."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from tests.factories import make_account, make_provider, make_transaction, make_user
from tests.support.environment import ROOT
from worker.models import Balance, BalanceDay, Holding, HoldingDay, Liability, Security

pytestmark = pytest.mark.deep

COLUMNS = Path(__file__).with_name("views_v1.txt")
_SECTIONS = (section.partition("\n") for section in (ROOT / "docs/data.md").read_text().split("\n## ")[1:])
QUERIES = {title: sql[1] for title, _, told in _SECTIONS if (sql := re.search(r"```sql\n(.*?)```", told, re.DOTALL))}


def test_views_stay_as_they_are(db_session: Session) -> None:
    found = db_session.execute(
        text(
            """
            SELECT c.relname || '.' || a.attname || ' ' || format_type(a.atttypid, a.atttypmod)
            FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid
            WHERE c.relnamespace = 'dashtam_v1'::regnamespace AND a.attnum > 0 ORDER BY c.relname, a.attnum
            """
        )
    )
    listed = "\n".join(found.scalars())
    assert listed + "\n" == COLUMNS.read_text(), "others rely on these columns: make dashtam_v2"


def test_each_view_and_column_has_a_comment(db_session: Session) -> None:
    bare = db_session.execute(
        text(
            """
            SELECT c.relname || '.' || a.attname FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid
            WHERE c.relnamespace = 'dashtam_v1'::regnamespace AND a.attnum > 0
                AND (col_description(c.oid, a.attnum) IS NULL OR obj_description(c.oid) IS NULL)
            """
        )
    )
    assert bare.scalars().all() == []


@pytest.fixture
def books(db_session: Session) -> Session:
    """One person's checking account, credit card and brokerage account, over four months."""
    today = db_session.execute(text("SELECT current_date")).scalar_one()
    user = make_user(db_session)
    login = make_provider(db_session, user=user, status="active", alias="My bank")
    checking = make_account(db_session, provider=login, name="Checking", type="depository", subtype="checking")
    card = make_account(db_session, provider=login, name="Card", type="credit", subtype="credit_card")
    broker = make_account(db_session, provider=login, name="Broker")
    for account, days_ago, current in (
        (checking, 5, "1000.00"),
        (checking, 1, "900.00"),
        (card, 5, "-250.10"),
        (broker, 2, "5000.00"),
    ):
        _balance(db_session, account.id, today - timedelta(days=days_ago), Decimal(current))
    for days_ago in (100, 65, 33):
        make_transaction(
            db_session,
            account=checking,
            amount=Decimal("-9.99"),
            counterparty="Streaming",
            category="ENTERTAINMENT",
            posted_date=today - timedelta(days=days_ago),
        )
    for amount, status in (("-80.00", "posted"), ("10.00", "posted"), ("-5.00", "pending"), ("-7.00", "removed")):
        make_transaction(
            db_session,
            account=card,
            amount=Decimal(amount),
            status=status,
            counterparty="Grocer",
            category="FOOD",
            posted_date=today - timedelta(days=3),
        )
    make_transaction(db_session, account=checking, amount=Decimal(-500), type="transfer", posted_date=today)
    dividend = {"type": "income", "subtype": "dividend", "posted_date": date(2024, 5, 1)}
    make_transaction(db_session, account=broker, amount=Decimal("12.50"), **dividend)
    _position(db_session, broker.id, today)
    db_session.flush()
    return db_session


def _balance(session: Session, account_id: Any, day: date, current: Decimal) -> None:
    taken_at = datetime(day.year, day.month, day.day, 12, tzinfo=UTC)
    row = {"account_id": account_id, "currency": "USD", "source": "test", "content_hash": b"", "taken_at": taken_at}
    session.add(Balance(**row, current=current))
    session.add(BalanceDay(account_id=account_id, day=day, current=current, currency="USD"))


def _position(session: Session, account_id: Any, today: date) -> None:
    acme = Security(
        key=f"test:{uuid4()}", type="equity", symbol="ACME", multiplier=Decimal(1), source="test", content_hash=b""
    )
    session.add(acme)
    session.flush()
    row = {"quantity": Decimal(10), "price": Decimal(150), "market_value": Decimal(1500)}
    holding = Holding(
        account_id=account_id,
        holding_key="acme",
        security_id=acme.id,
        cost_basis=Decimal(1200),
        currency="USD",
        content_hash=b"",
        **row,
    )
    session.add(holding)
    session.flush()
    session.add(HoldingDay(holding_id=holding.id, day=today, **row))


def ask(session: Session, title: str) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in session.execute(text(QUERIES[title].replace("::", "\\:\\:")))]


def test_net_worth_now(books: Session) -> None:
    assert ask(books, "Net worth now") == [("USD", Decimal("5649.90"))]


def test_what_is_due_next_and_what_it_costs(books: Session) -> None:
    card = books.execute(text("SELECT account_id FROM dashtam_v1.accounts WHERE name = 'Card'")).scalar_one()
    owed = {"account_id": card, "kind": "credit", "currency": "USD", "details": {}, "content_hash": b""}
    books.add(Liability(liability_key="a", **owed, next_payment_amount=Decimal("20.00"), interest_rate=Decimal("12.5")))
    books.add(Liability(liability_key="b", **owed, closed_at=datetime(2025, 1, 1, tzinfo=UTC)))
    books.flush()

    (row,) = ask(books, "What is due next, and what it costs")

    assert (row[0], row[3], row[4]) == ("Card", Decimal("20.00"), Decimal("12.5"))


def test_net_worth_by_day(books: Session) -> None:
    rows = ask(books, "Net worth by day")
    assert [row[2] for row in rows] == [
        Decimal(figure) for figure in ("749.90", "749.90", "749.90", "5749.90", "5649.90", "5649.90")
    ]


def test_spending_by_category(books: Session) -> None:
    assert ask(books, "Spending by category, last 30 days") == [("FOOD", "USD", Decimal("70.00"))]


def test_money_in_and_out_by_month(books: Session) -> None:
    rows = ask(books, "Money in and out by month")
    assert sum(row[2] for row in rows) == Decimal("22.50")
    assert sum(row[3] for row in rows) == Decimal("109.97")
    assert rows[0] == (date(2024, 5, 1), "USD", Decimal("12.50"), 0)


def test_unrealised_gains(books: Session) -> None:
    assert ask(books, "Unrealised gains") == [("ACME", "USD", 10, 1500, 300, Decimal("25.00"))]


def test_shares_of_each_type_of_security(books: Session) -> None:
    assert ask(books, "Shares of each type of security") == [("equity", "USD", 1500, Decimal("100.00"))]


def test_who_gets_the_most_money(books: Session) -> None:
    assert ask(books, "Who gets the most money") == [
        ("Grocer", "USD", 1, Decimal("80.00")),
        ("Streaming", "USD", 3, Decimal("29.97")),
    ]


def test_payments_that_come_again(books: Session) -> None:
    (row,) = ask(books, "Payments that come again every month")
    assert row[:4] == ("Streaming", Decimal("9.99"), "USD", 3)


def test_dividends_by_year(books: Session) -> None:
    assert ask(books, "Dividends and interest by year") == [(2024, "dividend", "USD", Decimal("12.50"))]


def test_what_a_position_was_worth(books: Session) -> None:
    (row,) = ask(books, "What a position was worth")
    assert row[1:] == ("ACME", 10, 1500, "USD")


def test_logins_that_are_not_up_to_date(books: Session) -> None:
    assert [row[1] for row in ask(books, "Which logins are not up to date")] == ["My bank"]


def test_every_query_of_the_documentation_is_tested() -> None:
    tested = set(re.findall(r'ask\(books, "(.+?)"\)', Path(__file__).read_text()))
    assert set(QUERIES) == tested
    assert len(tested) >= 10

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import date
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine, text

from tests.integration.sync.conftest import Linked
from tests.integration.sync.feeds import ModelIntegration, Movement
from tests.integration.sync.test_sandbox_sync import forget_answers, link, sync
from tests.support.sandbox import SandboxAdmin
from worker.integrations.kit.base import Page, SyncRequest
from worker.models.records import Reject
from worker.runtime import Runtime

pytestmark = pytest.mark.deep


def drifts(linked: Linked) -> list[tuple[Any, ...]]:
    return linked.rows(
        "SELECT d.figure, d.stated, d.stored FROM book_drifts d JOIN accounts a ON a.id = d.account_id"
        " WHERE a.provider_id = :id ORDER BY d.seen_at"
    )


def opening(linked: Linked) -> dict[str, Any]:
    return dict(linked.rows("SELECT provider_account_id, opening FROM accounts WHERE provider_id = :id"))


def anchored(linked: Linked) -> Linked:
    """Account A with one posted row, its books anchored: the model's balance is 100 and the posted rows."""
    linked.integration.books.put(Movement("t1", "A", "5.00"))
    linked.sync()
    linked.sync()
    return linked


def test_books_are_anchored_by_the_first_sync_that_brings_nothing_new(linked: Linked) -> None:
    linked.integration.books.put(Movement("t1", "A", "5.00"))

    linked.sync()
    assert opening(linked)["A"] is None

    linked.sync()
    assert opening(linked) == {"A": Decimal(100), "B": None, "W": None, "C": None}


def test_balance_that_posted_rows_explain_does_not_drift(linked: Linked) -> None:
    anchored(linked)
    linked.integration.books.put(Movement("t2", "A", "-7.25"))
    linked.integration.books.put(Movement("p1", "A", "-1.00", "pending"))

    linked.sync()

    assert drifts(linked) == []


def test_balance_that_rows_do_not_explain_drifts_until_they_do(linked: Linked) -> None:
    anchored(linked)
    linked.execute("UPDATE transactions SET amount = 3 WHERE provider_transaction_id = 't1'")

    linked.sync()
    assert drifts(linked) == [("balance", Decimal("105.00"), Decimal(103))]

    linked.execute("UPDATE transactions SET amount = 5 WHERE provider_transaction_id = 't1'")
    linked.sync()
    assert drifts(linked) == []


def test_older_rows_that_a_deeper_backfill_finds_are_no_drift(linked: Linked) -> None:
    anchored(linked)
    ((account_id,),) = linked.rows("SELECT id FROM accounts WHERE provider_account_id = 'A'")
    linked.execute(
        "INSERT INTO transactions (id, account_id, provider_transaction_id, type, status, amount, currency,"
        " posted_date, content_hash)"
        " VALUES (gen_random_uuid(), :account_id, 'old', 'payment', 'posted', 9, 'USD', :day, '')",
        account_id=account_id,
        day=date(2020, 1, 1),
    )

    linked.sync()

    assert drifts(linked) == []


def test_full_sync_anchors_the_books_anew(linked: Linked) -> None:
    anchored(linked)
    linked.execute("UPDATE accounts SET opening = 1 WHERE provider_account_id = 'A'")
    linked.sync()
    assert len(drifts(linked)) == 1

    linked.sync(mode="full")

    assert drifts(linked) == []
    assert opening(linked)["A"] == Decimal(100)


@pytest.mark.parametrize("profile", ["plaid", "schwab"])
def test_books_of_honest_providers_do_not_drift_while_they_move(
    runtime: Runtime, engine: Engine, sandbox: SandboxAdmin, profile: str
) -> None:
    login = sandbox.logins(profile)[0]
    provider_id = link(runtime, sandbox, profile, login)
    sync(runtime, provider_id)
    sync(runtime, provider_id)

    for _ in range(6):
        sandbox.advance(2, [login])
        sync(runtime, provider_id)

    with engine.connect() as connection:
        anchors = connection.execute(text("SELECT count(opening), count(opening_from) FROM accounts")).one()
        positions = connection.execute(text("SELECT count(opening_quantity) FROM holdings")).scalar_one()
        found = connection.execute(text("SELECT figure, stated, stored FROM book_drifts")).all()
    assert found == []
    assert min(anchors) > 1
    assert positions > 1


def test_position_that_trades_do_not_explain_drifts(runtime: Runtime, engine: Engine, sandbox: SandboxAdmin) -> None:
    provider_id = link(runtime, sandbox, "schwab", sandbox.logins("schwab")[0])
    sync(runtime, provider_id)
    sync(runtime, provider_id)
    with engine.begin() as connection:
        first = "SELECT h.id FROM holdings h JOIN securities s ON s.id = h.security_id WHERE s.type <> 'cash' LIMIT 1"
        holding_id = connection.execute(text(first)).scalar_one()
        connection.execute(
            text("UPDATE holdings SET opening_quantity = opening_quantity + 3 WHERE id = :id"), {"id": holding_id}
        )
        forget_answers(connection)

    sync(runtime, provider_id)

    with engine.connect() as connection:
        ((figure, difference),) = connection.execute(text("SELECT figure, stored - stated FROM book_drifts")).all()
    assert figure.startswith("quantity:")
    assert difference == 3


def test_full_sync_anchors_a_position_anew_that_moved_without_a_trade(linked: Linked) -> None:
    books = linked.integration.books
    books.put(Movement("t1", "A", "1.00"))
    books.holdings["A", "X"] = Decimal(1)
    linked.sync()
    linked.sync()  # brings nothing new: the position is anchored
    books.holdings["A", "X"] = Decimal(3)
    linked.sync()
    assert linked.rows("SELECT figure, stated, stored FROM book_drifts") == [("quantity:X", 3, 1)]

    linked.sync(mode="full")

    assert linked.rows("SELECT figure, stated, stored FROM book_drifts") == []


def test_more_positions_take_no_more_statements(linked: Linked, monkeypatch: pytest.MonkeyPatch) -> None:
    anchored(linked)
    asked: list[str] = []
    execute = psycopg.Cursor.execute

    def noted(cursor: Any, query: Any, *args: Any, **named: Any) -> Any:
        asked.append(query.decode() if isinstance(query, bytes) else str(query))
        return execute(cursor, query, *args, **named)

    monkeypatch.setattr(psycopg.Cursor, "execute", noted)

    def statements_with(*positions: str) -> int:
        linked.integration.books.holdings.update({("A", key): Decimal(1) for key in positions})
        asked.clear()
        linked.sync()
        return sum("holdings" in statement or "book_drifts" in statement for statement in asked)

    assert statements_with("X1") == statements_with(*(f"X{number}" for number in range(2, 9)))
    assert linked.rows("SELECT count(opening_quantity) FROM holdings") == [(8,)]


class SilentIntegration(ModelIntegration):
    """States no balance that can be read, while it is silent."""

    silent = True

    async def pages(self, request: SyncRequest) -> AsyncIterator[Page]:
        async for page in super().pages(request):
            if page.accounts and self.silent:
                page.rejects = [
                    Reject(kind="balance", reason="odd", account_key=one.account_key) for one in page.balances
                ]
                page.balances = []
            yield page


def test_account_whose_balance_can_be_read_at_last_is_checked_from_then_on(link_model: Callable[..., Linked]) -> None:
    integration = SilentIntegration()
    linked = anchored(link_model(integration))
    assert opening(linked)["A"] is None
    entries = "SELECT account_key FROM quarantine WHERE provider_id = :id AND resolved_at IS NULL ORDER BY 1"
    assert linked.rows(entries) == [("A",), ("B",), ("C",), ("W",)]  # each once, whatever its other figures
    integration.silent = False

    linked.sync()

    assert opening(linked)["A"] == Decimal(100)


def test_balance_that_cannot_be_read_any_more_is_no_drift(link_model: Callable[..., Linked]) -> None:
    integration = SilentIntegration()
    integration.silent = False
    linked = anchored(link_model(integration))
    integration.silent = True
    integration.books.put(Movement("t2", "A", "-7.25"))

    linked.sync()

    assert drifts(linked) == []

"""Files that are imported: what the tables hold, and that importing again or in another order changes nothing."""

from __future__ import annotations

from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, text

from tests.factories import make_user
from tests.integration.sync.test_sandbox_sync import versions
from tests.unit.integrations.statement_files.test_camt import balance, camt, entry, statement
from tests.unit.integrations.statement_files.test_ofx import NUMBER, sgml, sgml_row
from worker.errors import Refused
from worker.models.vocabulary import RunStatus, Trigger
from worker.runtime import Runtime
from worker.services.linking import complete
from worker.services.sync import batch, importing

MARCH = sgml(sgml_row("1"), sgml_row("2", "20250310", "7.00"), balance="50.00")


@pytest.fixture
def user_id(runtime: Runtime) -> UUID:
    with runtime.transaction() as session:
        return make_user(session).id


def load(runtime: Runtime, user_id: UUID, content: bytes) -> Any:
    return runtime.run(importing.import_file(runtime, content, user_id=user_id)).run


def scalars(engine: Engine, query: str) -> list[Any]:
    with engine.connect() as connection:
        return list(connection.execute(text(query)).scalars())


@pytest.mark.deep
def test_file_becomes_a_login_with_its_account_and_is_never_due(
    runtime: Runtime, engine: Engine, user_id: UUID
) -> None:
    run = load(runtime, user_id, MARCH)

    assert (run.status, run.added, run.quarantined) == (RunStatus.COMPLETED, 4, 0)
    assert scalars(engine, "SELECT sum(amount) FROM transactions") == [Decimal("-5.50")]
    assert scalars(engine, "SELECT current FROM balances") == [Decimal("50.00")]
    assert scalars(engine, "SELECT sync_due_at FROM providers") == [None]
    assert scalars(engine, "SELECT count(*) FROM accounts WHERE opening = 55.50") == [1]


@pytest.mark.deep
def test_file_that_is_imported_again_writes_no_row(runtime: Runtime, engine: Engine, user_id: UUID) -> None:
    load(runtime, user_id, MARCH)
    before = versions(engine)

    again = load(runtime, user_id, MARCH)

    assert versions(engine) == before
    assert (again.added, again.changed, again.removed) == (0, 0, 0)


@pytest.mark.deep
@pytest.mark.parametrize("mode", ["incremental", "full"])
def test_sync_of_such_a_login_reads_nothing_and_withdraws_nothing(
    runtime: Runtime, engine: Engine, user_id: UUID, mode: str
) -> None:
    provider_id = load(runtime, user_id, MARCH).provider_id
    before = scalars(engine, "SELECT status FROM transactions")

    runtime.run(batch.sync_provider(runtime, provider_id, trigger=Trigger.MANUAL, mode=mode, force=True))

    assert scalars(engine, "SELECT status FROM transactions") == before
    assert scalars(engine, "SELECT status FROM accounts") == ["active"]
    assert scalars(engine, "SELECT sync_due_at FROM providers") == [None]


@pytest.mark.deep
def test_file_between_two_others_closes_the_gap_that_the_books_check_has_shown(
    runtime: Runtime, engine: Engine, user_id: UUID
) -> None:
    february, april = (MARCH.replace(b"202503", month) for month in (b"202502", b"202504"))
    load(runtime, user_id, february.replace(b"20250231", b"20250228").replace(b">50.00", b">55.50"))
    load(runtime, user_id, april.replace(b"20250431", b"20250430").replace(b">50.00", b">44.50"))
    gap = scalars(engine, "SELECT stated - stored FROM book_drifts")

    load(runtime, user_id, MARCH)

    assert gap == [Decimal("-5.50")]
    assert scalars(engine, "SELECT count(*) FROM book_drifts") == [0]
    assert scalars(engine, "SELECT count(*) FROM transactions") == [6]
    assert scalars(engine, "SELECT current FROM balances ORDER BY taken_at DESC LIMIT 1") == [Decimal("44.50")]


@pytest.mark.deep
def test_file_withdraws_nothing_that_it_does_not_list(runtime: Runtime, engine: Engine, user_id: UUID) -> None:
    load(runtime, user_id, MARCH)

    load(runtime, user_id, sgml(sgml_row("3", "20250320")))

    assert scalars(engine, "SELECT DISTINCT status FROM transactions") == ["posted"]
    assert scalars(engine, "SELECT count(*) FROM transactions") == [3]


@pytest.mark.deep
def test_older_file_does_not_make_a_posted_row_pending_again(runtime: Runtime, engine: Engine, user_id: UUID) -> None:
    posted = camt(statement(balance("CLBD", "1.00"), entry()))
    pending = camt(statement(balance("CLBD", "2.00", day="2025-03-06"), entry(status="<Sts>PDNG</Sts>")))

    for content in (pending, posted, pending):
        load(runtime, user_id, content)

    assert scalars(engine, "SELECT status FROM transactions") == ["posted"]


@pytest.mark.deep
def test_report_of_a_day_does_not_undo_the_statement_of_that_day(
    runtime: Runtime, engine: Engine, user_id: UUID
) -> None:
    pending = entry(status="<Sts>PDNG</Sts>")
    report = camt(statement(balance("ITBD", "2.00"), pending)).replace(b"BkToCstmrStmt>", b"BkToCstmrAcctRpt>")
    report = report.replace(b"Stmt>", b"Rpt>")
    stated = camt(statement(balance("CLBD", "1.00"), entry()))

    for content in (report, stated, report):
        load(runtime, user_id, content)

    assert scalars(engine, "SELECT status FROM transactions") == ["posted"]
    assert scalars(engine, "SELECT current FROM balances ORDER BY id DESC LIMIT 1") == [Decimal("1.00")]


@pytest.mark.deep
def test_bad_row_waits_in_quarantine_and_a_better_file_stores_it(
    runtime: Runtime, engine: Engine, user_id: UUID
) -> None:
    run = load(runtime, user_id, sgml(sgml_row("1"), sgml_row("2", "20250230")))

    assert (run.status, run.quarantined) == (RunStatus.COMPLETED, 1)
    assert scalars(engine, "SELECT detail FROM quarantine") == ["transaction 2 of account …6789"]
    assert load(runtime, user_id, MARCH).counts["transactions"]["added"] == 1


@pytest.mark.deep
def test_file_that_cannot_be_read_leaves_no_login(runtime: Runtime, engine: Engine, user_id: UUID) -> None:
    with pytest.raises(Refused):
        load(runtime, user_id, MARCH[:-40])

    assert scalars(engine, "SELECT count(*) FROM providers") == [0]


def test_looking_at_a_file_stores_nothing(runtime: Runtime, engine: Engine) -> None:
    (found,) = runtime.run(importing.look_at(runtime, MARCH)).statements

    assert (found.account, found.rows, found.balance) == ("checking …6789", 2, Decimal("50.00"))
    assert scalars(engine, "SELECT count(*) FROM providers") == [0]


@pytest.mark.deep
def test_link_of_such_a_login_is_not_replaced(runtime: Runtime, engine: Engine, user_id: UUID) -> None:
    load(runtime, user_id, MARCH)
    linking = complete.link_with_form(runtime, "statement_files", user_id, importing.ALIAS, {})

    with pytest.raises(Refused, match="linked only once"):
        runtime.run(linking)

    assert load(runtime, user_id, MARCH).unchanged > 0


@pytest.mark.deep
def test_balance_of_an_older_file_is_kept_by_day_and_is_not_the_newest(
    runtime: Runtime, engine: Engine, user_id: UUID
) -> None:
    older = MARCH.replace(b"20250331", b"20250228")
    load(runtime, user_id, MARCH)

    load(runtime, user_id, older.replace(b"50.00", b"40.00"))

    assert scalars(engine, "SELECT day || ' ' || current FROM balance_days ORDER BY day") == [
        "2025-02-28 40.00",
        "2025-03-31 50.00",
    ]
    assert scalars(engine, "SELECT current::text FROM balances") == ["50.00"]


@pytest.mark.deep
def test_no_table_has_the_full_number(runtime: Runtime, engine: Engine, user_id: UUID) -> None:
    load(runtime, user_id, sgml(sgml_row(f"{NUMBER}-1"), sgml_row("2", "20250230")))
    tables = ("accounts", "transactions", "quarantine", "sync_cursors", "sync_runs", "balances", "provider_audit_logs")

    for table in tables:
        assert NUMBER not in repr(scalars(engine, f"SELECT t::text FROM {table} t")), table  # noqa: S608

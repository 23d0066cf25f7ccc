"""CSV files: what is proposed for their columns, what must be confirmed, and how lines are read."""

from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest

from tests.unit.integrations.statement_files.test_ofx import SECRET, records
from worker.errors import Refused
from worker.integrations.kit.base import LOOK, Caller, FileReading, Page, SyncRequest
from worker.integrations.kit.contract.subject import every
from worker.integrations.statement_files.integration import COLUMNS, StatementFiles

GERMAN = (
    "Umsatzanzeige;von heute\n\n"
    "Buchungstag;Name;Verwendungszweck;Betrag;Währung;Saldo\n"
    "05.03.2025;Angelladen;Köder;-1.012,50;EUR;100,00\n"
    "31.03.2025;Arbeit;Lohn;2.000,00;EUR;2.100,00\n"
)
NEEDED = {"account": "DE02120300000000202051"}
CHOSEN = {
    **NEEDED,
    "date": "Date",
    "order": "ymd",
    "amount": "Amount",
    "decimal": ".",
    "currency": "EUR",
    "description": "Text",
}


def table(*lines: str, names: str = "Date,Text,Amount") -> bytes:
    return "\n".join([names, *lines, ""]).encode()


def opened(content: bytes, **options: str) -> FileReading:
    return StatementFiles.build().of_file(content, options)


def read(content: bytes, cursors: dict[str, str] | None = None, **options: str) -> list[Page]:
    request = SyncRequest(
        caller=Caller(), access_token=SECRET, cursors=cursors or {}, now=datetime(2025, 4, 2, tzinfo=UTC)
    )
    return asyncio.run(every(opened(content, **options).integration.pages(request)))


def amounts(pages: list[Page]) -> list[Decimal]:
    return [row.amount for row in records(pages).values()]


def reasons(pages: list[Page]) -> list[tuple[str, str | None]]:
    return [(reject.reason, reject.detail) for page in pages for reject in page.rejects]


def proposal(content: bytes, **options: str) -> dict[str, Any]:
    return dict(opened(content, **{LOOK: "yes"}, **options).proposal)


def test_columns_are_proposed_and_nothing_is_read_before_they_are_confirmed() -> None:
    found = proposal(GERMAN.encode())

    assert found == {
        "date": "Buchungstag",
        "order": "dmy",
        "amount": "Betrag",
        "decimal": ",",
        "currency": "Währung",
        "description": "Verwendungszweck",
        "counterparty": "Name",
        "balance": "Saldo",
        "account": "",
    }
    with pytest.raises(Refused, match=r"must be confirmed once; nothing was stored$") as refused:
        opened(GERMAN.encode())
    assert "--set 'date=Buchungstag'" in refused.value.for_operators
    assert "--set 'account='" in refused.value.for_operators
    assert "--set" not in refused.value.for_clients


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252"])
def test_file_is_read_as_confirmed_and_the_confirmation_is_kept(encoding: str) -> None:
    content = GERMAN.encode(encoding)
    columns, accounts, page = read(content, **proposal(content) | NEEDED)

    assert [account.mask for account in accounts.accounts] == ["2051"]
    assert amounts([page]) == [Decimal("-1012.50"), Decimal("2000.00")]
    assert [row.posted_date for row in records([page]).values()] == [date(2025, 3, 5), date(2025, 3, 31)]
    assert [one.current for one in page.balances] == [Decimal("2100.00")]
    assert (columns.feed, columns.cursor is None) == (COLUMNS, False)
    again = read(content, **{COLUMNS: columns.cursor or ""})
    assert (again[1].accounts, again[2].transactions) == (accounts.accounts, page.transactions)
    assert (again[0].cursor, NEEDED["account"] in repr(columns)) == (columns.cursor, False)


def test_confirmation_of_one_kind_of_file_keeps_those_of_others() -> None:
    first = read(GERMAN.encode(), **proposal(GERMAN.encode()) | NEEDED)[0].cursor or ""
    both = read(table("2025-03-05,A,1.00"), {COLUMNS: first}, **CHOSEN)[0].cursor or ""

    assert len(read(GERMAN.encode(), **{COLUMNS: both})) == 3
    assert len(read(table("2025-03-05,A,1.00"), **{COLUMNS: both})) == 3


@pytest.mark.parametrize(
    ("lines", "order"),
    [
        (["01/02/2025,A,1.00", "02/03/2025,B,1.00"], None),
        (["01/02/2025,A,1.00", "13/03/2025,B,1.00"], "dmy"),
        (["01/02/2025,A,1.00", "03/13/2025,B,1.00"], "mdy"),
        (["2025-02-01,A,1.00"], "ymd"),
    ],
)
def test_order_of_days_that_can_be_read_in_two_ways_is_not_proposed(lines: list[str], order: str | None) -> None:
    assert proposal(table(*lines))["order"] == (order or "")


@pytest.mark.parametrize(
    ("cells", "decimal"),
    [
        (["1.234", "5.678"], None),
        (["1.50"], "."),
        (['"1,50"'], ","),
        (['"1.234,5"'], ","),
        (['"1,234.56"'], "."),
        (['"1,50"', "1.50"], None),
        (["7", "8"], "."),
    ],
)
def test_sign_of_decimals_that_can_be_read_in_two_ways_is_not_proposed(cells: list[str], decimal: str | None) -> None:
    assert proposal(table(*(f"2025-03-05,A,{cell}" for cell in cells)))["decimal"] == (decimal or "")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("2025-02-30,A,1.00", "date_unreadable"),
        ("yesterday,A,1.00", "date_missing"),
        ("2025-03-05,A,", "amount_missing"),
        ("2025-03-05,A", "cells_do_not_fit"),
        ("2025-03-05,A, 12,-3.00", "cells_do_not_fit"),
        ('2025-03-05,A,"1,50"', "amount_ambiguous"),
        ('2025-03-05,A,"1.234,56"', "amount_ambiguous"),
        ("2025-03-05,A,=1+1", "amount_unreadable"),
        ("2025-03-05,A,1e5", "amount_unreadable"),
    ],
)
def test_bad_line_goes_to_quarantine_by_its_number_and_the_rest_lands(line: str, reason: str) -> None:
    pages = read(table("2025-03-04,good,1.00", line), **CHOSEN)

    assert amounts(pages) == [Decimal("1.00")]
    assert reasons(pages) == [(reason, "line 3")]


def test_grouped_amounts_are_read_once_the_sign_of_decimals_is_known() -> None:
    assert amounts(read(table('2025-03-05,A,"-1,234,567.89"'), **CHOSEN)) == [Decimal("-1234567.89")]


def test_text_that_is_a_formula_is_a_text() -> None:
    (row,) = records(read(table('2025-03-05,"=HYPERLINK(""x"")",1.00'), **CHOSEN)).values()

    assert row.description == '=HYPERLINK("x")'


def test_line_separator_of_unicode_ends_no_line() -> None:
    (row,) = records(read(table("2025-03-05,A\u2028B,1.00,"), **CHOSEN)).values()

    assert (row.amount, row.description) == (Decimal("1.00"), "A B")


def test_debit_and_credit_columns_make_one_amount() -> None:
    content = table("2025-03-05,12.50,", "2025-03-06,-3,", "2025-03-07,,20", "2025-03-08,,", names="Date,Debit,Credit")
    options = {name: value for name, value in CHOSEN.items() if name not in ("amount", "description")}
    pages = read(content, **options, debit="Debit", credit="Credit")

    assert sorted(amounts(pages)) == [Decimal("-12.50"), Decimal(-3), Decimal(20)]
    assert reasons(pages) == [("amount_missing", "line 5")]


def test_equal_lines_of_one_day_stay_apart_and_files_that_overlap_do_not_double_them() -> None:
    day = ["2025-03-05,A,1.00", "2025-03-05,A,1.00"]

    assert len(records(read(table(*day), **CHOSEN))) == 2
    assert records(read(table(*day), **CHOSEN)).keys() <= records(read(table(*day, "2025-03-06,B,2"), **CHOSEN)).keys()


def test_balances_that_do_not_follow_from_each_other_are_not_taken() -> None:
    content = table("2025-03-05,1.00,5.00", "2025-03-06,1.00,9.00", names="Date,Amount,Balance")
    options = {name: value for name, value in CHOSEN.items() if name != "description"}

    assert [page.balances for page in read(content, **options, balance="Balance")] == [(), (), ()]


def test_newest_line_may_come_first() -> None:
    content = table("2025-03-06,1.00,6.00", "2025-03-05,2.00,5.00", names="Date,Amount,Balance")
    options = {name: value for name, value in CHOSEN.items() if name != "description"}

    (stated,) = read(content, **options, balance="Balance")[-1].balances
    assert stated.current == Decimal("6.00")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"amount": "Betrag"}, "no column Betrag"),
        ({"order": "ydm"}, "order must be"),
        ({"decimal": ";"}, "order must be"),
        ({"currency": ""}, "set currency"),
        ({"account": ""}, "set account"),
        ({"colour": "Text"}, "no setting colour"),
        ({"currency": "euro"}, "no line of the file can be read: line 2 has currency_missing"),
    ],
)
def test_confirmation_that_does_not_fit_is_refused(change: dict[str, str], told: str) -> None:
    with pytest.raises(Refused, match=told):
        opened(table("2025-03-05,A,1.00"), **(CHOSEN | change))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (table('2025-03-05,"A,1.00'), "quote that is not closed"),
        (b"1,2,3\n4,5,6\n", "no line with the names"),
        (table("2025-03-05,A,1.00,7.00", names="Date,Text,Amount,Amount"), "several columns Amount"),
    ],
)
def test_file_that_cannot_be_read_is_refused_as_a_whole(content: bytes, told: str) -> None:
    with pytest.raises(Refused, match=told):
        opened(content, **CHOSEN)

"""CAMT files of all versions: what is read, and what is refused."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

import pytest

from tests.unit.integrations.statement_files.test_ofx import read, records, refusal
from worker.models.vocabulary import TransactionStatus

IBAN = "DE02120300000000202051"


def entry(amount: str = "12.50", side: str = "DBIT", day: str = "2025-03-05", ref: str = "R1", **more: str) -> str:
    """An entry; `more` replaces status, `extra` is put before its end."""
    status = more.get("status", "<Sts>BOOK</Sts>")
    return (
        f'<Ntry><Amt Ccy="{more.get("code", "EUR")}">{amount}</Amt><CdtDbtInd>{side}</CdtDbtInd>{status}'
        f"<BookgDt><Dt>{day}</Dt></BookgDt><AcctSvcrRef>{ref}</AcctSvcrRef>{more.get('extra', '')}</Ntry>"
    )


def balance(kind: str, amount: str, side: str = "CRDT", code: str = "EUR", day: str = "2025-03-31") -> str:
    return (
        f"<Bal><Tp><CdOrPrtry><Cd>{kind}</Cd></CdOrPrtry></Tp><Amt Ccy='{code}'>{amount}</Amt>"
        f"<CdtDbtInd>{side}</CdtDbtInd><Dt><Dt>{day}</Dt></Dt></Bal>"
    )


def statement(*parts: str, account: str = f"<Id><IBAN>{IBAN}</IBAN></Id><Ccy>EUR</Ccy>") -> str:
    return f"<Stmt><Acct>{account}</Acct>{''.join(parts)}</Stmt>"


def camt(*statements: str, version: str = "camt.053.001.08", head: str = "") -> bytes:
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>{head}<Document xmlns="urn:iso:std:iso:20022:tech:xsd:{version}">'
        f"<BkToCstmrStmt>{''.join(statements)}</BkToCstmrStmt></Document>"
    ).encode()


DETAIL = (
    "<NtryDtls><TxDtls><RltdPties><Cdtr>{}</Cdtr></RltdPties>"
    "<RmtInf><Ustrd>INVOICE 7</Ustrd></RmtInf></TxDtls></NtryDtls>"
)


@pytest.mark.parametrize("version", [f"camt.053.001.{number:02d}" for number in (2, 3, 4, 6, 8)])
@pytest.mark.parametrize("name", ["<Nm>Bait Shop</Nm>", "<Pty><Nm>Bait Shop</Nm></Pty>"])
@pytest.mark.parametrize("status", ["<Sts>BOOK</Sts>", "<Sts><Cd>BOOK</Cd></Sts>"])
def test_statement_of_each_version_is_read(version: str, name: str, status: str) -> None:
    parts = [balance("OPBD", "100.00"), balance("CLBD", "87.50"), entry(extra=DETAIL.format(name), status=status)]
    accounts, page = read(camt(statement(*parts), version=version))

    (account,), (row,) = accounts.accounts, records([page]).values()
    assert (account.mask, account.currency) == ("2051", "EUR")
    assert (row.amount, row.posted_date, row.status) == (Decimal("-12.50"), date(2025, 3, 5), TransactionStatus.POSTED)
    assert (row.description, row.counterparty) == ("INVOICE 7", "Bait Shop")
    assert [one.current for one in page.balances] == [Decimal("87.50")]
    assert page.problems == ()


@pytest.mark.parametrize(("outer", "inner"), [("BkToCstmrAcctRpt", "Rpt"), ("BkToCstmrDbtCdtNtfctn", "Ntfctn")])
def test_report_and_notification_are_read_as_a_statement(outer: str, inner: str) -> None:
    content = camt(statement(entry())).replace(b"BkToCstmrStmt", outer.encode()).replace(b"Stmt>", f"{inner}>".encode())

    assert len(records(read(content))) == 1


DAYS = "<FrToDt><FrDtTm>2025-03-01T00:00:00</FrDtTm><ToDtTm>2025-03-31T00:00:00</ToDtTm></FrToDt>"


@pytest.mark.parametrize(
    ("tag", "days", "windows"), [("Stmt", "", 1), ("Rpt", DAYS, 1), ("Rpt", "", 0), ("Ntfctn", DAYS, 0)]
)
def test_pending_entry_is_gone_only_if_the_file_lists_all_of_its_day(tag: str, days: str, windows: int) -> None:
    outer = {"Stmt": "BkToCstmrStmt", "Rpt": "BkToCstmrAcctRpt", "Ntfctn": "BkToCstmrDbtCdtNtfctn"}[tag]
    content = camt(statement(days, entry()).replace("Stmt>", f"{tag}>")).replace(b"BkToCstmrStmt", outer.encode())

    assert len(read(content)[1].windows) == windows


def test_of_two_statements_of_the_same_days_none_withdraws_what_the_other_lists() -> None:
    pages = read(camt(statement(entry(status="<Sts>PDNG</Sts>")), statement(entry(ref="R2"))))

    assert [page.windows for page in pages] == [(), (), ()]


def test_statements_of_other_days_withdraw_each_in_its_own() -> None:
    days = [("R1", "2025-03-05"), ("R2", "2025-03-06"), ("R3", "2025-03-08")]
    long = statement(entry(ref="R4", day="2025-03-07"), entry(ref="R5", day="2025-03-09"))

    apart = read(camt(*[statement(entry(ref=ref, day=day)) for ref, day in days]))
    mixed = read(camt(*[statement(entry(ref=ref, day=day)) for ref, day in days], long))

    assert [len(page.windows) for page in apart] == [0, 1, 1, 1]
    assert [len(page.windows) for page in mixed] == [0, 1, 1, 0, 0]


def test_older_file_withdraws_nothing_that_a_newer_one_has_listed() -> None:
    newer = camt(statement(balance("CLBD", "1.00"), entry(day="2025-03-05", status="<Sts>PDNG</Sts>")))
    older = camt(statement(balance("CLBD", "1.00", day="2025-03-06"), entry(day="2025-03-05", ref="R2")))

    assert [len(page.windows) for page in read(newer, older)] == [0, 1, 0, 0]


def test_pending_entry_is_posted_by_a_later_file() -> None:
    pending = camt(statement(entry(status="<Sts>PDNG</Sts>")))
    posted = camt(statement(entry()))

    assert [row.status for row in records(read(pending)).values()] == [TransactionStatus.PENDING]
    assert [row.status for row in records(read(pending, posted)).values()] == [TransactionStatus.POSTED]


def test_entry_for_information_is_left_out() -> None:
    assert records(read(camt(statement(entry(status="<Sts>INFO</Sts>"))))) == {}


@pytest.mark.parametrize("side", ["CRDT", "DBIT"])
def test_reversal_has_the_sign_of_its_own_side(side: str) -> None:
    (row,) = records(read(camt(statement(entry(side=side, extra="<RvslInd>true</RvslInd>"))))).values()

    assert (row.amount > 0) == (side == "CRDT")


def test_batch_is_one_row_of_the_amount_that_was_booked() -> None:
    detail = "<TxDtls><Refs><EndToEndId>E</EndToEndId></Refs></TxDtls>"
    (row,) = records(read(camt(statement(entry(extra=f"<NtryDtls>{detail * 3}</NtryDtls>"))))).values()

    assert (row.amount, row.description) == (Decimal("-12.50"), "3 payments")


def test_entries_that_do_not_explain_the_balances_are_told() -> None:
    page = read(camt(statement(balance("OPBD", "100.00"), balance("CLBD", "80.00"), entry())))[1]

    assert [problem.reason for problem in page.problems] == ["balances_do_not_add_up"]


def test_two_statements_of_one_account_leave_the_newer_balance() -> None:
    new = statement(balance("CLBD", "20.00", day="2025-04-30"), entry(day="2025-04-02", ref="R2"))
    old = statement(balance("CLBD", "10.00"), entry())
    pages = read(camt(new, old))

    assert len(pages[0].accounts) == 1
    assert [one.current for page in pages for one in page.balances][-1] == Decimal("20.00")
    assert len(records(pages)) == 2


def test_five_decimals_are_kept() -> None:
    (row,) = records(read(camt(statement(entry("0.12345"))))).values()

    assert row.amount == Decimal("-0.12345")


def test_entry_in_another_currency_keeps_it() -> None:
    (row,) = records(read(camt(statement(entry(code="SEK"))))).values()

    assert row.currency == "SEK"


def test_balance_in_another_currency_is_not_taken() -> None:
    pages = read(camt(statement(balance("CLBD", "27.00", code="SEK"), entry())))

    assert [page.balances for page in pages] == [(), ()]
    assert [reject.reason for page in pages for reject in page.rejects] == ["currency_differs"]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (entry(day="2025-02-30"), "date_unreadable"),
        (entry(day="5.3.2025"), "date_missing"),
        (entry("1,50"), "amount_unreadable"),
        (entry("-1.50"), "amount_unreadable"),
        (entry(side="OTHER"), "side_unknown"),
    ],
)
def test_bad_entry_goes_to_quarantine_and_the_rest_lands(bad: str, reason: str) -> None:
    pages = read(camt(statement(entry(), bad)))

    (reject,) = [reject for page in pages for reject in page.rejects]
    assert (reject.reason, reject.detail) == (reason, "entry 2 of account …2051")
    assert len(records(pages)) == 1


BOMB = '<!DOCTYPE x [<!ENTITY a "SECRETWORD"><!ENTITY b "&a;&a;&a;">]>'
EXTERNAL = '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>'


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (camt(statement(entry(ref="&b;")), head=BOMB), "document type"),
        (camt(statement(entry(ref="&a;")), head=EXTERNAL), "document type"),
        (camt(statement(entry()), head='<!DOCTYPE x SYSTEM "http://elsewhere.test/x.dtd">'), "document type"),
        (camt(statement(entry()))[:-20], "cut off"),
        (camt(statement(entry())).replace(b"</Ntry>", b""), "cut off"),
        (camt(statement(entry(), account="<Id/><Ccy>EUR</Ccy>")), "no account number"),
        (camt(statement(entry(code="eur"), account=f"<Id><IBAN>{IBAN}</IBAN></Id>")), "names no currency"),
        (camt(), "no statement of an account"),
    ],
)
def test_file_that_cannot_be_read_is_refused_as_a_whole(content: bytes, told: str) -> None:
    message = refusal(content)

    assert told in message
    assert message.endswith("nothing was stored")
    assert IBAN not in message


def test_encoding_that_no_file_can_have_is_not_believed() -> None:
    content = camt(statement(entry(ref="CAFÉ"))).decode().replace('"UTF-8"', '"undefined"').encode("cp1252")

    assert len(records(read(content))) == 1


def test_western_encoding_that_is_declared_as_utf_8_is_read() -> None:
    content = camt(statement(entry(extra="<AddtlNtryInf>CAFÉ</AddtlNtryInf>"))).decode().encode("cp1252")

    assert [row.description for row in records(read(content)).values()] == ["CAFÉ"]


def test_file_with_tags_without_end_is_refused_before_they_are_read() -> None:
    assert "more than 1000000 tags" in refusal(camt("<a/>" * 1_000_000))


@pytest.mark.deep
def test_file_nested_without_end_is_refused() -> None:
    refusal(camt("<A>" * 20_000 + "</A>" * 20_000))

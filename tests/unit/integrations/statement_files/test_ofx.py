"""OFX and QFX files: what is read, what is refused, and by what rows and accounts are recognised."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest

from worker.errors import Refused
from worker.integrations.kit.base import MOST_FILE_BYTES, Caller, Page, SyncRequest
from worker.integrations.kit.contract.subject import every, rows_of
from worker.integrations.statement_files.integration import StatementFiles
from worker.models.records import TransactionRecord
from worker.models.vocabulary import AccountType, TransactionType

NUMBER = "000123456789"
HEADER = "OFXHEADER:100\nDATA:OFXSGML\nVERSION:102\nENCODING:USASCII\nCHARSET:1252\n\n"
SECRET = "statement-files-of-these-tests-1"


def sgml_row(fitid: str = "F1", day: str = "20250305", amount: str = "-12.50", name: str = "BAIT SHOP") -> str:
    """A transaction without close tags, as OFX 1 allows."""
    return f"<STMTTRN>\n<TRNTYPE>POS\n<DTPOSTED>{day}\n<TRNAMT>{amount}\n<FITID>{fitid}\n<NAME>{name}\n</STMTTRN>\n"


def sgml(*rows: str, balance: str = "100.00", number: str = NUMBER, code: str = "<CURDEF>USD") -> bytes:
    return (
        f"{HEADER}<OFX><BANKMSGSRSV1><STMTTRNRS><TRNUID>1<STMTRS>{code}<BANKACCTFROM><BANKID>121000248"
        f"<ACCTID>{number}<ACCTTYPE>CHECKING</BANKACCTFROM><BANKTRANLIST><DTSTART>20250301<DTEND>20250331"
        f"{''.join(rows)}</BANKTRANLIST><LEDGERBAL><BALAMT>{balance}<DTASOF>20250331</LEDGERBAL>"
        "</STMTRS></STMTTRNRS></BANKMSGSRSV1></OFX>\n"
    ).encode()


def read(*files: bytes, cursors: dict[str, str] | None = None) -> list[Page]:
    """The pages of files that are imported one after the other."""
    integration, kept, found = StatementFiles.build(), dict(cursors or {}), []
    for content in files:
        request = SyncRequest(caller=Caller(), access_token=SECRET, cursors=kept, now=datetime(2025, 4, 2, tzinfo=UTC))
        pages = asyncio.run(every(integration.of_file(content, {}).integration.pages(request)))
        kept |= {page.feed: page.cursor for page in pages if page.cursor is not None}
        found += pages
    return found


def records(pages: Sequence[Page]) -> dict[tuple[str, str], TransactionRecord]:
    return {key: record for page in pages for key, record in rows_of(page).items()}


def refusal(content: bytes) -> str:
    with pytest.raises(Refused) as caught:
        StatementFiles.build().of_file(content, {})
    return str(caught.value)


def test_bank_statement_without_close_tags_is_read() -> None:
    accounts, page = read(sgml(sgml_row(), sgml_row("F2", "20250306120000.000[-5:EST]", "1000", "PAYROLL &amp; CO")))

    (account,) = accounts.accounts
    assert (account.type, account.subtype, account.mask) == (AccountType.DEPOSITORY, "checking", "6789")
    one, two = records([page]).values()
    assert (one.amount, one.posted_date, one.description) == (Decimal("-12.50"), date(2025, 3, 5), "BAIT SHOP")
    assert (one.type, one.provider_type) == (TransactionType.PAYMENT, "POS")
    assert (two.amount, two.posted_date, two.description) == (Decimal(1000), date(2025, 3, 6), "PAYROLL & CO")
    assert [(one.current, one.currency) for one in page.balances] == [(Decimal("100.00"), "USD")]
    assert [(window.first, window.last) for window in page.windows] == [(date(2025, 3, 1), date(2025, 3, 31))]


def test_section_is_a_text_and_one_without_end_is_refused_at_once() -> None:
    (row,) = records(read(sgml(sgml_row(name="<![CDATA[A <B> & C]]>")))).values()

    assert row.description == "A <B> & C"
    assert "not closed" in refusal(b"<OFX>" + b"<A>" * 101 + b"</A>" * 101 + b"</OFX>")
    assert "not closed" in refusal(b"<OFX>" + b"<NAME><![CDATA[" * 50_000 + b"</OFX>")


def test_list_of_transactions_that_is_not_closed_ends_before_the_balance() -> None:
    pages = read(sgml(sgml_row()).replace(b"</BANKTRANLIST>", b""))

    assert (len(records(pages)), len(pages[1].balances)) == (1, 1)


CARD = b"""<?xml version="1.0" encoding="UTF-8"?><?OFX OFXHEADER="200" VERSION="211"?>
<OFX><CREDITCARDMSGSRSV1><CCSTMTTRNRS><CCSTMTRS><CURDEF>EUR</CURDEF><CCACCTFROM><ACCTID>4111111111111111</ACCTID>
</CCACCTFROM><BANKTRANLIST><DTSTART>20250301</DTSTART><DTEND>20250331</DTEND><STMTTRN><TRNTYPE>DEBIT</TRNTYPE>
<DTPOSTED>20250302</DTPOSTED><TRNAMT>-3,50</TRNAMT><FITID>1</FITID><NAME>Caf\xc3\xa9</NAME><MEMO>Lyon</MEMO></STMTTRN>
</BANKTRANLIST></CCSTMTRS></CCSTMTTRNRS></CREDITCARDMSGSRSV1></OFX>"""


def test_card_statement_in_xml_is_read_and_a_comma_before_decimals_is_one() -> None:
    accounts, page = read(CARD)

    assert (accounts.accounts[0].type, accounts.accounts[0].currency) == (AccountType.CREDIT, "EUR")
    ((_, row),) = records([page]).items()
    assert (row.amount, row.currency, row.description) == (Decimal("-3.50"), "EUR", "Café Lyon")


INVESTMENT = b"""<OFX><INVSTMTMSGSRSV1><INVSTMTTRNRS><INVSTMTRS><DTASOF>20250331</DTASOF><CURDEF>USD</CURDEF>
<INVACCTFROM><BROKERID>b.example</BROKERID><ACCTID>77001234</ACCTID></INVACCTFROM><INVTRANLIST><DTSTART>20250301</DTSTART>
<DTEND>20250331</DTEND><BUYSTOCK><INVBUY><INVTRAN><FITID>T1</FITID><DTTRADE>20250310</DTTRADE></INVTRAN><SECID>
<UNIQUEID>000000001</UNIQUEID><UNIQUEIDTYPE>CUSIP</UNIQUEIDTYPE></SECID><UNITS>3</UNITS><UNITPRICE>10</UNITPRICE>
<TOTAL>-30.00</TOTAL></INVBUY><BUYTYPE>BUY</BUYTYPE></BUYSTOCK><INVBANKTRAN><STMTTRN><TRNTYPE>DEP</TRNTYPE>
<DTPOSTED>20250309</DTPOSTED><TRNAMT>50</TRNAMT><FITID>T2</FITID></STMTTRN></INVBANKTRAN></INVTRANLIST><INVPOSLIST>
<POSSTOCK><INVPOS><SECID><UNIQUEID>000000001</UNIQUEID><UNIQUEIDTYPE>CUSIP</UNIQUEIDTYPE></SECID><POSTYPE>LONG</POSTYPE>
<UNITS>3</UNITS><UNITPRICE>11</UNITPRICE><MKTVAL>33</MKTVAL></INVPOS></POSSTOCK></INVPOSLIST></INVSTMTRS></INVSTMTTRNRS>
</INVSTMTMSGSRSV1><SECLISTMSGSRSV1><SECLIST><STOCKINFO><SECINFO><SECID><UNIQUEID>000000001</UNIQUEID>
<UNIQUEIDTYPE>CUSIP</UNIQUEIDTYPE></SECID><SECNAME>Acme</SECNAME><TICKER>ACME</TICKER></SECINFO></STOCKINFO></SECLIST>
</SECLISTMSGSRSV1></OFX>"""


def test_investment_statement_has_trades_and_positions() -> None:
    accounts, page = read(INVESTMENT)

    assert accounts.accounts[0].type is AccountType.INVESTMENT
    (held,) = page.holdings
    assert (held.quantity, held.market_value, held.security.cusip) == (Decimal(3), Decimal(33), "000000001")
    assert held.account_key == accounts.accounts[0].account_key
    assert page.holdings_complete_for == {held.account_key}
    assert sorted((row.amount, row.type) for row in records([page]).values()) == [
        (Decimal("-30.00"), TransactionType.TRADE),
        (Decimal(50), TransactionType.TRANSFER),
    ]


def test_no_full_number_is_in_any_record() -> None:
    pages = read(sgml(sgml_row(fitid=f"{NUMBER}-1")))

    assert NUMBER not in repr(
        [(page.accounts, page.balances, page.cursor, [row.key for row in page.transactions]) for page in pages]
    )


def test_files_that_overlap_have_the_same_rows_under_the_same_keys() -> None:
    twice = records(read(sgml(sgml_row("1"), sgml_row("2")), sgml(sgml_row("2"), sgml_row("3"))))

    assert len(twice) == 3


def test_account_is_recognised_however_its_number_is_spaced_and_by_nothing_else() -> None:
    keys = [read(sgml(number=number))[0].accounts[0].account_key for number in (NUMBER, "0001 2345 6789", "99996789")]

    assert keys[0] == keys[1] != keys[2]


def test_reference_that_is_used_again_is_another_row() -> None:
    rows = [sgml_row("1"), sgml_row("1", day="20250306"), sgml_row("1", amount="-9.00"), sgml_row("1", name="OTHER")]

    assert len(records(read(sgml(*rows)))) == 4
    assert records(read(sgml(*rows))).keys() == records(read(sgml(*rows[::-1]))).keys()


def test_row_that_a_file_lists_twice_is_one_row() -> None:
    assert len(records(read(sgml(sgml_row("1"), sgml_row("1"))))) == 1


def test_rows_without_reference_are_numbered() -> None:
    rows = [sgml_row(""), sgml_row("")]

    assert len(records(read(sgml(*rows)))) == 2
    assert records(read(sgml(*rows), sgml(*rows))).keys() == records(read(sgml(*rows))).keys()


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (sgml_row(day="20250230"), "date_unreadable"),
        (sgml_row(day="5 March"), "date_missing"),
        (sgml_row(amount="1,234.56"), "amount_unreadable"),
        (sgml_row(amount="1,234"), "amount_ambiguous"),
        (sgml_row(amount="1.234,56"), "amount_unreadable"),
        (sgml_row(amount="NaN"), "amount_unreadable"),
        (sgml_row(amount="9" * 30), "amount_out_of_range"),
        (sgml_row(amount=""), "amount_missing"),
    ],
)
def test_bad_row_goes_to_quarantine_by_name_and_the_rest_lands(row: str, reason: str) -> None:
    pages = read(sgml(sgml_row("good"), row))

    (reject,) = [reject for page in pages for reject in page.rejects]
    assert (reject.reason, reject.detail) == (reason, "transaction 2 of account …6789")
    assert reject.account_key == pages[0].accounts[0].account_key
    assert "BAIT" not in repr(reject)
    assert len(records(pages)) == 1
    assert not any(page.windows for page in pages)


def test_balance_that_cannot_be_read_leaves_the_rows() -> None:
    pages = read(sgml(sgml_row(), balance="1,234.56"))

    assert len(records(pages)) == 1
    assert [page.balances for page in pages] == [(), ()]
    assert [reject.reason for page in pages for reject in page.rejects] == ["amount_unreadable"]


def test_older_file_that_is_imported_later_does_not_replace_the_newer_balance() -> None:
    old = sgml(sgml_row("0", "20250105")).replace(b"20250301", b"20250101").replace(b"20250331", b"20250131")
    pages = read(sgml(sgml_row()), old)

    assert [len(page.balances) for page in pages] == [0, 1, 0, 0]
    assert len(records(pages)) == 2


@pytest.mark.parametrize("encoding", ["cp1252", "utf-8", "utf-8-sig"])
def test_text_is_read_whatever_the_header_says_of_its_encoding(encoding: str) -> None:
    content = sgml(sgml_row(name="CAFÉ ZOË")).decode().encode(encoding)

    assert [row.description for row in records(read(content)).values()] == ["CAFÉ ZOË"]


REFUSED: list[tuple[bytes, str]] = [
    (sgml(sgml_row())[:-30], "ends too early"),
    (sgml(sgml_row())[:200], "ends too early"),
    (b"", "empty"),
    (b"  \n ", "empty"),
    (b"PK\x03\x04" + b"x" * 100, "packed"),
    (b"\x1f\x8b" + b"x" * 100, "packed"),
    (b"x" * (MOST_FILE_BYTES + 1), "more than 10 MiB"),
    (b"hello", "none of the formats"),
    (sgml(sgml_row(), code=""), "names no currency"),
    (sgml(sgml_row(), code="<CURDEF>usd"), "names no currency"),
    (sgml(sgml_row(), number=""), "no account number"),
    (b"<OFX></OFX>", "no statement of an account"),
    (sgml(sgml_row()).decode().encode("utf-16"), "no text|none of the formats"),
    (sgml(sgml_row()).replace(b"</STMTTRN>", b"</STMTRS>"), "not closed"),
    (b"<ofx></ofx>", "not closed"),
]


@pytest.mark.parametrize(("content", "told"), REFUSED)
def test_file_that_cannot_be_read_is_refused_as_a_whole(content: bytes, told: str) -> None:
    message = refusal(content)

    assert any(part in message for part in told.split("|")), message
    assert message.endswith("nothing was stored")
    assert not any(secret in message for secret in ("BAIT", NUMBER))


def test_entities_of_a_document_type_are_not_expanded() -> None:
    bomb = CARD.replace(b"<OFX>", b'<!DOCTYPE x [<!ENTITY a "SECRETWORD"><!ENTITY b "&a;&a;">]><OFX>', 1)
    rows = records(read(bomb.replace(b"Lyon", b"&b;")))

    assert "SECRETWORD" not in repr(rows)


def test_scheduled_run_reads_nothing() -> None:
    request: Any = None

    assert asyncio.run(every(StatementFiles.build().pages(request))) == []

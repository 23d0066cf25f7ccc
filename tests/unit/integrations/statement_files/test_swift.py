"""MT940 and MT942 files: what is read, and what is refused."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

import pytest

from tests.unit.integrations.statement_files.test_ofx import read, records, refusal

NUMBER = "DE02120300000000202051"


def entry(text: str = "2503050305D12,50NMSCNONREF//B1", told: str = "Bait Shop") -> str:
    return f":61:{text}\n:86:{told}\n"


def mt940(*entries: str, closing: str = "62F:C250331EUR87,50", account: str = NUMBER) -> bytes:
    return f":20:STARTUMS\n:25:{account}\n:28C:1/1\n:60F:C250301EUR100,00\n{''.join(entries)}:{closing}\n-\n".encode()


def test_statement_is_read() -> None:
    accounts, page = read(mt940(entry()))

    (account,), (row,) = accounts.accounts, records([page]).values()
    assert (account.mask, account.currency) == ("2051", "EUR")
    assert (row.amount, row.posted_date, row.description) == (Decimal("-12.50"), date(2025, 3, 5), "Bait Shop")
    assert [one.current for one in page.balances] == [Decimal("87.50")]
    assert page.problems == ()


def test_structured_text_is_taken_apart() -> None:
    told = "166?00GUTSCHRIFT?20SVWZ+Koeder?21 und Haken?32Bait Shop"
    (row,) = records(read(mt940(entry(told=told)))).values()

    assert row.counterparty == "Bait Shop"
    assert "Koeder und Haken" in str(row.description)


@pytest.mark.parametrize(("mark", "amount"), [("D", "-12.50"), ("C", "12.50"), ("RC", "-12.50"), ("RD", "12.50")])
def test_reversal_turns_the_sign(mark: str, amount: str) -> None:
    (row,) = records(read(mt940(entry(f"2503050305{mark}12,50NMSCNONREF")))).values()

    assert row.amount == Decimal(amount)


@pytest.mark.parametrize(
    ("days", "posted", "valued"),
    [
        ("2412310102", date(2025, 1, 2), date(2024, 12, 31)),
        ("2501021231", date(2024, 12, 31), date(2025, 1, 2)),
        ("250305", date(2025, 3, 5), date(2025, 3, 5)),
        ("2502300301", date(2025, 3, 1), date(2025, 2, 28)),
    ],
)
def test_day_of_booking_may_be_in_another_year_than_the_day_of_value(days: str, posted: date, valued: date) -> None:
    (row,) = records(read(mt940(entry(f"{days}D12,50NMSCNONREF")))).values()

    assert (row.posted_date, row.settlement_date) == (posted, valued)


@pytest.mark.parametrize(
    "text",
    [
        "2503050305D1.2.3NMSCNONREF",
        "2503050305D1234567890123,45NMSCNONREF",
        "2503050305D12,5,0NMSCNONREF",
        "2513050305D12,50NMSCNONREF",
        "2503050305X12,50NMSCNONREF",
        "2503050305D,NMSCNONREF",
        "SECRETWORD",
        "",
    ],
)
def test_bad_entry_goes_to_quarantine_and_the_rest_lands_and_nothing_is_logged(
    text: str, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("DEBUG"):
        pages = read(mt940(entry(), entry(text, told="SECRETWORD")))

    (reject,) = [reject for page in pages for reject in page.rejects]
    assert (reject.reason, reject.detail) == ("entry_unreadable", "entry 2 of account …2051")
    assert len(records(pages)) == 1
    assert "SECRETWORD" not in f"{capfd.readouterr()} {caplog.text} {reject}"


def test_reference_longer_than_the_standard_allows_is_read() -> None:
    (row,) = records(read(mt940(entry("2001010101D65,00NOVBNL47INGB9999999999")))).values()

    assert row.amount == Decimal("-65.00")


def test_equal_entries_without_reference_stay_apart_and_files_that_overlap_do_not_double_them() -> None:
    twins = mt940(*[entry("2503050305D12,50NMSCNONREF")] * 2)

    assert len(records(read(twins))) == 2
    assert len(records(read(twins, twins))) == 2


def test_two_statements_in_a_file_and_lines_around_them() -> None:
    content = b"{1:F01XXXX}{4:\r\n" + (mt940(entry()) + mt940(entry("2504050405C1,NMSCNONREF"))).replace(b"\n", b"\r\n")

    assert len(records(read(content))) == 2


def test_account_with_its_currency_is_the_same_account() -> None:
    keys = {read(mt940(entry(), account=account))[0].accounts[0].account_key for account in (NUMBER, f"{NUMBER}EUR")}

    assert len(keys) == 1


def test_entries_that_do_not_explain_the_balances_are_told() -> None:
    page = read(mt940(entry(), closing="62F:C250331EUR1,00"))[1]

    assert [problem.reason for problem in page.problems] == ["balances_do_not_add_up"]


def test_balance_in_another_currency_is_not_taken() -> None:
    page = read(mt940(entry(), closing="62F:C250331SEK87,50"))[1]

    assert (page.balances, [reject.reason for reject in page.rejects]) == ((), ["currency_differs"])


def test_zeros_before_a_balance_cost_it_no_decimals() -> None:
    page = read(mt940(entry(), closing="62F:C250331EUR00000000000000087,50"))[1]

    assert [one.current for one in page.balances] == [Decimal("87.50")]


def test_interim_report_has_no_balances() -> None:
    content = f":20:X\n:25:{NUMBER}\n:28C:1/1\n:34F:EURD0,\n:13D:2503051200+0100\n{entry()}:90D:1EUR12,50\n-\n".encode()
    page = read(content)[1]

    assert (len(records([page])), page.balances) == (1, ())


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (mt940(entry()).partition(b":62F")[0], "without closing balance"),
        (mt940(entry()).replace(b"C250301EUR", b"C250301"), "no currency"),
        (mt940(entry(), account=""), "no account number"),
        (mt940(entry(), closing="62F:C250331EUR1.234,56"), "a balance that cannot be read"),
        (mt940(entry(), closing="62F:C250331EUR12345678901234567,00"), "a balance that cannot be read"),
    ],
)
def test_file_that_cannot_be_read_is_refused_as_a_whole(content: bytes, told: str) -> None:
    message = refusal(content)

    assert told in message
    assert message.endswith("nothing was stored")


def test_western_letters_are_read() -> None:
    (row,) = records(read(mt940(entry(told="CAFÉ")).decode().encode("latin-1"))).values()

    assert row.description == "CAFÉ"

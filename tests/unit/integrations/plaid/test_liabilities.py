"""Terms of cards and loans at Plaid: when they are asked for, what is read of them, and what is never kept."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from typing import Any

import httpx
import msgspec
import pytest

from tests.unit.integrations.scripts import (
    APP_SECRET,
    NOW,
    Provider,
    all_pages,
    plaid_account,
    plaid_error,
    plaid_healthy,
    provider,
    sync_request,
)
from worker.errors import BadPayload, BadRecord, NotReady, ProviderError, RateLimited
from worker.integrations.kit.base import Caller, Page
from worker.integrations.kit.contract.subject import BASE_URL
from worker.integrations.plaid import liabilities
from worker.integrations.plaid.integration import PlaidSettings
from worker.models.records import LiabilityRecord
from worker.models.vocabulary import LiabilityKind

TODAY = NOW.date().isoformat()
NUMBER = "3120194154"
CARD: dict[str, Any] = {
    "account_id": "acc_card",
    "aprs": [
        {
            "apr_percentage": 15.24,
            "apr_type": "balance_transfer_apr",
            "balance_subject_to_apr": 1562.32,
            "interest_charge_amount": 130.22,
        },
        {
            "apr_percentage": 12.50,
            "apr_type": "purchase_apr",
            "balance_subject_to_apr": None,
            "interest_charge_amount": None,
        },
    ],
    "is_overdue": True,
    "last_payment_amount": 168.25,
    "last_payment_date": "2025-02-22",
    "last_statement_issue_date": "2025-02-28",
    "last_statement_balance": 1708.77,
    "minimum_payment_amount": 20,
    "next_payment_due_date": "2025-03-28",
}
MORTGAGE: dict[str, Any] = {
    "account_id": "acc_house",
    "account_number": NUMBER,
    "current_late_fee": 25.0,
    "escrow_balance": 3141.54,
    "has_pmi": True,
    "has_prepayment_penalty": False,
    "interest_rate": {"percentage": 3.99, "type": "fixed"},
    "last_payment_amount": 3141.54,
    "last_payment_date": "2025-02-01",
    "loan_type_description": "conventional",
    "loan_term": "30 year",
    "maturity_date": "2045-07-31",
    "next_monthly_payment": 3141.54,
    "next_payment_due_date": "2025-04-01",
    "origination_date": "2015-08-01",
    "origination_principal_amount": 425000,
    "past_due_amount": 2304,
    "property_address": {
        "city": "Malakoff",
        "country": "US",
        "postal_code": "14236",
        "region": "NY",
        "street": "2992 Cameron Road",
    },
    "ytd_interest_paid": 12300.4,
    "ytd_principal_paid": 12340.5,
}
STUDENT: dict[str, Any] = {
    "account_id": "acc_study",
    "account_number": NUMBER,
    "disbursement_dates": ["2002-08-28", "2003-01-10"],
    "expected_payoff_date": "2032-07-28",
    "guarantor": "DEPT OF ED",
    "interest_rate_percentage": 5.25,
    "is_overdue": False,
    "last_payment_amount": 138.05,
    "last_payment_date": "2025-02-22",
    "last_statement_issue_date": "2025-02-28",
    "loan_name": "Consolidation",
    "loan_status": {"end_date": "2032-07-28", "type": "in grace"},
    "minimum_payment_amount": 25,
    "next_payment_due_date": "2025-03-28",
    "origination_date": "2002-08-28",
    "origination_principal_amount": 25000,
    "outstanding_interest_amount": 6227.36,
    "payment_reference_number": NUMBER,
    "pslf_status": {"estimated_eligibility_date": "2026-01-01", "payments_made": 200, "payments_remaining": 160},
    "repayment_plan": {"description": "Standard Repayment", "type": "standard"},
    "sequence_number": "1",
    "servicer_address": {"city": "San Matias", "street": "123 Relaxation Road", "postal_code": "99415"},
    "ytd_interest_paid": 280.55,
    "ytd_principal_paid": 271.65,
}
IN_THE_LISTS: dict[str, list[dict[str, Any]] | None] = {"credit": [CARD], "mortgage": [MORTGAGE], "student": [STUDENT]}
ACCOUNTS = [
    plaid_account("acc_card", type="credit", subtype="credit card"),
    plaid_account("acc_house", type="loan", subtype="mortgage"),
    plaid_account("acc_study", type="loan", subtype="student"),
]
Answer = httpx.Response | Callable[[httpx.Request], httpx.Response]


def told(lists: dict[str, Any], accounts: list[dict[str, Any]] | None = None) -> httpx.Response:
    answer = {"accounts": ACCOUNTS if accounts is None else accounts, "liabilities": lists, "item": {}}
    return httpx.Response(200, json=answer)


def borrower(answer: Answer | None = None, accounts: list[dict[str, Any]] | None = None) -> Provider:
    """A login with a card and two loans, or with other accounts."""
    own = [plaid_account("acc_checking"), *(ACCOUNTS if accounts is None else accounts)]

    def handler(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/accounts/get":
            return httpx.Response(200, json={"accounts": own})
        if request.url.path == "/liabilities/get":
            found = told(IN_THE_LISTS) if answer is None else answer
            return found(request) if callable(found) else found
        return plaid_healthy(request)

    return provider("plaid", handler)


def sync(subject: Provider, cursors: dict[str, str] | None = None, **more: Any) -> list[Page]:
    return asyncio.run(all_pages(subject.integration.pages(sync_request(cursors, **more))))


def times_asked(subject: Provider) -> int:
    return sum(request.url.path == "/liabilities/get" for request in subject.requests)


def problems(pages: list[Page]) -> list[ProviderError]:
    return [problem for page in pages for problem in page.problems]


def read(record: dict[str, Any], kind: LiabilityKind, currency: str = "USD") -> LiabilityRecord:
    return liabilities.record(json.dumps(record).encode(), kind, {record["account_id"]: currency})


# When they are asked for


def test_login_without_cards_and_loans_costs_no_call() -> None:
    subject = borrower(accounts=[])

    pages = sync(subject)

    assert times_asked(subject) == 0
    assert not [page for page in pages if page.feed == "liabilities"]


@pytest.mark.parametrize(
    ("cursor", "manual", "times"), [(None, False, 1), ("2025-03-09", False, 1), (TODAY, False, 0), (TODAY, True, 1)]
)
def test_they_are_asked_for_once_a_day_and_when_a_person_waits(cursor: str | None, manual: bool, times: int) -> None:
    subject = borrower()

    pages = sync(subject, {"liabilities": cursor} if cursor else None, caller=Caller(manual=manual))

    assert times_asked(subject) == times
    assert [page.cursor for page in pages if page.feed == "liabilities"] == [TODAY] * times


@pytest.mark.parametrize(
    "code",
    [
        "PRODUCTS_NOT_SUPPORTED",
        "NO_LIABILITY_ACCOUNTS",
        "NO_ACCOUNTS",
        "ADDITIONAL_CONSENT_REQUIRED",
        "INVALID_PRODUCT",
    ],
)
def test_login_that_does_not_give_them_is_in_no_trouble_and_is_asked_again_the_next_day(code: str) -> None:
    subject = borrower(plaid_error(code))

    pages = sync(subject)

    assert problems(pages) == []
    (page,) = (page for page in pages if page.feed == "liabilities")
    assert (page.cursor, page.liabilities, page.liabilities_complete_for) == (TODAY, (), frozenset())


def test_they_are_asked_for_again_soon_while_they_are_not_ready() -> None:
    pages = sync(borrower(plaid_error("PRODUCT_NOT_READY")))

    (problem,) = problems(pages)
    assert isinstance(problem, NotReady)
    assert problem.retry_after is not None
    assert not [page for page in pages if page.cursor is not None and page.feed == "liabilities"]


def test_limit_of_calls_is_heeded() -> None:
    with pytest.raises(RateLimited):
        sync(borrower(plaid_error("LIABILITIES_LIMIT", "RATE_LIMIT_EXCEEDED", 429)))


@pytest.mark.parametrize("body", [b"{}", b"not json", b'{"accounts":[],"liabilities":[]}', b"\xff"])
def test_answer_that_cannot_be_read_leaves_the_rest_and_moves_no_cursor(body: bytes) -> None:
    pages = sync(borrower(httpx.Response(200, content=body)))

    assert [type(problem) for problem in problems(pages)] == [BadPayload]
    assert not [page for page in pages if page.feed == "liabilities"]
    assert [row for page in pages for row in page.transactions]


def test_application_without_this_product_never_asks() -> None:
    subject = borrower()
    settings = PlaidSettings(client_id="c", secret=APP_SECRET, base_url=BASE_URL, optional_products="investments")
    subject.integration.settings = settings

    sync(subject)

    assert times_asked(subject) == 0


# What is read


def test_card() -> None:
    record = read(CARD, LiabilityKind.CREDIT, "CAD")

    assert record == LiabilityRecord(
        account_key="acc_card",
        liability_key="credit",
        kind=LiabilityKind.CREDIT,
        currency="CAD",
        interest_rate=Decimal("12.5"),
        is_overdue=True,
        last_statement_date=date(2025, 2, 28),
        last_statement_balance=Decimal("1708.77"),
        last_payment_date=date(2025, 2, 22),
        last_payment_amount=Decimal("168.25"),
        next_payment_date=date(2025, 3, 28),
        next_payment_amount=Decimal(20),
        minimum_payment=Decimal(20),
        details={
            "aprs": [
                {"type": "balance_transfer_apr", "percentage": "15.24", "balance": "1562.32", "interest": "130.22"},
                {"type": "purchase_apr", "percentage": "12.5"},
            ]
        },
    )


def test_mortgage() -> None:
    record = read(MORTGAGE, LiabilityKind.MORTGAGE)

    assert record == LiabilityRecord(
        account_key="acc_house",
        liability_key="mortgage",
        kind=LiabilityKind.MORTGAGE,
        interest_rate=Decimal("3.99"),
        interest_type="fixed",
        is_overdue=True,
        past_due_amount=Decimal(2304),
        last_payment_date=date(2025, 2, 1),
        last_payment_amount=Decimal("3141.54"),
        next_payment_date=date(2025, 4, 1),
        next_payment_amount=Decimal("3141.54"),
        original_principal=Decimal(425000),
        originated_on=date(2015, 8, 1),
        ends_on=date(2045, 7, 31),
        ytd_interest_paid=Decimal("12300.4"),
        ytd_principal_paid=Decimal("12340.5"),
        details={
            "escrow_balance": "3141.54",
            "has_pmi": True,
            "has_prepayment_penalty": False,
            "late_fee": "25.0",
            "loan_type": "conventional",
            "term": "30 year",
        },
    )


def test_student_loan() -> None:
    record = read(STUDENT, LiabilityKind.STUDENT)

    assert (record.status, record.interest_rate, record.ends_on) == ("in_grace", Decimal("5.25"), date(2032, 7, 28))
    assert (record.minimum_payment, record.next_payment_amount, record.is_overdue) == (Decimal(25), Decimal(25), False)
    assert record.details == {
        "disbursed_on": ["2002-08-28", "2003-01-10"],
        "guarantor": "DEPT OF ED",
        "loan_name": "Consolidation",
        "outstanding_interest": "6227.36",
        "pslf": {"eligible_on": "2026-01-01", "payments_made": 200, "payments_remaining": 160},
        "repayment_plan": {"type": "standard", "description": "Standard Repayment"},
        "sequence_number": "1",
        "status_until": "2032-07-28",
    }


def test_line_of_credit_states_what_is_due_beside_its_minimum() -> None:
    given = {
        "account_id": "acc_line",
        "interest_rate": {"percentage": 8.5, "type": "variable"},
        "minimum_payment_amount": 10,
        "next_payment_amount": 310,
        "past_due_amount": 0,
        "credit_limit": 50000,
    }

    record = read(given, LiabilityKind.LINE_OF_CREDIT)

    assert (record.next_payment_amount, record.minimum_payment) == (Decimal(310), Decimal(10))
    assert (record.is_overdue, record.interest_type, record.details) == (False, "variable", {"credit_limit": "50000"})


def test_no_number_and_no_address_is_kept() -> None:
    pages = sync(borrower())

    kept = repr([page.liabilities for page in pages])
    assert len([record for page in pages for record in page.liabilities]) == 3
    for personal in (NUMBER, "Cameron", "14236", "Malakoff", "Relaxation", "99415", "San Matias"):
        assert personal not in kept


def test_record_in_quarantine_has_no_number_and_no_address() -> None:
    spoilt = [MORTGAGE | {"past_due_amount": "much"}, STUDENT | {"last_payment_date": "2025-02-30"}]

    (page,) = (
        page
        for page in sync(borrower(told({"mortgage": spoilt[:1], "student": spoilt[1:], "credit": [CARD]})))
        if page.feed == "liabilities"
    )

    assert sorted(reject.reason for reject in page.rejects) == [
        "last_payment_date_unreadable",
        "past_due_amount_unreadable",
    ]
    assert [record.kind for record in page.liabilities] == [LiabilityKind.CREDIT]
    assert page.liabilities_complete_for == frozenset()
    for personal in (NUMBER, "Cameron", "14236", "Malakoff", "Relaxation", "99415", "San Matias", "DEPT OF ED"):
        assert personal not in repr(page.rejects)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"account_id": None}, "account_id_unreadable"),
        ({"account_id": "acc_of_nobody"}, "account_unknown"),
        ({"last_statement_balance": "NaN"}, "last_statement_balance_not_finite"),
        ({"last_statement_balance": 1e300}, "last_statement_balance_out_of_range"),
        ({"next_payment_due_date": "0001-01-01"}, "next_payment_due_date_out_of_range"),
        ({"aprs": [{"apr_percentage": "Infinity", "apr_type": "purchase_apr"}]}, "apr_percentage_not_finite"),
        ({"aprs": {}}, "aprs_unreadable"),
        ({"is_overdue": "yes"}, "is_overdue_unreadable"),
    ],
)
def test_record_that_cannot_be_trusted_is_refused(changes: dict[str, Any], reason: str) -> None:
    raw = json.dumps(CARD | changes).encode()

    with pytest.raises(BadRecord, match=reason):
        liabilities.record(raw, LiabilityKind.CREDIT, {"acc_card": "USD"})


def test_several_loans_of_one_account_are_told_apart() -> None:
    (page,) = (page for page in sync(borrower(told({"student": [STUDENT, STUDENT]}))) if page.feed == "liabilities")

    assert [record.liability_key for record in page.liabilities] == ["student", "student:2"]


def test_words_that_plaid_may_add_are_kept_as_they_are() -> None:
    record = read(STUDENT | {"loan_status": {"type": "Paused (New Rule)"}}, LiabilityKind.STUDENT)
    nothing = read(STUDENT | {"loan_status": {"type": "null"}, "repayment_plan": {"type": None}}, LiabilityKind.STUDENT)

    assert (record.status, nothing.status) == ("paused_new_rule", None)
    assert "repayment_plan" not in nothing.details


def test_account_with_an_impossible_currency_is_not_given_another_one() -> None:
    odd = plaid_account("acc_card", balances={"iso_currency_code": "dollars"})

    page = liabilities.page(told({"credit": [CARD]}, [odd]).content)

    assert ([reject.reason for reject in page.rejects], page.liabilities) == (["account_unknown"], [])


def test_details_are_json() -> None:
    for record, kind in ((CARD, "credit"), (MORTGAGE, "mortgage"), (STUDENT, "student")):
        details = read(record, LiabilityKind(kind)).details
        assert msgspec.json.decode(msgspec.json.encode(details)) == details

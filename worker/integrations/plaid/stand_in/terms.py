"""The terms of cards and loans as the Plaid API writes them. Amounts that are owed or paid are positive."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

from worker.sandbox.ledger import Account
from worker.sandbox.wire import cents, encode

_ORIGIN = date(2019, 8, 15)
_MINIMUM = Decimal("0.02")


def liabilities(accounts: Iterable[Account], today: date) -> bytes:
    """The member `liabilities` of an answer; a kind without any account is null."""
    lists: dict[str, list[dict[str, Any]]] = {kind: [] for kind in _WRITE}
    for account in accounts:
        kind = _KINDS.get(account.provider_subtype, "credit" if account.type == "credit" else "loan")
        lists[kind].append(_WRITE[kind](account, today))
    return encode({kind: found or None for kind, found in lists.items()})


def _owed(account: Account) -> Decimal:
    return -account.current


def _common(account: Account, today: date) -> dict[str, Any]:
    """What all kinds have. The last payment is the newest posted amount into the account."""
    paid = next((row for row in reversed(account.by_time) if row.status == "posted" and row.amount > 0), None)
    return {
        "account_id": account.id,
        "last_payment_amount": None if paid is None else paid.amount,
        "last_payment_date": None if paid is None else paid.date.isoformat(),
        "next_payment_due_date": (today.replace(day=1) + timedelta(days=32)).replace(day=20).isoformat(),
    }


def _statement(account: Account, today: date) -> dict[str, Any]:
    minimum = max(cents(_owed(account) * _MINIMUM), Decimal("0.00"))
    return {
        "last_statement_issue_date": today.replace(day=1).isoformat(),
        "last_statement_balance": _owed(account),
        "minimum_payment_amount": minimum,
    }


def _origin(account: Account) -> dict[str, Any]:
    return {
        "account_number": f"000000{account.number}",
        "origination_date": _ORIGIN.isoformat(),
        "origination_principal_amount": cents(-account.opening * 2),
        "ytd_interest_paid": Decimal("612.40"),
    }


def _aprs(account: Account) -> list[dict[str, Any]]:
    return [
        {
            "apr_percentage": percentage,
            "apr_type": kind,
            "balance_subject_to_apr": _owed(account) if kind == "purchase_apr" else None,
            "interest_charge_amount": None,
        }
        for kind, percentage in (("purchase_apr", Decimal("15.24")), ("cash_apr", Decimal("27.95")))
    ]


def _credit(account: Account, today: date) -> dict[str, Any]:
    return _common(account, today) | _statement(account, today) | {"aprs": _aprs(account), "is_overdue": False}


def _line_of_credit(account: Account, today: date) -> dict[str, Any]:
    return (
        _common(account, today)
        | _statement(account, today)
        | {
            "aprs": _aprs(account),
            "interest_rate": {"percentage": Decimal("8.5"), "type": "variable"},
            "credit_limit": Decimal("50000.00"),
            "available_credit": Decimal("50000.00") - _owed(account),
            "principal_balance": _owed(account),
            "next_payment_amount": Decimal("310.00"),
            "past_due_amount": Decimal("0.00"),
            "finance_charges": Decimal("12.50"),
            "draw_period_end_date": "2031-08-15",
        }
    )


def _loan(account: Account, today: date) -> dict[str, Any]:
    return (
        _common(account, today)
        | _origin(account)
        | {
            "interest_rate": {"percentage": Decimal("6.125"), "type": "fixed"},
            "principal_balance": _owed(account),
            "loan_term_months": 72,
            "maturity_date": "2030-08-15",
            "payment_count": 72,
            "payment_frequency": "monthly",
            "next_payment_amount": Decimal("415.20"),
            "payoff_amount": _owed(account),
            "compounding_period": "monthly",
        }
    )


def _mortgage(account: Account, today: date) -> dict[str, Any]:
    return (
        _common(account, today)
        | _origin(account)
        | {
            "current_late_fee": Decimal("25.00"),
            "escrow_balance": Decimal("3141.54"),
            "has_pmi": True,
            "has_prepayment_penalty": False,
            "interest_rate": {"percentage": Decimal("3.99"), "type": "fixed"},
            "loan_type_description": "conventional",
            "loan_term": "30 year",
            "maturity_date": "2049-08-15",
            "next_monthly_payment": Decimal("2041.83"),
            "past_due_amount": Decimal("0.00"),
            "property_address": {
                "city": "Malakoff",
                "country": "US",
                "postal_code": "14236",
                "region": "NY",
                "street": "2992 Cameron Road",
            },
            "ytd_principal_paid": Decimal("8801.12"),
        }
    )


def _student(account: Account, today: date) -> dict[str, Any]:
    return (
        _common(account, today)
        | _origin(account)
        | _statement(account, today)
        | {
            "disbursement_dates": ["2019-08-28"],
            "expected_payoff_date": "2032-07-28",
            "guarantor": "DEPT OF ED",
            "interest_rate_percentage": Decimal("5.25"),
            "is_overdue": False,
            "loan_name": "Consolidation",
            "loan_status": {"end_date": "2032-07-28", "type": "repayment"},
            "outstanding_interest_amount": Decimal("62.27"),
            "payment_reference_number": f"REF{account.number}",
            "pslf_status": {
                "estimated_eligibility_date": "2029-01-01",
                "payments_made": 200,
                "payments_remaining": 160,
            },
            "repayment_plan": {"description": "Standard Repayment", "type": "standard"},
            "sequence_number": "1",
            "servicer_address": {
                "city": "San Matias",
                "country": "US",
                "postal_code": "99415",
                "region": "CA",
                "street": "123 Relaxation Road",
            },
            "ytd_principal_paid": Decimal("2400.00"),
        }
    )


_WRITE: dict[str, Callable[[Account, date], dict[str, Any]]] = {
    "credit": _credit,
    "line_of_credit": _line_of_credit,
    "loan": _loan,
    "mortgage": _mortgage,
    "student": _student,
}
_KINDS = {"student": "student", "mortgage": "mortgage", "home equity": "line_of_credit"}

"""Reads Plaid's answer about the terms of cards and loans.

Plaid states no currency there: a liability has that of its account. Full account numbers, payment references and
addresses are not read at all.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from typing import Any

import msgspec

from worker.errors import BadRecord
from worker.integrations.kit import moments, money, reading
from worker.integrations.kit.base import Page
from worker.models.records import LiabilityRecord
from worker.models.vocabulary import LiabilityKind

_NOT_A_WORD = re.compile(r"[^a-z0-9]+")


class _Lists(msgspec.Struct, gc=False):
    credit: list[msgspec.Raw] | None = None
    line_of_credit: list[msgspec.Raw] | None = None
    loan: list[msgspec.Raw] | None = None
    mortgage: list[msgspec.Raw] | None = None
    student: list[msgspec.Raw] | None = None


class _Answer(msgspec.Struct, gc=False):
    accounts: list[msgspec.Raw]
    liabilities: _Lists


_answer = reading.Reader(_Answer)


class _Balances(msgspec.Struct, gc=False):
    iso_currency_code: str | None = None
    unofficial_currency_code: str | None = None


class _Account(msgspec.Struct, gc=False):
    account_id: str
    balances: _Balances


_account = reading.Reader(_Account)


class _Apr(msgspec.Struct, gc=False):
    apr_percentage: Decimal
    apr_type: str
    balance_subject_to_apr: Decimal | None = None
    interest_charge_amount: Decimal | None = None


class _Rate(msgspec.Struct, gc=False):
    percentage: Decimal | None = None
    type: str | None = None


class _Status(msgspec.Struct, gc=False):
    type: str | None = None
    end_date: date | None = None


class _Plan(msgspec.Struct, gc=False):
    type: str | None = None
    description: str | None = None


class _Forgiveness(msgspec.Struct, gc=False):
    estimated_eligibility_date: date | None = None
    payments_made: int | None = None
    payments_remaining: int | None = None


class _Liability(msgspec.Struct, gc=False):
    """A record of any kind: fields of the same name mean the same in all of them."""

    account_id: str
    aprs: list[_Apr] = []
    available_credit: Decimal | None = None
    cash_advance_limit: Decimal | None = None
    compounding_period: str | None = None
    credit_limit: Decimal | None = None
    current_late_fee: Decimal | None = None
    disbursement_dates: list[date] | None = None
    draw_period_end_date: date | None = None
    escrow_balance: Decimal | None = None
    expected_payoff_date: date | None = None
    finance_charges: Decimal | None = None
    guarantor: str | None = None
    has_pmi: bool | None = None
    has_prepayment_penalty: bool | None = None
    interest_rate: _Rate | None = None
    interest_rate_percentage: Decimal | None = None
    is_overdue: bool | None = None
    last_payment_amount: Decimal | None = None
    last_payment_date: date | None = None
    last_statement_balance: Decimal | None = None
    last_statement_issue_date: date | None = None
    loan_name: str | None = None
    loan_status: _Status | None = None
    loan_term: str | None = None
    loan_term_months: int | None = None
    loan_type_description: str | None = None
    maturity_date: date | None = None
    minimum_payment_amount: Decimal | None = None
    next_monthly_payment: Decimal | None = None
    next_payment_amount: Decimal | None = None
    next_payment_due_date: date | None = None
    origination_date: date | None = None
    origination_principal_amount: Decimal | None = None
    outstanding_interest_amount: Decimal | None = None
    past_due_amount: Decimal | None = None
    payment_count: int | None = None
    payment_frequency: str | None = None
    payoff_amount: Decimal | None = None
    principal_balance: Decimal | None = None
    pslf_status: _Forgiveness | None = None
    repayment_plan: _Plan | None = None
    sequence_number: str | None = None
    ytd_interest_paid: Decimal | None = None
    ytd_principal_paid: Decimal | None = None


_liability = reading.Reader(_Liability)

_DETAILS = {
    "available_credit": "available_credit",
    "cash_advance_limit": "cash_advance_limit",
    "compounding_period": "compounding_period",
    "credit_limit": "credit_limit",
    "current_late_fee": "late_fee",
    "disbursement_dates": "disbursed_on",
    "draw_period_end_date": "draw_period_ends_on",
    "escrow_balance": "escrow_balance",
    "finance_charges": "finance_charges",
    "guarantor": "guarantor",
    "has_pmi": "has_pmi",
    "has_prepayment_penalty": "has_prepayment_penalty",
    "loan_name": "loan_name",
    "loan_term": "term",
    "loan_term_months": "term_months",
    "loan_type_description": "loan_type",
    "outstanding_interest_amount": "outstanding_interest",
    "payment_count": "payment_count",
    "payment_frequency": "payment_frequency",
    "payoff_amount": "payoff_amount",
    "sequence_number": "sequence_number",
}
"""Our names of what only some kinds have, by Plaid's."""


def page(body: bytes) -> Page:
    """The liabilities of all accounts of the Item. If one cannot be read, none counts as gone.

    Raises:
        BadPayload: the answer cannot be read.
    """
    answer = _answer.page(body)
    accounts, _ = reading.read_each(answer.accounts, "account", _currency)  # the listing rejects the bad ones
    currencies: dict[str, str] = dict(accounts)
    found: list[LiabilityRecord] = []
    rejects = []
    for kind in LiabilityKind:
        raws: list[msgspec.Raw] = getattr(answer.liabilities, kind) or []
        read, bad = reading.read_all(raws, "liability", lambda raw, kind=kind: record(raw, kind, currencies))  # type: ignore[misc]
        found += read
        rejects += bad
    return Page(
        liabilities=reading.distinct(found, key="liability_key"),
        liabilities_complete_for=frozenset() if rejects else frozenset(currencies),
        rejects=rejects,
    )


def _currency(raw: bytes) -> tuple[str, str]:
    given = _account.record(raw)
    code = money.currency(given.balances.iso_currency_code, given.balances.unofficial_currency_code)
    return reading.without_nul(given.account_id), code or "USD"


def record(raw: bytes, kind: LiabilityKind, currencies: Mapping[str, str]) -> LiabilityRecord:
    """One card or loan.

    Args:
        raw: its JSON text.
        kind: the list that has it.
        currencies: currencies of the accounts that the answer lists.

    Raises:
        BadRecord: a figure or a day cannot be trusted, or its account is not in the answer.
    """
    given = _liability.record(raw)
    currency = currencies.get(given.account_id)
    if currency is None:
        raise BadRecord("account_unknown")
    checked = {name: _checked(getattr(given, name), name) for name in given.__struct_fields__}
    status, rate = given.loan_status or _Status(), given.interest_rate or _Rate()
    past_due, overdue = checked["past_due_amount"], given.is_overdue
    if overdue is None and past_due is not None:
        overdue = past_due > 0
    due = (checked[name] for name in ("next_payment_amount", "next_monthly_payment", "minimum_payment_amount"))
    return LiabilityRecord(
        account_key=given.account_id,
        liability_key=kind,
        kind=kind,
        status=_word(status.type),
        currency=currency,
        interest_rate=_rate(given, rate),
        interest_type=_word(rate.type),
        is_overdue=overdue,
        past_due_amount=past_due,
        last_statement_date=checked["last_statement_issue_date"],
        last_statement_balance=checked["last_statement_balance"],
        last_payment_date=checked["last_payment_date"],
        last_payment_amount=checked["last_payment_amount"],
        next_payment_date=checked["next_payment_due_date"],
        next_payment_amount=next((amount for amount in due if amount is not None), None),
        minimum_payment=checked["minimum_payment_amount"],
        principal=checked["principal_balance"],
        original_principal=checked["origination_principal_amount"],
        originated_on=checked["origination_date"],
        ends_on=checked["maturity_date"] or checked["expected_payoff_date"],
        ytd_interest_paid=checked["ytd_interest_paid"],
        ytd_principal_paid=checked["ytd_principal_paid"],
        details=_details(given, checked, status),
    )


def _rate(given: _Liability, rate: _Rate) -> Decimal | None:
    """The rate of a loan; of a card, the one for purchases, or the only one."""
    if rate.percentage is not None:
        return money.checked(rate.percentage, "interest_rate")
    if given.interest_rate_percentage is not None:
        return money.checked(given.interest_rate_percentage, "interest_rate_percentage")
    purchases = [one for one in given.aprs if one.apr_type == "purchase_apr"]
    for rates in (purchases, given.aprs):
        if len(rates) == 1:
            return money.checked(rates[0].apr_percentage, "apr_percentage")
    return None


def _details(given: _Liability, checked: Mapping[str, Any], status: _Status) -> dict[str, Any]:
    plan, forgiveness = given.repayment_plan or _Plan(), given.pslf_status or _Forgiveness()
    details = {ours: _plain(checked[name]) for name, ours in _DETAILS.items()} | {
        "aprs": [
            _without_none(
                type=_word(one.apr_type),
                percentage=_plain(_checked(one.apr_percentage, "apr_percentage")),
                balance=_plain(_checked(one.balance_subject_to_apr, "balance_subject_to_apr")),
                interest=_plain(_checked(one.interest_charge_amount, "interest_charge_amount")),
            )
            for one in given.aprs
        ],
        "status_until": _plain(_checked(status.end_date, "end_date")),
        "repayment_plan": _without_none(type=_word(plan.type), description=plan.description),
        "pslf": _without_none(
            eligible_on=_plain(_checked(forgiveness.estimated_eligibility_date, "estimated_eligibility_date")),
            payments_made=forgiveness.payments_made,
            payments_remaining=forgiveness.payments_remaining,
        ),
    }
    return {name: value for name, value in details.items() if value not in (None, [], {})}


def _without_none(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _checked(value: Any, name: str) -> Any:
    if isinstance(value, Decimal):
        return money.checked(value, name)
    if isinstance(value, date):
        return moments.day(value, name)
    return [moments.day(one, name) for one in value] if name == "disbursement_dates" and value else value


def _plain(value: Any) -> Any:
    """A value in the types of JSON; an amount becomes a text, so that nobody makes a floating-point number of it."""
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, Decimal):
        return f"{value:f}"
    return value.isoformat() if isinstance(value, date) else value


def _word(text: str | None) -> str | None:
    """Plaid's word in snake case; it writes `null` for some that it does not know."""
    word = _NOT_A_WORD.sub("_", text.lower()).strip("_") if text else ""
    return None if word in ("", "null") else word

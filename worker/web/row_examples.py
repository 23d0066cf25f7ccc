"""Examples of the rows that the HTTP API returns, for the OpenAPI document. They are written as the answers are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec

from worker.models.fleet import AccountRow
from worker.models.reading import (
    BalanceDayRow,
    BalanceRow,
    HoldingRow,
    LiabilityRow,
    MovementRow,
    RunRow,
    Slice,
)
from worker.services.access.catalogue import ProviderType

_ID = UUID("01998a3e-5f7c-7d21-9c7e-0f6a2b9d4e11")
_ACCOUNT = UUID("01998a3e-5f7c-7d21-9c7e-0f6a2b9d4e12")
_LOGIN = UUID("01998a3e-5f7c-7d21-9c7e-0f6a2b9d4e13")
_DAY = date(2026, 1, 5)
_AT = datetime(2026, 1, 5, 10, 0, tzinfo=UTC)

_STATED: Mapping[str, Any] = {
    "currency": "USD",
    "current": Decimal("1250.40"),
    "available": Decimal("1200.40"),
    "credit_limit": None,
    "cash": None,
    "market_value": None,
}

ACCOUNT = AccountRow(
    id=_ACCOUNT,
    provider_id=_LOGIN,
    provider="My bank",
    name="Everyday Checking",
    mask="1234",
    type="depository",
    subtype="checking",
    status="active",
    currency="USD",
    current=_STATED["current"],
    available=_STATED["available"],
    taken_at=_AT,
)
BALANCE = BalanceRow(id=_ID, account_id=_ACCOUNT, **_STATED, as_of=None, taken_at=_AT)
BALANCE_DAY = BalanceDayRow(account_id=_ACCOUNT, day=_DAY, **_STATED)
HOLDING = HoldingRow(
    id=_ID,
    account_id=_ACCOUNT,
    symbol="ACME",
    name="Acme Works",
    security_type="equity",
    quantity=Decimal("12.5"),
    price=Decimal("181.08"),
    market_value=Decimal("2263.50"),
    average_price=Decimal("150.00"),
    cost_basis=Decimal("1875.00"),
    currency="USD",
    as_of=_DAY,
)
LIABILITY = LiabilityRow(
    id=_ID,
    account_id=_ACCOUNT,
    kind="credit",
    status=None,
    currency="USD",
    interest_rate=Decimal("15.24"),
    interest_type=None,
    is_overdue=False,
    past_due_amount=None,
    last_statement_date=_DAY,
    last_statement_balance=Decimal("410.20"),
    last_payment_date=_DAY,
    last_payment_amount=Decimal("120.00"),
    next_payment_date=date(2026, 2, 1),
    next_payment_amount=Decimal("35.00"),
    minimum_payment=Decimal("35.00"),
    principal=None,
    original_principal=None,
    originated_on=None,
    ends_on=None,
    ytd_interest_paid=None,
    ytd_principal_paid=None,
    details={"aprs": [{"type": "purchase_apr", "percentage": "15.24", "balance": "410.20"}]},
)
TRANSACTION = MovementRow(
    id=_ID,
    account_id=_ACCOUNT,
    posted_date=_DAY,
    occurred_at=None,
    settlement_date=None,
    status="posted",
    type="payment",
    subtype=None,
    description="CORNER GROCERY",
    counterparty="Corner Grocery",
    category="FOOD_AND_DRINK",
    amount=Decimal("-12.34"),
    currency="USD",
    symbol=None,
    quantity=None,
    price=None,
    fees=None,
)
RUN = RunRow(
    id=_ID,
    provider_id=_LOGIN,
    status="completed",
    trigger="schedule",
    mode="incremental",
    started_at=_AT,
    finished_at=_AT.replace(second=2),
    pages=1,
    added=3,
    changed=0,
    unchanged=12,
    removed=0,
    quarantined=0,
    error=None,
    error_scope=None,
    error_reason=None,
)
TYPE = ProviderType(
    key="example",
    name="Example Bank",
    provider_type="bank",
    description="Example Bank: consent at the institution, in a browser",
    icon_url=None,
    is_configured=True,
    supported_features=["accounts", "balances", "transactions"],
)


def shown(example: Any) -> dict[int | str, dict[str, Any]]:
    """The value for a route's `responses` that shows this answer."""
    return {200: {"content": {"application/json": {"example": msgspec.to_builtins(example, str_keys=True)}}}}


def slice_of(row: Any) -> dict[int | str, dict[str, Any]]:
    """The same for a slice that has one row."""
    return shown(asdict(Slice(items=[row], next_cursor=None)))

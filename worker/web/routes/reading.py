"""Routes that show the synced data: accounts, balances, positions, liabilities, transactions."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from worker.models.reading import (
    AccountSlice,
    BalanceDaySlice,
    BalanceSlice,
    HoldingSlice,
    LiabilitySlice,
    MovementSlice,
    Wanted,
    WantedAccounts,
    WantedDays,
    WantedTransactions,
)
from worker.services.access import reading
from worker.web import row_examples as examples
from worker.web.asking import Reader, Services
from worker.web.problems import documented
from worker.web.schemas import encoded

router = APIRouter(prefix="/api/v1", tags=["rows"])


def _answers(row: Any) -> dict[int | str, dict[str, Any]]:
    return documented(400, 401, 403, 404, 422) | examples.slice_of(row)


@router.get("/accounts", summary="List accounts", response_model=AccountSlice, responses=_answers(examples.ACCOUNT))
async def list_accounts(runtime: Services, who: Reader, wanted: Annotated[WantedAccounts, Query()]) -> Response:
    """Accounts, each with its newest balance."""
    return encoded(await reading.accounts(runtime, who, wanted))


@router.get("/balances", summary="List balances", response_model=BalanceSlice, responses=_answers(examples.BALANCE))
async def list_balances(runtime: Services, who: Reader, wanted: Annotated[WantedDays, Query()]) -> Response:
    """The accounts' balances as providers stated them, newest first: one for each change, and one for each day."""
    return encoded(await reading.balances(runtime, who, wanted))


@router.get(
    "/balance-days",
    summary="List balances by day",
    response_model=BalanceDaySlice,
    responses=_answers(examples.BALANCE_DAY),
)
async def list_balance_days(runtime: Services, who: Reader, wanted: Annotated[WantedDays, Query()]) -> Response:
    """For each account and UTC day the balance that was last stated, newest first. They are kept for good."""
    return encoded(await reading.balance_days(runtime, who, wanted))


@router.get("/holdings", summary="List positions", response_model=HoldingSlice, responses=_answers(examples.HOLDING))
async def list_holdings(runtime: Services, who: Reader, wanted: Annotated[Wanted, Query()]) -> Response:
    """Open positions."""
    return encoded(await reading.holdings(runtime, who, wanted))


@router.get(
    "/liabilities",
    summary="List terms of cards and loans",
    response_model=LiabilitySlice,
    responses=_answers(examples.LIABILITY),
)
async def list_liabilities(runtime: Services, who: Reader, wanted: Annotated[Wanted, Query()]) -> Response:
    """Terms of cards and loans as last stated: rates, what is owed, and what is due when."""
    return encoded(await reading.liabilities(runtime, who, wanted))


@router.get(
    "/transactions", summary="List transactions", response_model=MovementSlice, responses=_answers(examples.TRANSACTION)
)
async def list_transactions(runtime: Services, who: Reader, wanted: Annotated[WantedTransactions, Query()]) -> Response:
    """Transactions, newest first; + is money into the account."""
    return encoded(await reading.transactions(runtime, who, wanted))

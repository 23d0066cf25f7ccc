"""Makes positions of what providers state: prices of one unit, or money of several currencies in one account."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from worker.integrations.kit import money
from worker.models.records import HoldingRecord, SecurityRecord
from worker.models.vocabulary import SecurityType


def of_units(
    account_key: str,
    security: SecurityRecord,
    units: Decimal,
    *,
    price: Decimal | None,
    cost: Decimal | None,
    currency: str,
) -> HoldingRecord:
    """A position whose price and cost are stated for one unit; those of an option, for one share. Nothing is rounded.

    Args:
        account_key: its account.
        security: what is held.
        units: negative for a short position.
        price: the last price of one unit; None if it is unknown.
        cost: what was paid for one unit; None if it is unknown.
        currency: of both.

    Raises:
        BadRecord: `units`, `price` or `cost_basis` is no possible number.
    """
    money.checked(units, "units")
    money.checked_or_none(price, "price")
    money.checked_or_none(cost, "cost_basis")
    return HoldingRecord(
        account_key=account_key,
        holding_key=f"{security.key}:{'long' if units >= 0 else 'short'}",
        security=security,
        quantity=units,
        price=price,
        average_price=cost,
        market_value=None if price is None else money.product(price, units, security.multiplier),
        cost_basis=None if cost is None else money.product(cost, units, security.multiplier),
        currency=currency,
    )


def of_money(provider_key: str, account_key: str, amounts: Sequence[tuple[str, Decimal | None]]) -> list[HoldingRecord]:
    """The money of an account with several currencies: a position of each, because a balance has only one.

    Args:
        provider_key: the integration's key.
        account_key: the account.
        amounts: each currency with the money in it. There are no positions if there is only one currency.
    """
    stated = [(currency, amount) for currency, amount in amounts if amount and len(amounts) > 1]
    return [
        HoldingRecord(
            account_key=account_key,
            holding_key=f"{provider_key}:cash:{currency}",
            security=SecurityRecord(
                key=f"{provider_key}:cash:{currency}", type=SecurityType.CASH, symbol=currency, currency=currency
            ),
            quantity=amount,
            market_value=amount,
            currency=currency,
        )
        for currency, amount in stated
    ]

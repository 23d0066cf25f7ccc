"""Writes accounts, positions and transactions as the Schwab Trader API does."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

from worker.sandbox.ledger import Account, Holding, Security, Transaction
from worker.sandbox.wire import cents, encode

_ASSET_TYPE = {
    "equity": "EQUITY",
    "etf": "COLLECTIVE_INVESTMENT",
    "mutual_fund": "MUTUAL_FUND",
    "fixed_income": "FIXED_INCOME",
    "option": "OPTION",
    "cash": "CURRENCY",
}
_ZERO = Decimal("0.0")


def stamp(moment: datetime) -> str:
    """A time as Schwab writes it: the offset has no colon."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S+0000")


def instrument(security: Security) -> dict[str, Any]:
    """The instrument of a position."""
    kind = _ASSET_TYPE[security.kind]
    value: dict[str, Any] = {"assetType": kind, "symbol": security.symbol, "description": security.name}
    if security.cusip:
        value["cusip"] = security.cusip
    value["netChange"] = Decimal("0.25")
    if security.kind == "etf":
        value["type"] = "EXCHANGE_TRADED_FUND"
    elif security.kind == "fixed_income" and security.cusip:
        value["symbol"] = security.cusip
    elif security.kind == "option" and security.right:
        value |= {
            "putCall": security.right.upper(),
            "underlyingSymbol": security.underlying,
            "optionMultiplier": security.multiplier,
            "type": "VANILLA",
        }
    return value


def position(account: Account, holding: Holding) -> dict[str, Any]:
    """One position; long and short quantities are both positive."""
    security, quantity = holding.security, holding.quantity
    long, short = max(quantity, _ZERO), max(-quantity, _ZERO)
    gain = holding.market_value - holding.cost_basis
    value: dict[str, Any] = {
        "shortQuantity": short,
        "averagePrice": holding.average_price,
        "currentDayProfitLoss": Decimal("0.0"),
        "currentDayProfitLossPercentage": Decimal("0.0"),
        "longQuantity": long,
        "settledLongQuantity": long,
        "settledShortQuantity": short,
        "instrument": instrument(security),
        "marketValue": holding.market_value,
        "currentDayCost": Decimal("0.0"),
    }
    side = "Long" if quantity >= 0 else "Short"
    value[f"average{side}Price"] = holding.average_price
    value[f"taxLotAverage{side}Price"] = holding.average_price
    value[f"{side.lower()}OpenProfitLoss"] = gain
    value[f"previousSession{side}Quantity"] = abs(quantity)
    if account.provider_type == "MARGIN":
        value["maintenanceRequirement"] = cents(abs(holding.market_value) * 3 / 10)
    return value


def account(account: Account, *, with_positions: bool) -> bytes:
    """One element of the accounts answer; its liquidation value is the sum of cash and positions.

    Two parts are not in the published schema: `aggregatedBalance`, and the six keys that `currentBalances` has for both
    cash and margin accounts (the published `CashBalance` and `MarginBalance` do not have them). They are here because
    users of several client libraries have shown answers with them, and because the integration reads them. `isInCall`
    is published as a number, but users have seen a boolean. All other keys are those published for the account's type.
    """
    cash, total = account.cash, account.current
    long = sum((h.market_value for h in account.holdings.values() if h.quantity > 0), Decimal("0.00"))
    short = sum((h.market_value for h in account.holdings.values() if h.quantity < 0), Decimal("0.00"))
    current: dict[str, Any] = {
        "cashBalance": cash,
        "liquidationValue": total,
        "longMarketValue": long,
        "shortMarketValue": short,
        "savings": Decimal("0.0"),
        "pendingDeposits": max(account.pending_sum, Decimal("0.00")),
    }
    if account.provider_type == "MARGIN":
        current |= {"buyingPower": cash * 2, "availableFunds": cash, "equity": total, "sma": cash, "isInCall": False}
        projected = {"availableFunds": cash, "buyingPower": cash * 2, "isInCall": False}
    else:
        projected = {"cashAvailableForTrading": cash, "cashAvailableForWithdrawal": cash}
        current |= projected | {
            "totalCash": cash,
            "cashCall": _ZERO,
            "cashDebitCallValue": _ZERO,
            "unsettledCash": _ZERO,
        }
    body: dict[str, Any] = {
        "type": account.provider_type,
        "accountNumber": account.number,
        "roundTrips": 0,
        "isDayTrader": False,
        "isClosingOnlyRestricted": False,
        "pfcbFlag": False,
    }
    if with_positions:
        body["positions"] = [position(account, holding) for holding in account.holdings.values()]
    body["initialBalances"] = {"cashBalance": account.opening, "accountValue": total, "isInCall": False}
    body["currentBalances"] = current
    body["projectedBalances"] = projected
    rendered = encode(
        {
            "securitiesAccount": body,
            "aggregatedBalance": {"currentLiquidationValue": total, "liquidationValue": total},
        }
    )
    if with_positions and account.verbatim_holdings:
        extra = b",".join(account.verbatim_holdings)
        separator = b"," if account.holdings else b""
        rendered = rendered.replace(b'],"initialBalances"', separator + extra + b'],"initialBalances"', 1)
    return rendered


def transaction(row: Transaction) -> dict[str, Any]:
    """One element of the transactions answer."""
    value: dict[str, Any] = {"activityId": int(row.id), "time": stamp(row.moment)}
    if row.description:
        value["description"] = row.description
    value |= {
        "accountNumber": row.account.number,
        "type": row.kind,
        "status": "PENDING" if row.status == "pending" else "VALID",
        "subAccount": row.account.provider_type,
        "tradeDate": stamp(row.moment),
    }
    if row.status == "posted":
        value["settlementDate"] = stamp(row.moment.replace(hour=0, minute=0, second=0))
    if row.kind == "TRADE":
        value |= {"positionId": int(row.id) % 10_000_000, "orderId": int(row.id) % 1_000_000_000}
        value["activityType"] = "EXECUTION"
    elif row.correction:
        value["activityType"] = "ACTIVITY_CORRECTION"
    value["netAmount"] = row.amount
    value["transferItems"] = _transfer_items(row)
    return value


def _transfer_items(row: Transaction) -> list[dict[str, Any]]:
    currency = {
        "assetType": "CURRENCY",
        "status": "ACTIVE",
        "symbol": "CURRENCY_USD",
        "description": "USD currency",
        "instrumentId": 1,
        "closingPrice": Decimal("0.0"),
    }
    items: list[dict[str, Any]] = []
    if row.fees:
        items.append({"instrument": currency, "amount": row.fees, "cost": -row.fees, "feeType": "COMMISSION"})
    if row.security is not None and row.quantity:
        kind = _ASSET_TYPE[row.security.kind]
        thing: dict[str, Any] = {
            "assetType": kind,
            "status": "ACTIVE",
            "symbol": row.security.symbol,
            "instrumentId": int.from_bytes(row.security.id.encode()[:3], "big"),
            "closingPrice": row.price,
        }
        if row.security.cusip:
            thing["cusip"] = row.security.cusip
        if row.security.kind == "option" and row.security.right and row.security.expires:
            thing |= {
                "putCall": row.security.right.upper(),
                "strikePrice": row.security.strike,
                "expirationDate": row.security.expires.strftime("%Y-%m-%dT00:00:00+0000"),
                "underlyingSymbol": row.security.underlying,
                "optionPremiumMultiplier": row.security.multiplier,
                "type": "VANILLA",
            }
        items.append(
            {
                "instrument": thing,
                "amount": row.quantity,
                "cost": cents(-row.quantity * row.price * row.security.multiplier),
                "price": row.price,
                **({"positionEffect": row.subtype} if row.subtype else {}),
            }
        )
    elif row.amount:
        items.append({"instrument": currency, "amount": row.amount, "cost": Decimal("0.0")})
    return items

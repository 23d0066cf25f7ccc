"""Writes accounts, transactions, holdings and securities as the Plaid API does: positive amounts are money out."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from worker.sandbox.ledger import ZERO, Account, Holding, Security, Transaction
from worker.sandbox.people import SHOP_BY_NAME, Shop
from worker.sandbox.wire import encode

_OTHER = Shop("", "TRANSFER_IN", "TRANSFER_IN_DEPOSIT", "other")
_SECURITY_TYPE = {
    "equity": "equity",
    "etf": "etf",
    "mutual_fund": "mutual fund",
    "fixed_income": "fixed income",
    "option": "derivative",
    "crypto": "cryptocurrency",
    "cash": "cash",
}
_CASH_ID = "CUR:USD"
_USD = {"iso_currency_code": "USD", "unofficial_currency_code": None}


def account(account: Account) -> bytes:
    """One account with balances. For cards and loans, the debt is a positive number."""
    owed = account.type in ("credit", "loan")
    current = -account.current if owed else account.current
    available: Decimal | None = None
    if account.type == "depository":
        available = account.cash + account.pending_sum
    elif account.type == "credit" and account.limit is not None:
        available = account.limit + account.cash + account.pending_sum
    balances = {
        "available": available,
        "current": current,
        "limit": account.limit,
        "iso_currency_code": account.currency,
        "unofficial_currency_code": None,
    }
    if account.type == "investment":
        balances["margin_loan_amount"] = None
    return encode(
        {
            "account_id": account.id,
            "balances": balances,
            "mask": account.mask,
            "name": account.name,
            "official_name": f"Sandbox {account.name}",
            "type": account.provider_type,
            "subtype": account.provider_subtype,
        }
    )


def transaction(row: Transaction) -> dict[str, Any]:
    """One row of the transactions feed."""
    shop = SHOP_BY_NAME.get(row.merchant or "", _OTHER)
    day = row.date.isoformat()
    return {
        "transaction_id": row.id,
        "account_id": row.account.id,
        "amount": -row.amount,
        "iso_currency_code": row.account.currency,
        "unofficial_currency_code": None,
        "date": day,
        "datetime": None,
        "authorized_date": day,
        "authorized_datetime": None,
        "name": row.description,
        "merchant_name": row.merchant,
        "pending": row.status == "pending",
        "pending_transaction_id": row.replaces,
        "payment_channel": shop.channel,
        "transaction_code": None,
        "transaction_type": "place" if row.merchant else "special",
        "category": None,
        "category_id": None,
        "check_number": None,
        "account_owner": None,
        "personal_finance_category": {
            "primary": shop.primary,
            "detailed": shop.detailed,
            "confidence_level": "HIGH",
        },
        "location": {
            "address": None,
            "city": None,
            "region": None,
            "postal_code": None,
            "country": None,
            "lat": None,
            "lon": None,
            "store_number": None,
        },
        "payment_meta": {
            "reference_number": None,
            "ppd_id": None,
            "payee": None,
            "by_order_of": None,
            "payer": None,
            "payment_method": None,
            "payment_processor": None,
            "reason": None,
        },
        "counterparties": [],
    }


def removal(account_id: str, transaction_id: str) -> bytes:
    """One element of the feed's `removed`."""
    return encode({"transaction_id": transaction_id, "account_id": account_id})


def security(security: Security, day: str) -> bytes:
    """One security; `day` is the date of its price."""
    contract = None
    if security.kind == "option" and security.expires and security.right:
        contract = {
            "contract_type": security.right,
            "expiration_date": security.expires.isoformat(),
            "strike_price": security.strike,
            "underlying_security_ticker": security.underlying,
        }
    return encode(
        {
            "security_id": security.id,
            "isin": security.isin,
            "cusip": security.cusip,
            "sedol": None,
            "institution_security_id": None,
            "institution_id": None,
            "proxy_security_id": None,
            "name": security.name,
            "ticker_symbol": security.symbol,
            "is_cash_equivalent": security.kind == "cash",
            "type": _SECURITY_TYPE[security.kind],
            "subtype": {"equity": "common stock", "option": "option"}.get(security.kind),
            "close_price": security.price,
            "close_price_as_of": day,
            "update_datetime": None,
            "market_identifier_code": None,
            "sector": None,
            "industry": None,
            "cfi_code": None,
            "figi": None,
            "option_contract": contract,
            "fixed_income": None,
            **_USD,
        }
    )


def holdings(account: Account, cash: Security, day: str) -> list[bytes]:
    """The positions of an account. Its cash is one of them; options are counted in shares, not in contracts."""
    rows = [_holding(account, h, day) for h in account.holdings.values()]
    rows.append(_holding(account, Holding(cash, account.cash, Decimal("1.00")), day))
    return rows + account.verbatim_holdings


def _holding(account: Account, held: Holding, day: str) -> bytes:
    return encode(
        {
            "account_id": account.id,
            "security_id": held.security.id,
            "institution_price": held.security.price,
            "institution_price_as_of": day,
            "institution_price_datetime": None,
            "institution_value": held.market_value,
            "cost_basis": held.cost_basis,
            "quantity": _quantity(held.quantity * held.security.multiplier),
            "vested_quantity": None,
            "vested_value": None,
            **_USD,
        }
    )


def investment(row: Transaction) -> dict[str, Any]:
    """One investment transaction."""
    return {
        "investment_transaction_id": row.id,
        "account_id": row.account.id,
        "security_id": row.security.id if row.security else None,
        "date": row.date.isoformat(),
        "transaction_datetime": None,
        "name": row.description,
        "quantity": _quantity(row.quantity * (row.security.multiplier if row.security else 1)),
        "amount": -row.amount,
        "price": row.price,
        "fees": row.fees,
        "type": row.kind,
        "subtype": row.subtype,
        "cancel_transaction_id": None,
        **_USD,
    }


def _quantity(value: Decimal) -> Decimal:
    # At least one decimal, as the provider writes quantities.
    return value if value.as_tuple().exponent != 0 else value + ZERO.quantize(Decimal("0.1"))

"""Tables that map Plaid's words to ours. Plaid may add words at any time: an unknown one becomes `other` or None."""

from __future__ import annotations

from worker.errors import (
    AppMisconfigured,
    BadPayload,
    BadRequest,
    CursorRefused,
    InstitutionDown,
    NotReady,
    PagingRestart,
    RateLimited,
    ReauthRequired,
    Scope,
    Transient,
    Unsupported,
)
from worker.integrations.kit.taxonomy import Rule, by_code
from worker.models.vocabulary import AccountType, SecurityType, TransactionType

TRANSACTIONS_FEED = "transactions"

LIABILITIES_FEED = "liabilities"

QUIETLY_UNSUPPORTED = frozenset(
    {
        "PRODUCTS_NOT_SUPPORTED",
        "ADDITIONAL_CONSENT_REQUIRED",
        "NO_INVESTMENT_ACCOUNTS",
        "NO_LIABILITY_ACCOUNTS",
        "NO_ACCOUNTS",
    }
)
"""Error codes that are not reported as a problem: most logins have no investments and no loans, or share none."""

NO_LIABILITIES = QUIETLY_UNSUPPORTED | {"INVALID_PRODUCT"}
"""The same where liabilities are asked for, which Plaid must also have switched on for the application."""

RULES = (
    *by_code(ReauthRequired, "ITEM_LOGIN_REQUIRED", "ITEM_LOCKED", "ITEM_NOT_FOUND"),
    *by_code(ReauthRequired, "ACCESS_NOT_GRANTED", "USER_PERMISSION_REVOKED", "INVALID_ACCESS_TOKEN"),
    *by_code(AppMisconfigured, "INVALID_API_KEYS"),
    Rule(Unsupported, code="INSTITUTION_NO_LONGER_SUPPORTED", scope=Scope.INSTITUTION),
    *by_code(NotReady, "PRODUCT_NOT_READY"),
    *by_code(Unsupported, *NO_LIABILITIES),
    Rule(PagingRestart, code="TRANSACTIONS_SYNC_MUTATION_DURING_PAGINATION", feed=TRANSACTIONS_FEED),
    # "cursor not associated with access_token": the cursor belongs to another Item.
    Rule(CursorRefused, code="INVALID_FIELD", text="cursor not associated", feed=TRANSACTIONS_FEED),
    # Limits per Item are lower than those per application. So this usually concerns one login, and the others continue.
    Rule(RateLimited, kind="RATE_LIMIT_EXCEEDED", scope=Scope.PROVIDER),
    Rule(InstitutionDown, kind="INSTITUTION_ERROR"),
    Rule(Transient, kind="API_ERROR"),
    Rule(BadRequest, kind="INVALID_INPUT"),
    Rule(BadRequest, kind="INVALID_REQUEST"),
    Rule(BadPayload, kind="INVALID_RESULT"),
)
"""Rules by `error_code`, then by `error_type` (`kind`). The HTTP status says little: most errors have status 400."""

ACCOUNT_TYPES = {
    "depository": AccountType.DEPOSITORY,
    "credit": AccountType.CREDIT,
    "loan": AccountType.LOAN,
    "investment": AccountType.INVESTMENT,
    "brokerage": AccountType.INVESTMENT,
}

# Subtypes that are not in this table are Plaid's own words in snake case.
SUBTYPES = {
    "roth": "roth_ira",
    "ugma": "custodial",
    "utma": "custodial",
    "401(k)": "401k",
    "non-custodial wallet": "crypto_wallet",
    "fixed annuity": "annuity",
    "variable annuity": "annuity",
    "other annuity": "annuity",
}

SECURITY_TYPES = {
    "cash": SecurityType.CASH,
    "cryptocurrency": SecurityType.CRYPTO,
    "derivative": SecurityType.DERIVATIVE,  # an option if it has an option contract
    "equity": SecurityType.EQUITY,
    "etf": SecurityType.ETF,
    "fixed income": SecurityType.FIXED_INCOME,
    "loan": SecurityType.OTHER,
    "mutual fund": SecurityType.MUTUAL_FUND,
}

_Kind = tuple[TransactionType, str | None]

# `transaction_code`: set by the institution; rare in the United States.
CODES: dict[str, _Kind] = {
    "adjustment": (TransactionType.ADJUSTMENT, None),
    "atm": (TransactionType.PAYMENT, "atm"),
    "bank charge": (TransactionType.FEE, "account_fee"),
    "bill payment": (TransactionType.PAYMENT, "bill_payment"),
    "cash": (TransactionType.TRANSFER, None),
    "cashback": (TransactionType.PAYMENT, "refund"),
    "cheque": (TransactionType.TRANSFER, "check"),
    "direct debit": (TransactionType.PAYMENT, "direct_debit"),
    "interest": (TransactionType.INCOME, "interest"),
    "payment": (TransactionType.PAYMENT, None),
    "purchase": (TransactionType.PAYMENT, "purchase"),
    "refund": (TransactionType.PAYMENT, "refund"),
    "standing order": (TransactionType.TRANSFER, None),
    "transfer": (TransactionType.TRANSFER, None),
}

# `personal_finance_category`: derived by Plaid from the description. The detailed category is tried before the primary.
CATEGORIES: dict[str, _Kind] = {
    "INCOME_DIVIDENDS": (TransactionType.INCOME, "dividend"),
    "INCOME_INTEREST_EARNED": (TransactionType.INCOME, "interest"),
    "INCOME_TAX_REFUND": (TransactionType.TAX, None),
    "BANK_FEES_INTEREST_CHARGE": (TransactionType.FEE, "interest"),
    "GOVERNMENT_AND_NON_PROFIT_TAX_PAYMENT": (TransactionType.TAX, None),
    "LOAN_PAYMENTS_CREDIT_CARD_PAYMENT": (TransactionType.PAYMENT, "bill_payment"),
    "TRANSFER_OUT_WITHDRAWAL": (TransactionType.TRANSFER, "withdrawal"),
    "TRANSFER_IN_DEPOSIT": (TransactionType.TRANSFER, "deposit"),
    "INCOME": (TransactionType.TRANSFER, "deposit"),
    "TRANSFER_IN": (TransactionType.TRANSFER, "deposit"),
    "TRANSFER_OUT": (TransactionType.TRANSFER, "withdrawal"),
    "LOAN_PAYMENTS": (TransactionType.PAYMENT, "loan_payment"),
    "BANK_FEES": (TransactionType.FEE, "account_fee"),
}
# Every other category is spending: money out is a purchase, money in is a refund.

# Subtypes of investment transactions that say more than their type.
INVESTMENT_SUBTYPES: dict[str, _Kind] = {
    "account fee": (TransactionType.FEE, "account_fee"),
    "adjustment": (TransactionType.ADJUSTMENT, None),
    "assignment": (TransactionType.TRADE, "option_assignment"),
    "buy": (TransactionType.TRADE, "buy"),
    "buy to cover": (TransactionType.TRADE, "buy_to_cover"),
    "contribution": (TransactionType.TRANSFER, "deposit"),
    "deposit": (TransactionType.TRANSFER, "deposit"),
    "distribution": (TransactionType.TRANSFER, "withdrawal"),
    "dividend": (TransactionType.INCOME, "dividend"),
    "dividend reinvestment": (TransactionType.REINVESTMENT, "dividend_reinvest"),
    "exercise": (TransactionType.TRADE, "option_exercise"),
    "expire": (TransactionType.TRADE, "option_expiration"),
    "fund fee": (TransactionType.FEE, "management_fee"),
    "interest": (TransactionType.INCOME, "interest"),
    "interest receivable": (TransactionType.INCOME, "interest"),
    "interest reinvestment": (TransactionType.REINVESTMENT, "interest_reinvest"),
    "legal fee": (TransactionType.FEE, "account_fee"),
    "loan payment": (TransactionType.PAYMENT, "loan_payment"),
    "long-term capital gain": (TransactionType.INCOME, "capital_gain_long"),
    "long-term capital gain reinvestment": (TransactionType.REINVESTMENT, "capital_gain_long_reinvest"),
    "management fee": (TransactionType.FEE, "management_fee"),
    "margin expense": (TransactionType.FEE, "margin_interest"),
    "merger": (TransactionType.CORPORATE_ACTION, "merger"),
    "miscellaneous fee": (TransactionType.FEE, "account_fee"),
    "non-qualified dividend": (TransactionType.INCOME, "dividend"),
    "non-resident tax": (TransactionType.TAX, "withholding"),
    "pending credit": (TransactionType.TRANSFER, "deposit"),
    "pending debit": (TransactionType.TRANSFER, "withdrawal"),
    "qualified dividend": (TransactionType.INCOME, "dividend"),
    "rebalance": (TransactionType.TRADE, "rebalance"),
    "return of principal": (TransactionType.INCOME, "return_of_capital"),
    "request": (TransactionType.OTHER, "request"),
    "sell": (TransactionType.TRADE, "sell"),
    "sell short": (TransactionType.TRADE, "short_sell"),
    "short-term capital gain": (TransactionType.INCOME, "capital_gain_short"),
    "short-term capital gain reinvestment": (TransactionType.REINVESTMENT, "capital_gain_short_reinvest"),
    "spin off": (TransactionType.CORPORATE_ACTION, "spinoff"),
    "split": (TransactionType.CORPORATE_ACTION, "split"),
    "stock distribution": (TransactionType.CORPORATE_ACTION, "stock_distribution"),
    "tax": (TransactionType.TAX, None),
    "tax withheld": (TransactionType.TAX, "withholding"),
    "transfer fee": (TransactionType.FEE, "account_fee"),
    "trust fee": (TransactionType.FEE, "account_fee"),
    "unqualified gain": (TransactionType.INCOME, "unqualified_gain"),
    "withdrawal": (TransactionType.TRANSFER, "withdrawal"),
}

# For subtypes that say no more than their type (`trade`, `transfer`, `send`), and for new ones.
INVESTMENT_TYPES: dict[str, _Kind] = {
    "buy": (TransactionType.TRADE, "buy"),
    "sell": (TransactionType.TRADE, "sell"),
    "cancel": (TransactionType.ADJUSTMENT, "cancel"),
    "cash": (TransactionType.TRANSFER, None),
    "fee": (TransactionType.FEE, None),
    "transfer": (TransactionType.TRANSFER, None),
}

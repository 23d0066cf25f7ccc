"""Tables that map Schwab's words and errors to ours."""

from __future__ import annotations

from worker.errors import AccessExpired, AccountGone, BadRequest, Forbidden, RateLimited, ReauthRequired
from worker.integrations.kit.taxonomy import Rule
from worker.models.vocabulary import SecurityType, TransactionStatus, TransactionType

TOKEN_RULES = (
    # Schwab reports an ended grant in three forms. The last differs from a wrong application secret only in its text.
    Rule(ReauthRequired, code="unsupported_token_type", reason="refresh_token_authentication_error"),
    Rule(ReauthRequired, code="refresh_token_authentication_error"),
    Rule(ReauthRequired, code="invalid_client", text="refresh token", reason="refresh_token_invalid"),
)

DATA_RULES = (
    Rule(AccessExpired, status=401),
    # Either our application lacks an API product, or this login or account is locked: Schwab does not say which.
    Rule(Forbidden, status=403),
    Rule(BadRequest, status=400),
    Rule(RateLimited, status=429),
)

ACCOUNT_RULES = (Rule(AccountGone, status=404), *DATA_RULES)
"""Rules for paths that contain an account."""

# TRADE, RECEIVE_AND_DELIVER, DIVIDEND_OR_INTEREST and ELECTRONIC_FUND need more than their type: see `mapping`.
TYPES: dict[str, tuple[TransactionType, str | None]] = {
    "TRADE": (TransactionType.TRADE, None),
    "RECEIVE_AND_DELIVER": (TransactionType.TRANSFER, None),
    "DIVIDEND_OR_INTEREST": (TransactionType.INCOME, None),
    "ACH_RECEIPT": (TransactionType.TRANSFER, "ach"),
    "ACH_DISBURSEMENT": (TransactionType.TRANSFER, "ach"),
    "CASH_RECEIPT": (TransactionType.TRANSFER, "deposit"),
    "CASH_DISBURSEMENT": (TransactionType.TRANSFER, "withdrawal"),
    "ELECTRONIC_FUND": (TransactionType.TRANSFER, None),
    "WIRE_OUT": (TransactionType.TRANSFER, "wire"),
    "WIRE_IN": (TransactionType.TRANSFER, "wire"),
    "JOURNAL": (TransactionType.TRANSFER, "internal"),
    "MEMORANDUM": (TransactionType.OTHER, "memorandum"),
    "MARGIN_CALL": (TransactionType.OTHER, "margin_call"),
    "MONEY_MARKET": (TransactionType.TRANSFER, "internal"),
    "SMA_ADJUSTMENT": (TransactionType.OTHER, "sma_adjustment"),
}

STATUSES = {
    "VALID": TransactionStatus.POSTED,
    "PENDING": TransactionStatus.PENDING,
    "INVALID": TransactionStatus.CANCELED,
}

SECURITY_TYPES = {
    "EQUITY": SecurityType.EQUITY,
    "OPTION": SecurityType.OPTION,
    "INDEX": SecurityType.OTHER,
    "MUTUAL_FUND": SecurityType.MUTUAL_FUND,
    "CASH_EQUIVALENT": SecurityType.CASH,
    "FIXED_INCOME": SecurityType.FIXED_INCOME,
    "CURRENCY": SecurityType.CASH,
    "COLLECTIVE_INVESTMENT": SecurityType.OTHER,  # except if its `type` says that it is an ETF
    "FUTURE": SecurityType.FUTURE,
    "FOREX": SecurityType.FOREX,
    "PRODUCT": SecurityType.OTHER,
}

# The first word found in the description of a DIVIDEND_OR_INTEREST row decides.
INCOME_WORDS: tuple[tuple[str, TransactionType, str], ...] = (
    ("MARGIN INTEREST", TransactionType.FEE, "margin_interest"),
    ("REINVEST", TransactionType.REINVESTMENT, "dividend_reinvest"),
    ("WITHHOLDING", TransactionType.TAX, "withholding"),
    ("FOREIGN TAX", TransactionType.TAX, "foreign_tax"),
    ("NRA TAX", TransactionType.TAX, "withholding"),
    ("LONG TERM CAP", TransactionType.INCOME, "capital_gain_long"),
    ("SHORT TERM CAP", TransactionType.INCOME, "capital_gain_short"),
    ("RETURN OF CAPITAL", TransactionType.INCOME, "return_of_capital"),
    ("DIV", TransactionType.INCOME, "dividend"),
    ("INTEREST", TransactionType.INCOME, "interest"),
)

OPTION_WORDS = (("EXPIR", "option_expiration"), ("EXERCIS", "option_exercise"), ("ASSIGN", "option_assignment"))
